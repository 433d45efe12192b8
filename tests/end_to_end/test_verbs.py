"""Each verb as a person uses it, with the models in the box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image

import limn


def test_generate_a_sheet_files_latents_and_a_table(run: Run, tmp_path: Path) -> None:
    done = run("generate", "--seeds", "0-5", "--columns", "3", "--out", tmp_path / "sheet.png", "--json").done
    size = done["size"]
    assert Image.open(tmp_path / "sheet.png").size == (3 * size + 4, 2 * size + 2)
    done = run("generate", "--seeds", "4,2", "--out", tmp_path / "faces", "--latents", "--json").done
    assert sorted(Path(file).name for file in done["files"]) == [f"seed000{n}.{kind}" for n in (2, 4) for kind in ("png", "safetensors")]
    alone, beside = limn.generate(seeds=(2,)).images[0], limn.generate(seeds=(0, 1, 2, 3)).images[2]
    assert np.abs(np.asarray(alone, int) - np.asarray(beside, int)).max() <= 1, "a seed's face depends on the seeds beside it"
    assert run("generate", "--seeds", "0-1", "--mix", "5-7", "--layers", "coarse", "--out", tmp_path / "mix.png").code == 0
    assert Image.open(tmp_path / "mix.png").size == (4 * size + 6, 3 * size + 4)


def test_generate_a_video(run: Run, tmp_path: Path) -> None:
    from limn.media import read_video

    assert run("generate", "--seeds", "0,1", "--frames", "5", "--video", tmp_path / "wander.mp4").code == 0
    assert len(list(read_video(tmp_path / "wander.mp4"))) == 10


@pytest.mark.parametrize("method", ["encoder", "both", "pivotal"])
def test_invert_says_how_close_it_came_and_edit_uses_it(run: Run, photo: Path, tmp_path: Path, method: str) -> None:
    steps = () if method == "encoder" else ("--steps", "15")
    done = run("invert", photo, "--out", tmp_path / "face.safetensors", "--method", method, *steps, "--json").done
    assert set(done["closeness"]) == {"perceptual", "psnr", "identity"}
    assert done["closeness"]["psnr"] > 10
    assert (tmp_path / "face.png").exists()
    edit = run("edit", photo, "--latent", tmp_path / "face.safetensors", "--set", "smile=1", "--out", tmp_path / "out.png")
    assert edit.code == 0, edit.err


def test_optimisation_comes_closer_than_the_encoder(run: Run, photo: Path, tmp_path: Path) -> None:
    def reached(method: str) -> float:
        done = run("invert", photo, "--out", tmp_path / f"{method}.safetensors", "--method", method, "--steps", "40", "--json").done
        return float(done["closeness"]["psnr"])

    assert reached("both") > reached("encoder")


def test_a_strip_of_strengths(run: Run, photo: Path, tmp_path: Path) -> None:
    assert run("edit", photo, "--strip", "smile=-2:2:5", "--out", tmp_path / "strip.png").code == 0
    assert Image.open(tmp_path / "strip.png").width == 5 * 512 + 4 * 2


def test_blend(run: Run, photo: Path, tmp_path: Path) -> None:
    done = run("blend", photo, "seed:3", "--method", "encoder", "--out", tmp_path / "child.png", "--json").done
    assert [Path(file).name for file in done["files"]] == ["child.png", "child.safetensors"]
    assert run("blend", tmp_path / "child.safetensors", "seed:9", "--strip", "4", "--out", tmp_path / "way.png").code == 0
    assert run("blend", "seed:3", "seed:9", "--layers", "coarse", "--share", "1", "--out", tmp_path / "mixed.png").code == 0


def test_what_is_written_says_that_it_was_made(run: Run, photo: Path, tmp_path: Path) -> None:
    assert not run("verify", photo, "--json").done["by_limn"]
    assert run("edit", photo, "--set", "smile=1.5", "--out", tmp_path / "marked.jpg").code == 0
    told = run("verify", tmp_path / "marked.jpg", "--json").done
    assert told["by_limn"] and told["credentials"]["origin"]["settings"] == {"smile": 1.5}
    assert run("generate", "--seeds", "0-8", "--out", tmp_path / "sheet.png").code == 0
    told = run("verify", tmp_path / "sheet.png", "--json").done
    assert told["credentials"]["origin"]["how"] == "generated" and told["watermark"]
    assert run("generate", "--seeds", "0-8", "--no-marks", "--out", tmp_path / "plain.png").code == 0
    assert not run("verify", tmp_path / "plain.png", "--json").done["by_limn"]


def test_the_same_functions_in_python(photo: Path, tmp_path: Path) -> None:
    made = limn.edit(photo, set={"smile": 1.5}, out=tmp_path / "python.png")
    assert made.files == (tmp_path / "python.png",)
    assert made.images[0].size == Image.open(photo).size
    again = limn.edit(Image.open(photo), set={"smile": 1.5}, out=tmp_path / "again.png")
    assert np.array_equal(np.asarray(made.images[0]), np.asarray(again.images[0])), "not the same twice"


def test_doctor_knows_every_model_in_the_box(run: Run) -> None:
    done = run("doctor", "--json").done
    assert {"limn-portraits64", "limn-encoder64", "limn-detector", "limn-mesh", "limn-identity"} <= {row["name"] for row in done["models"]}
    assert done["problems"] == [] or "missing" not in " ".join(done["problems"])
    assert (done["gpu"] and done["device"] in {"cpu", "mps"}) or done["device"].startswith("cuda")


def test_the_demo_makes_its_page(run: Run, photo: Path, tmp_path: Path) -> None:
    done = run("demo", photo, "--out", tmp_path / "demo", "--json").done
    page = (tmp_path / "demo" / "index.html").read_text()
    assert done["edits"] >= 3
    for name in ("faces.png", "inversion.png", "wander.mp4", "blend.png"):
        assert name in page and (tmp_path / "demo" / name).exists()

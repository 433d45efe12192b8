"""`limn translate` with small untrained networks: what is kept, what is cut, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image

from limn.faces.drawn import CLASSES, COLOURS
from limn.models.records import drawing
from limn.models.translation import cyclegan, pix2pix, spade
from limn.weights import save


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds models of all kinds, which were never trained."""
    at = tmp_path_factory.mktemp("models")
    with drawing(0):
        unet = pix2pix.Config(width=2, downs=5)
        grey = pix2pix.Config(1, 1, width=2, downs=5)
        save(at / "grey.safetensors", pix2pix.Generator(grey), "pix2pix", "generator", grey)
        save(at / "unet.safetensors", pix2pix.Generator(unet), "pix2pix", "generator", unet)
        for name, template in (("cycle", ""), ("faces", "ffhq")):
            config = cyclegan.Config(width=2, blocks=1, size=64, template=template)
            save(at / f"{name}.safetensors", {part: cyclegan.Generator(config) for part in ("a_to_b", "b_to_a")}, "cyclegan", config=config)
        numbers = spade.Config(classes=4, width=1)
        save(at / "numbers.safetensors", spade.Generator(numbers), "spade", "generator", numbers)
        drawn = spade.Config(
            len(CLASSES), "face-mesh", 1, size=32, template="ffhq", z_dim=4, encoder_width=2, encoder_size=16, judge_width=2
        )
        save(at / "drawn.safetensors", {"generator": spade.Generator(drawn), "encoder": spade.Encoder(drawn)}, "spade", config=drawn)
    return at


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"), int)


def test_a_picture_of_any_size_keeps_its_size(run: Run, folder: Path, astronaut: Image.Image, tmp_path: Path) -> None:
    for width, height in ((130, 67), (21, 40)):
        astronaut.resize((width, height)).save(tmp_path / "in.jpg", quality=80)
        done = run("translate", tmp_path / "in.jpg", "--model", folder / "unet.safetensors", "--out", tmp_path / "out.png", "--json").done
        assert Image.open(tmp_path / "out.png").size == (width, height)
        assert done["faces"] == 0 and not done["notes"], "nothing had to be resized"
        grey = ("--model", folder / "grey.safetensors", "--no-marks", "--out", tmp_path / "grey.png")
        assert run("translate", tmp_path / "in.jpg", *grey).code == 0
        assert np.ptp(pixels(tmp_path / "grey.png"), -1).max() == 0
    small = ("--model", folder / "cycle.safetensors", "--size", 32)
    done = run("translate", tmp_path / "in.jpg", *small, "--out", tmp_path / "o.png", "--json").done
    assert "saw 17x32" in done["notes"][0] and Image.open(tmp_path / "o.png").size == (21, 40)


def test_a_model_of_faces_changes_the_face_alone(run: Run, folder: Path, photo: Path, tmp_path: Path) -> None:
    model = folder / "faces.safetensors"
    done = run("translate", photo, "--model", model, "--part", "b_to_a", "--out", tmp_path / "out.png", "--json").done
    assert (done["faces"], done["part"]) == (1, "b_to_a")
    changed = np.abs(pixels(photo) - pixels(tmp_path / "out.png")).max(-1)
    assert changed[-100:].max() == 0 and changed[:, :60].max() == 0, "pixels far from the face were touched"
    assert changed[60:190, 170:280].mean() > 2, "the face did not change"
    none = ("--face", "none", "--size", 64)
    assert run("translate", photo, "--model", model, *none, "--out", tmp_path / "all.png", "--json").done["faces"] == 0


def test_label_maps_by_number_and_by_colour(run: Run, folder: Path, tmp_path: Path) -> None:
    numbers = np.zeros((40, 50), np.uint8)
    numbers[10:] = 3
    Image.fromarray(numbers).save(tmp_path / "map.png")
    model = folder / "numbers.safetensors"
    done = run("translate", tmp_path / "map.png", "--model", model, "--out", tmp_path / "out.png", "--json").done
    assert Image.open(tmp_path / "out.png").size == (50, 40) and done["faces"] == 0
    Image.fromarray(numbers + 9).save(tmp_path / "wrong.png")
    assert "has the class 12" in run("translate", tmp_path / "wrong.png", "--model", model, "--out", tmp_path / "x.png").err
    Image.fromarray(np.array(COLOURS, np.uint8)[numbers]).save(tmp_path / "colours.png")
    assert "no label map" in run("translate", tmp_path / "colours.png", "--model", model, "--out", tmp_path / "x.png").err
    outs = []
    for name in ("map.png", "colours.png"):
        outs.append(tmp_path / f"drawn-{name}")
        run("translate", tmp_path / name, "--model", folder / "drawn.safetensors", "--no-marks", "--out", outs[-1], "--json").done  # noqa: B018
    assert (pixels(outs[0]) == pixels(outs[1])).all()


def test_a_photograph_is_painted_from_its_mesh_in_a_style(run: Run, folder: Path, photo: Path, tmp_path: Path) -> None:
    model, outs = folder / "drawn.safetensors", {}
    for name, words in {"mean": [], "one": ["--seed", 1], "again": ["--seed", 1], "style": ["--style", photo]}.items():
        outs[name] = tmp_path / f"{name}.png"
        done = run("translate", photo, "--model", model, *words, "--no-marks", "--out", outs[name], "--json").done
        assert done["faces"] == 1
    found = {name: pixels(file) for name, file in outs.items()}
    assert (found["one"] == found["again"]).all()
    assert (found["one"] != found["mean"]).any() and (found["style"] != found["mean"]).any()
    assert (found["one"][-100:] == pixels(photo)[-100:]).all()


def test_a_folder_is_translated_and_a_bad_file_named(run: Run, folder: Path, astronaut: Image.Image, tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    astronaut.resize((40, 40)).save(pictures / "a.png")
    astronaut.resize((30, 40)).save(pictures / "a.jpg")
    (pictures / "b.png").write_bytes(b"no picture")
    done = run("translate", pictures, "--model", folder / "cycle.safetensors", "--out", tmp_path / "out", "--json").done
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.jpg.png", "a.png.png"]
    assert len(done["failed"]) == 1 and "b.png" in done["failed"][0]


def test_what_is_refused(run: Run, folder: Path, photo: Path, tmp_path: Path) -> None:
    out, cycle = tmp_path / "out.png", folder / "cycle.safetensors"
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((photo, "--model", "limn-mesh"), "a translator is needed"),
        ((photo, "--model", cycle, "--part", "c_to_d"), "holds no 'c_to_d'"),
        ((photo, "--model", cycle, "--size", -4), "--size -4"),
        ((photo, "--model", cycle, "--style", photo), "has no styles"),
        ((tmp_path / "empty", "--model", cycle), "holds no pictures"),
        ((tmp_path / "missing.jpg", "--model", cycle), "there is no file"),
    ):
        ran = run("translate", *words, "--out", out)
        assert ran.code == 2 and said in ran.err, ran.err
        assert not out.exists()

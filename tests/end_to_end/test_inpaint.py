"""`limn inpaint` as a person uses it; small models with drawn weights stand for trained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image

from limn.media import verify
from limn.models.inpainting import deepfill_v2, partial_conv
from limn.models.records import drawing
from limn.weights import save


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    faces = deepfill_v2.Config(width=8, channels_in=6, padding="symmetric", size=32, template="ffhq")
    pictures = partial_conv.Config(width=4, depth=4, size=32)
    with drawing(0):
        save(folder / "faces.safetensors", deepfill_v2.Generator(faces), "deepfill-v2", "generator", faces)
        save(folder / "pictures.safetensors", partial_conv.UNet(pictures), "partial-conv", "unet", pictures)
    return {name: folder / f"{name}.safetensors" for name in ("faces", "pictures")}


def same_outside(before: Path, after: Path, hole: np.ndarray) -> bool:
    old, new = (np.asarray(Image.open(path).convert("RGB")) for path in (before, after))
    return old.shape == new.shape and np.array_equal(old[~hole], new[~hole]) and not np.array_equal(old[hole], new[hole])


def test_a_hole_is_filled_and_nothing_else_is_touched(run: Run, photo: Path, models: dict[str, Path], tmp_path: Path) -> None:
    hole = np.zeros((512, 512), bool)
    hole[70:130, 180:260] = True
    Image.fromarray(hole.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    for name, model in models.items():
        asked = ("--mask", tmp_path / "mask.png", "--model", model, "--out", tmp_path / f"{name}.png")
        done = run("inpaint", photo, *asked, "--json").done
        assert done["hole"] == pytest.approx(hole.mean()) and done["face"] == (0 if name == "faces" else None)
        assert same_outside(photo, tmp_path / f"{name}.png", hole), "marks and filling stay inside the hole"
        marks = verify(tmp_path / f"{name}.png")
        assert marks.credentials is not None and marks.credentials.origin["how"] == "inpainted"
    asked = ("--model", models["pictures"], "--out", tmp_path / "box.png")
    assert run("inpaint", photo, "--box", "180,70,260,130", "--no-marks", *asked).code == 0
    assert same_outside(photo, tmp_path / "box.png", hole)


def test_regions_strokes_and_sketches(run: Run, photo: Path, astronaut: Image.Image, models: dict[str, Path], tmp_path: Path) -> None:
    lines = Image.new("L", astronaut.size, 255)
    lines.paste(0, (190, 100, 250, 103))
    lines.save(tmp_path / "sketch.png")
    asked = ("inpaint", photo, "--model", models["faces"], "--out")
    plain = run(*asked, tmp_path / "plain.png", "--region", "mouth", "--no-marks", "--json").done
    assert 0.001 < plain["hole"] < 0.02
    assert run(*asked, tmp_path / "guided.png", "--region", "mouth,nose", "--sketch", tmp_path / "sketch.png").code == 0
    first, again, other = (run(*asked, tmp_path / "strokes.png", "--strokes", "--seed", seed, "--json").done["hole"] for seed in (1, 1, 2))
    assert first == again != other
    beyond = run(*asked, tmp_path / "beyond.png", "--box", "200,80,500,130", "--json").done
    assert any("beyond" in note for note in beyond["notes"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no hole was given"),
        (("--box", "1,2,3"), "left,top,right,bottom"),
        (("--box", "0,0,9,600"), "512x512"),
        (("--box", "0,0,512,500"), "covers 98%"),
        (("--box", "0,500,20,512"), "outside the face"),
        (("--mask", "small.png"), "40x30, the photo 512x512"),
        (("--mask", "black.png"), "the hole is empty"),
        (("--region", "tail"), "no region 'tail'"),
        (("--region", "mouth", "--face", "5"), "holds 1 face"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, photo: Path, models: dict[str, Path], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    Image.new("L", (40, 30), 255).save(tmp_path / "small.png")
    Image.new("L", (512, 512), 0).save(tmp_path / "black.png")
    named = [tmp_path / option if option.endswith(".png") else option for option in options]
    done = run("inpaint", photo, *named, "--model", models["faces"], "--out", tmp_path / "out.png")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "out.png").exists()


def test_other_models_and_sketches_they_cannot_follow_are_refused(run: Run, photo: Path, models: dict[str, Path], tmp_path: Path) -> None:
    asked = ("inpaint", photo, "--box", "180,70,260,130", "--out", tmp_path / "out.png", "--model")
    assert "an inpainter is needed" in run(*asked, "limn-identity").err
    assert "takes no sketch" in run(*asked, models["pictures"], "--sketch", photo).err

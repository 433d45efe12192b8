"""`limn restore`: faces of a photograph, all of it enlarged in tiles, folders, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Run
from PIL import Image, ImageFilter

from limn.models.records import drawing
from limn.models.restoration import gpen, real_esrgan
from limn.weights import save
from limn.weights.store import names


@pytest.fixture(scope="module")
def face_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny restorer that makes every face darker at its middle, as only a network that was never trained does."""
    config = gpen.Config(32, 8, 2, (8, 8, 8, 8), concat=False, residual=True, template="ffhq")
    with drawing(0):
        network = gpen.Generator(config)
    return save(tmp_path_factory.mktemp("models") / "tiny.safetensors", network, "gpen", "generator", config)


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny enlarging network that repeats pixels and does next to nothing else."""
    config = real_esrgan.Config("compact", features=4, convs=1, factor=2)
    with drawing(0), torch.no_grad():
        network = real_esrgan.generator(config)
        network.body[-1].weight.mul_(0.01)  # type: ignore[index, operator]
        network.body[-1].bias.zero_()  # type: ignore[index, operator]
    return save(tmp_path_factory.mktemp("models") / "double.safetensors", network, "real-esrgan", "generator", config)


def test_only_faces_change(run: Run, photo: Path, face_model: Path, tmp_path: Path) -> None:
    done = run("restore", photo, "--model", face_model, "--out", tmp_path / "out.png", "--json").done
    assert done["faces"] == 1 and done["scale"] == 1
    before, after = (np.asarray(Image.open(path).convert("RGB"), int) for path in (photo, tmp_path / "out.png"))
    changed = np.abs(before - after).max(-1)
    assert changed[60:190, 170:280].mean() > 1 and changed[:, :60].max() == 0 and changed[400:].max() == 0
    said = run("verify", tmp_path / "out.png", "--json").done
    assert "restored" in str(said)


def test_strength_0_changes_nothing(run: Run, photo: Path, face_model: Path, tmp_path: Path) -> None:
    assert run("restore", photo, "--model", face_model, "--strength", "0", "--out", tmp_path / "out.png").code == 0
    assert np.array_equal(np.asarray(Image.open(photo).convert("RGB")), np.asarray(Image.open(tmp_path / "out.png").convert("RGB")))


def test_all_of_a_photograph_is_enlarged(run: Run, photo: Path, face_model: Path, background: Path, tmp_path: Path) -> None:
    options = ("--model", face_model, "--background", background, "--scale", "2", "--tile", "200", "--json")
    done = run("restore", photo, *options, "--out", tmp_path / "out.jpg").done
    assert done["background"] == "double" and Image.open(tmp_path / "out.jpg").size == (1024, 1024)
    assert run("restore", photo, "--face", "none", "--scale", "4", "--out", tmp_path / "four.jpg").code == 0
    assert Image.open(tmp_path / "four.jpg").size == (2048, 2048)


def test_a_folder_passes_over_what_cannot_be_restored(run: Run, astronaut: Image.Image, face_model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    astronaut.convert("L").save(photos / "grey.png")
    Image.new("RGB", (64, 64)).save(photos / "nobody.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    done = run("restore", photos, "--model", face_model, "--out", tmp_path / "out", "--json").done
    assert [Path(file).name for file in done["files"]] == ["grey.png"]
    notes = " ".join(done["notes"])
    assert "nobody.png: " in notes and "broken.jpg: " in notes and "--colourise" in notes
    grey = np.asarray(Image.open(tmp_path / "out" / "grey.png").convert("RGB"), int)
    assert np.abs(grey[..., 0] - grey[..., 2]).max() <= 1, "a grey photograph stays grey unless colour is asked for"


def test_what_cannot_be_done_is_said_in_one_line(run: Run, photo: Path, face_model: Path, background: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out.png")
    for options, said in (
        (("--scale", "3"), "1, 2 or 4"),
        (("--strength", "2"), "0 to 1"),
        (("--model", background), "--background"),
        (("--model", face_model, "--background", face_model), "real-esrgan or esrgan"),
        (("--face", "none", "--colourise"), "--face none"),
    ):
        ran = run("restore", photo, *options, *out)
        assert ran.code == 2 and said in ran.err and ran.err.strip().count("\n") == 0, ran.err
    assert not (tmp_path / "out.png").exists()


def test_the_restorer_in_the_box_brings_a_face_nearer(run: Run, astronaut: Image.Image, tmp_path: Path) -> None:
    if "limn-restorer128" not in names():
        pytest.skip("limn-restorer128 is not installed")
    small = astronaut.filter(ImageFilter.GaussianBlur(1.5)).resize((128, 128), Image.Resampling.BICUBIC)
    noisy = np.asarray(small, float) + np.random.default_rng(0).normal(0, 8, (128, 128, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "old.jpg", quality=70)
    assert run("restore", tmp_path / "old.jpg", "--scale", "4", "--out", tmp_path / "out.png").code == 0
    plain = Image.open(tmp_path / "old.jpg").resize((512, 512), Image.Resampling.BICUBIC)
    box = (170, 60, 280, 190)
    wanted = np.asarray(astronaut.crop(box), float)
    errors = [
        ((np.asarray(image.convert("RGB").crop(box), float) - wanted) ** 2).mean() for image in (plain, Image.open(tmp_path / "out.png"))
    ]
    assert errors[1] < 0.95 * errors[0], errors

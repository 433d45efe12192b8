"""`limn swap` on a photograph and on a clip, with a swapper that has learnt nothing but to paint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Run
from PIL import Image

from limn.media import read_video, verify, write_video
from limn.models.records import drawing
from limn.models.swapping.simswap import Config, Generator, Judge
from limn.weights import save


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config(64, 128, 1.0, (8, 16), 1, template="ffhq", residual=True, judge=Judge("patch", 8, depth=3))
    with drawing(0):
        network = Generator(config)
        torch.nn.init.normal_(network.last.weight, std=0.05)
    return save(tmp_path_factory.mktemp("swapper") / "tiny.safetensors", {"generator": network}, "simswap", config=config)


@pytest.fixture
def source(astronaut: Image.Image, tmp_path: Path) -> Path:
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "source.png")
    return tmp_path / "source.png"


def changed(a: Path, b: Path) -> np.ndarray:
    first, second = (np.asarray(Image.open(path).convert("RGB"), int) for path in (a, b))
    return np.abs(first - second).max(-1)


def test_only_the_face_changes_and_the_consent_is_bound(run: Run, photo: Path, source: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert "--consent" in run("swap", source, photo, "--model", model, "--out", out).err and not out.exists()
    done = run("swap", source, photo, "--model", model, "--out", out, "--consent", "her own picture", "--json").done
    assert done["faces"] == [0] and done["consent"] == "her own picture" and len(done["likeness"]) == 2
    difference = changed(photo, out)
    assert difference[:, :80].max() == 0 and difference[330:].max() == 0 and difference[60:190, 170:280].mean() > 0.5
    found = verify(out)
    assert found.credentials is not None and found.credentials.valid
    assert found.credentials.origin["consent"] == "her own picture" and found.credentials.origin["how"] == "swapped"
    for way in ("paste", "seamless"):
        pasted = tmp_path / f"{way}.png"
        assert run("swap", source, photo, "--model", model, "--out", pasted, "--way", way, "--colour", "none").code == 0, "asked once"
        assert changed(photo, pasted)[330:].max() == 0


def test_strength_0_is_the_photograph_and_wrong_kinds_are_told(run: Run, photo: Path, source: Path, model: Path, tmp_path: Path) -> None:
    give = ("--model", model, "--consent", "her own picture")
    assert run("swap", source, photo, *give, "--out", tmp_path / "same.png", "--strength", "0").code == 0
    assert (tmp_path / "same.png").read_bytes() == photo.read_bytes()
    assert "out of range" in run("swap", source, photo, *give, "--out", tmp_path / "x.png", "--strength", "3").err
    assert "a picture" in run("swap", source, photo, *give, "--out", tmp_path / "x.mp4").err
    assert "a swapper is needed" in run("swap", source, photo, *give[2:], "--model", "limn-mesh", "--out", tmp_path / "x.png").err


def test_a_clip_keeps_its_length_and_what_is_not_the_face(
    run: Run, astronaut: Image.Image, source: Path, model: Path, tmp_path: Path
) -> None:
    small = astronaut.resize((256, 256))
    frames = [small.transform(small.size, Image.Transform.AFFINE, (1, 0, -index, 0, 1, 0)) for index in range(6)]
    write_video(tmp_path / "in.mp4", [*frames, Image.new("RGB", (256, 256))], 25)
    done = run("swap", source, tmp_path / "in.mp4", "--model", model, "--consent", "her own", "--out", tmp_path / "out.mp4", "--json").done
    assert done["frames"] == 7 and "1 of 7" in " ".join(done["notes"])
    clips = [[np.asarray(frame, int) for _, frame in read_video(tmp_path / name)] for name in ("in.mp4", "out.mp4")]
    for before, after in zip(*clips, strict=True):
        assert np.abs(before[200:] - after[200:]).mean() < 4
    assert np.abs(clips[0][2][30:95, 85:140] - clips[1][2][30:95, 85:140]).mean() > 2

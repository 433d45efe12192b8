"""`limn animate`: a portrait follows a clip, with its frame rate; what cannot be done is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image

from limn.media import read_video, verify, write_video

FRAMES, FPS = 7, Fraction(30)


@pytest.fixture(scope="module")
def driving(astronaut: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut, moving to the right; one frame shows nobody."""
    face = astronaut.crop((100, 0, 356, 256))
    frames = [face.transform(face.size, Image.Transform.AFFINE, (1, 0, -2.0 * n, 0, 1, 0), Image.Resampling.BICUBIC) for n in range(FRAMES)]
    frames[4] = Image.new("RGB", face.size, (90, 120, 90))
    return write_video(tmp_path_factory.mktemp("driving") / "clip.mp4", frames, FPS)


def test_a_portrait_follows_a_clip(run: Run, photo: Path, driving: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = run("animate", photo, "--driving", driving, "--out", out, "--longest", 256, "--consent", "NASA, public domain", "--json").done
    clip = read_video(out)
    frames = [np.asarray(image, int) for _, image in clip]
    assert len(frames) == FRAMES == done["frames"] and abs(float(clip.fps - FPS)) < 0.1 and clip.size == (256, 256)
    assert any("frame 4" in note for note in done["notes"]), "the frame without a face was not reported"
    assert np.abs(frames[6] - frames[0]).mean() > 0.5, "nothing moved"
    assert np.abs(frames[6][200:] - frames[0][200:]).mean() < 3, "more than the head moved"
    marks = verify(out)
    assert marks.credentials is not None and marks.credentials.origin["consent"] == "NASA, public domain"


def test_what_is_no_animator_is_refused(run: Run, photo: Path, driving: Path, tmp_path: Path) -> None:
    ran = run("animate", photo, "--driving", driving, "--out", tmp_path / "a.mp4", "--consent", "public domain", "--model", "limn-identity")
    assert ran.code == 2 and "an animator is needed" in ran.err
    assert run("animate", photo, "--driving", driving, "--out", tmp_path / "a.jpg", "--consent", "public domain").code == 2
    assert not list(tmp_path.iterdir())

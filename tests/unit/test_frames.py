"""Clips frame by frame: what goes wrong with one frame, what an interruption leaves, and that the parts join to the whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limn.errors import FaceError, InputError
from limn.media import read_video, verify, write_video
from limn.media.marks import Origin
from limn.tasks.frames import Passed, through

SIZE, COUNT, FPS = (64, 48), 25, Fraction(25)


def picture(number: int) -> Image.Image:
    """A grey that says which frame it is."""
    return Image.new("RGB", SIZE, (8 * number + 20,) * 3)


def number_of(image: Image.Image) -> int:
    return round((float(np.asarray(image).mean()) - 20) / 8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mp4", (picture(n) for n in range(COUNT)), FPS)


def run(clip: Path, out: Path, function: object, **options: object) -> Passed:
    return through(clip, out, function, settings={"a": 1}, segment=7, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_parts_join_to_the_whole(clip: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    passed = run(clip, out, lambda frame, _: frame)
    frames = list(read_video(out))
    assert passed.frames == COUNT and not passed.faults and not passed.kept
    assert [number_of(image) for _, image in frames] == list(range(COUNT))
    assert np.allclose([moment for moment, _ in frames], np.arange(COUNT) / 25, atol=0.002)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.mp4", out.name])


def test_bad_frames_are_reported_and_the_result_before_stays(clip: Path, tmp_path: Path) -> None:
    def picky(frame: Image.Image, _: float) -> Image.Image:
        if number_of(frame) in (0, 9, 10):
            raise FaceError("no face")
        return frame

    passed = run(clip, tmp_path / "out.mp4", picky, before=picture(24))
    numbers = [number_of(image) for _, image in read_video(tmp_path / "out.mp4")]
    assert numbers[0] == 24 and numbers[8:12] == [8, 8, 8, 11]
    assert len(passed.faults) == 2 and "frames 9 to 10 (0.36 s): no face" in passed.faults[1]


def test_a_clip_of_which_nothing_can_be_used_is_an_error(clip: Path, tmp_path: Path) -> None:
    def never(frame: Image.Image, _: float) -> Image.Image:
        raise FaceError("no face in it")

    with pytest.raises(InputError, match=r"in\.mp4: no frame of it could be used; the first: no face in it"):
        run(clip, tmp_path / "out.mp4", never)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_an_interrupted_run_goes_on(clip: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out.mp4", []

    def stopping(frame: Image.Image, _: float) -> Image.Image:
        if number_of(frame) == 17:
            raise KeyboardInterrupt
        return frame

    with pytest.raises(KeyboardInterrupt):
        run(clip, out, stopping)
    assert not out.exists() and len(list(tmp_path.glob(".out*/*.mp4"))) == 2

    def noting(frame: Image.Image, _: float) -> Image.Image:
        seen.append(number_of(frame))
        return frame

    passed = run(clip, out, noting, warm=2)
    assert passed.kept == 14 and seen == list(range(12, COUNT))
    assert [number_of(image) for _, image in read_video(out)] == list(range(COUNT))
    assert not list(tmp_path.glob(".out*"))


def test_other_settings_begin_anew(clip: Path, tmp_path: Path) -> None:
    def stopping(frame: Image.Image, _: float) -> Image.Image:
        if number_of(frame) == 17:
            raise KeyboardInterrupt
        return frame

    with pytest.raises(KeyboardInterrupt):
        run(clip, tmp_path / "out.mp4", stopping)
    assert through(clip, tmp_path / "out.mp4", lambda frame, _: frame, settings={"a": 2}, segment=7).kept == 0


def test_frames_are_marked(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(60, 200, (192, 256, 3), np.uint8)
    large = Image.fromarray(np.asarray(Image.fromarray(noise).resize((64, 48)).resize((256, 192))))
    source = write_video(tmp_path / "in.mp4", [large] * 4, FPS)
    through(source, tmp_path / "out.mp4", lambda frame, _: frame, settings={}, origin=Origin("animated", "m", "ab" * 32), segment=2)
    marks = verify(tmp_path / "out.mp4")
    assert marks.credentials is not None and marks.credentials.valid and marks.watermark is not None
    assert marks.watermark.how == "animated"

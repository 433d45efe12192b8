"""Clips in and out, on clips made here: times, turns, depth, sound, sizes, and nothing half-written."""

import gc
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from limn.errors import InputError
from limn.media import read_video, write_video

SIZE = (96, 64)


def picture(index: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Red grows to the right, green downwards, blue with time: any turn or mix-up shows."""
    width, height = size
    red, green = np.meshgrid(np.linspace(20, 230, width), np.linspace(20, 230, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 20 + 10 * index)], -1).astype(np.uint8))


def sound(path: Path, seconds: float, codec: str, suffix: str = "") -> Path:
    """Write a clip with a 440 Hz tone beside its picture."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = output.add_stream(codec, rate=44_100)
        for index in range(round(25 * seconds)):
            output.mux(video.encode(av.VideoFrame.from_image(picture(index % 20))))
        tone = (8000 * np.sin(2 * np.pi * 440 / 44_100 * np.arange(round(44_100 * seconds)))).astype(np.int16)
        for start in range(0, len(tone), 1152):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1152], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 44_100, start
            output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
        output.mux(video.encode(None))
    return path


def heard(path: Path) -> tuple[str, float, float]:
    """Return codec, length in seconds and dominant frequency in hertz of the sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        wave = np.concatenate([frame.to_ndarray().astype(float).reshape(-1)[: frame.samples] for frame in container.decode(stream)])
        spectrum = np.abs(np.fft.rfft(wave))
        return stream.codec_context.name, len(wave) / stream.rate, float(spectrum.argmax() * stream.rate / len(wave))


def off(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_frames_go_out_and_come_back(tmp_path: Path, suffix: str) -> None:
    write_video(tmp_path / f"a.{suffix}", (picture(i) for i in range(12)), Fraction(30_000, 1001))
    clip = read_video(tmp_path / f"a.{suffix}")
    frames = list(clip)
    assert (clip.size, len(frames), clip.rotation, clip.has_audio) == (SIZE, 12, 0, False)
    assert abs(clip.fps - Fraction(30_000, 1001)) < 0.1 and clip.duration == pytest.approx(0.4, abs=0.05)
    assert max(off(frame, picture(i)) for i, (_, frame) in enumerate(frames)) < 4, "colours are off: matrix or range"
    assert [round(t * 29.97) for t, _ in frames] == list(range(12))
    assert len(list(clip)) == 12, "a clip can be read again"


def test_odd_size_is_padded_by_its_own_edge(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [picture(i, (97, 65)) for i in range(3)], 25)
    clip = read_video(tmp_path / "a.mp4")
    frame = next(iter(clip))[1]
    assert clip.size == (98, 66) and off(frame.crop((0, 0, 97, 65)), picture(0, (97, 65))) < 4
    assert off(frame.crop((97, 0, 98, 66)), frame.crop((96, 0, 97, 66))) < 6


@pytest.mark.parametrize(
    ("degrees", "turn"), [(90, Image.Transpose.ROTATE_90), (180, Image.Transpose.ROTATE_180), (-90, Image.Transpose.ROTATE_270)]
)
def test_display_matrix_is_applied(tmp_path: Path, degrees: int, turn: Image.Transpose) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.set_display_rotation(degrees)
        for i in range(3):
            output.mux(stream.encode(av.VideoFrame.from_image(picture(i))))
        output.mux(stream.encode(None))
    clip = read_video(tmp_path / "a.mp4")
    frame = next(iter(clip))[1]
    expected = picture(0).transpose(turn)
    assert clip.rotation == degrees % 360 and frame.size == clip.size == expected.size
    assert off(frame, expected) < 5


def test_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.5, 0.54, 1.0]
    write_video(tmp_path / "a.mp4", ((t, picture(i)) for i, t in enumerate(times)), 25)
    clip = read_video(tmp_path / "a.mp4")
    assert [t for t, _ in clip] == pytest.approx(times, abs=1e-3)
    steady = list(clip.at(10))
    assert [t for t, _ in steady] == pytest.approx([i / 10 for i in range(len(steady))]) and len(steady) == 11
    shown = [round((np.asarray(frame)[..., 2].mean() - 20) / 10) for _, frame in steady]
    assert shown == [0, 2, 2, 2, 2, 3, 4, 4, 4, 4, 5], "the frame on screen at each moment"


def test_ten_bits_are_read_as_eight(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx265", rate=25, options={"crf": "8", "x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p10le"
        for i in range(3):
            output.mux(stream.encode(av.VideoFrame.from_image(picture(i))))
        output.mux(stream.encode(None))
    clip = read_video(tmp_path / "a.mp4")
    frame = next(iter(clip))[1]
    assert "10 bits" in clip.notes[0] and frame.mode == "RGB" and off(frame, picture(0)) < 5


@pytest.mark.parametrize(("codec", "kept"), [("aac", "aac"), ("mp2", "aac")])
def test_sound_is_kept_and_as_long_as_the_picture(tmp_path: Path, codec: str, kept: str) -> None:
    source = sound(tmp_path / ("s.mp4" if codec == "aac" else "s.mpg"), 2, codec)
    clip = read_video(source)
    assert clip.has_audio
    write_video(tmp_path / "whole.mp4", (frame for _, frame in clip), clip.fps, audio_from=source)
    write_video(tmp_path / "short.mp4", (picture(i) for i in range(20)), 25, audio_from=source)
    for name, seconds in (("whole.mp4", 2.0), ("short.mp4", 0.8)):
        name_of_codec, length, pitch = heard(tmp_path / name)
        assert name_of_codec == kept and length == pytest.approx(seconds, abs=0.08) and pitch == pytest.approx(440, abs=5), name


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    alive: list[weakref.ref[Image.Image]] = []
    most = 0

    def frames() -> Iterator[Image.Image]:
        nonlocal most
        for i in range(60):
            frame = picture(i % 20)
            alive.append(weakref.ref(frame))
            most = max(most, sum(ref() is not None for ref in alive))
            yield frame

    write_video(tmp_path / "a.mp4", frames(), 25)
    gc.collect()
    assert most <= 3, "frames pile up"


def test_nothing_half_written(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Image.Image]:
        yield from (picture(i) for i in range(10))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", interrupted(), 25)
    with pytest.raises(InputError, match="frames of one size"):
        write_video(tmp_path / "a.mp4", [picture(0), picture(1, (64, 64))], 25)
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "a.mp4", [], 25)
    with pytest.raises(InputError, match=r"\.webm"):
        write_video(tmp_path / "a.xyz", [picture(0)], 25)
    with pytest.raises(InputError, match="does not exist"):
        write_video(tmp_path / "no" / "a.mp4", [picture(0)], 25)
    assert not list(tmp_path.iterdir())


def test_bad_clips_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip, only words")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile whole.mp4\n")
    write_video(tmp_path / "whole.mp4", [picture(i) for i in range(20)], 25)
    (tmp_path / "short.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:600])
    for name in ("missing.mp4", "text.mp4", "list.m3u8", "concat.mp4", "short.mp4", "."):
        with pytest.raises(InputError) as caught:
            read_video(tmp_path / name)
        assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value), name
    with pytest.raises(InputError, match="million allowed"):
        read_video(tmp_path / "whole.mp4", pixels=100)

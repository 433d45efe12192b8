"""One writer for every clip: H.264 in MP4 by default, with the sound of another clip, whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import av
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from limn.errors import InputError
from limn.media.files import atomic, writable
from limn.media.video import SHARP, opened

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from limn.media.marks import Origin

Frame = Image.Image | tuple[float, Image.Image]
BT709 = 1  # ITU-T H.273: primaries, transfer and matrix alike
TICKS = 90_000  # per second, for frames that come with their own times


class Container(NamedTuple):
    """What goes into the files of a suffix."""

    video: str
    options: dict[str, str]
    audio: str  # what sound is encoded to where it cannot be copied
    copies: frozenset[str]  # sound that players expect in it


_H264 = {"crf": "17", "preset": "medium"}  # visually transparent; a face is looked at closely
_MP4 = Container("libx264", _H264 | {"movflags": "+faststart"}, "aac", frozenset({"aac", "mp3", "ac3", "eac3", "alac"}))
SUFFIXES = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": _MP4,
    ".mkv": Container("libx264", _H264, "aac", frozenset({"aac", "mp3", "ac3", "eac3", "opus", "vorbis", "flac"})),
    ".webm": Container("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4"}, "libopus", frozenset({"opus", "vorbis"})),
}


def write_video(
    path: str | Path, frames: Iterable[Frame], fps: Fraction | float, audio_from: str | Path | None = None, origin: Origin | None = None
) -> Path:
    """Write frames (all of one size; RGB images at `fps`, or (seconds, image) pairs where the rate varies) and return `path`.

    Sound is taken from the clip `audio_from`: copied where the container allows it, else encoded, and cut to the length of the picture.
    4:2:0 needs even sizes: an odd one gets its last row or column once more. Memory does not grow with length.
    With an `origin` the clip is marked: a watermark in every frame and, in MP4 and MOV, signed content credentials.
    InputError for an unknown suffix, no frames, changing sizes, a missing or read-only folder, a full disk.
    """
    target = Path(path)
    suffix_of(path)
    writable(path)
    with atomic(path) as beside:
        try:
            shown = _marked(frames, origin) if origin is not None and origin.marked else iter(frames)
            _write(beside, path, shown, Fraction(fps).limit_denominator(1_000_000), Path(audio_from) if audio_from else None)
        except av.FFmpegError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise OSError(error.errno, error.strerror) from error  # which `atomic` explains
            raise InputError(f"cannot write {path}: {error.strerror}; try another suffix") from error
        if origin is not None:
            from limn.media import marks

            marks.sign(beside, origin, target.name)
    return target


def suffix_of(path: str | Path) -> str:
    """Return the suffix of a clip that can be written, in lower case; InputError for any other."""
    suffix = Path(path).suffix
    if suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot write {path}: no video format has the suffix {suffix!r}; use one of {', '.join(SUFFIXES)}")
    return suffix.lower()


def join_video(
    path: str | Path, parts: Sequence[tuple[float, Path]], audio_from: str | Path | None = None, origin: Origin | None = None
) -> Path:
    """Join clips of `write_video` (when each begins, in seconds, and its file) into one, packet by packet, and return `path`.

    Nothing is encoded again, so the watermark must be in them already; sound and credentials are as in `write_video`.
    """
    target = writable(path)
    with atomic(path) as beside:
        try:
            _join(beside, SUFFIXES[suffix_of(path)], parts, Path(audio_from) if audio_from else None)
        except av.FFmpegError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise OSError(error.errno, error.strerror) from error  # which `atomic` explains
            raise InputError(f"cannot write {path}: {error.strerror}; try another suffix") from error
        if origin is not None:
            from limn.media import marks

            marks.sign(beside, origin, target.name)
    return Path(path)


def _join(beside: Path, kind: Container, parts: Sequence[tuple[float, Path]], audio_from: Path | None) -> None:
    with ExitStack() as stack:
        options = {"movflags": kind.options["movflags"]} if "movflags" in kind.options else {}
        output = stack.enter_context(av.open(str(beside), "w", options=options))
        with opened(parts[0][1]) as first:
            stream = output.add_stream_from_template(first.streams.video[0])
        sound = iter(())  # type: Iterator[tuple[float, Packet]]
        if audio_from is not None:
            source = stack.enter_context(opened(audio_from))
            sound = _sound(source, output, kind) if source.streams.audio else sound
        end, heard = 0.0, -1.0
        for end, packet in _moved(parts):
            packet.stream = stream
            output.mux(packet)
            while heard < end and (following := next(sound, None)) is not None:
                heard = following[0]
                output.mux(following[1])
        for moment, packet in sound:
            if moment >= end:
                break
            output.mux(packet)


def _moved(parts: Sequence[tuple[float, Path]]) -> Iterator[tuple[float, Packet]]:
    """Yield (seconds at which it ends, packet) of the pictures of clips, each moved to where it begins; never back in decoding time."""
    last = None
    for start, file in parts:
        with opened(file) as source:
            stream = source.streams.video[0]
            assert stream.time_base is not None
            shift = round(start / stream.time_base)
            for packet in source.demux(stream):
                if packet.pts is None or packet.dts is None:
                    continue
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.dts = packet.dts if last is None else max(packet.dts, last + 1)
                packet.pts, last = max(packet.pts, packet.dts), packet.dts
                yield float((packet.pts + (packet.duration or 0)) * stream.time_base), packet


def _marked(frames: Iterable[Frame], origin: Origin) -> Iterator[Frame]:
    """Put the same watermark into every frame, as strong as the first one needs it."""
    from limn.media import watermark

    pen: watermark.Pen | None = None
    for frame in frames:
        image = frame[1] if isinstance(frame, tuple) else frame
        pen = pen or watermark.Pen(image, origin.payload)
        yield (frame[0], pen.embed(image)) if isinstance(frame, tuple) else pen.embed(image)


def _write(beside: Path, path: str | Path, frames: Iterator[Frame], fps: Fraction, audio_from: Path | None) -> None:
    if fps <= 0:
        raise InputError(f"cannot write {path} at {float(fps):g} frames per second: give a positive rate")
    first = next(frames, None)
    if first is None:
        raise InputError(f"cannot write {path}: no frames were given; expected at least one")
    kind = SUFFIXES[Path(path).suffix.lower()]
    size = (first[1] if isinstance(first, tuple) else first).size
    with ExitStack() as stack:
        options = {"movflags": kind.options["movflags"]} if "movflags" in kind.options else {}
        output = stack.enter_context(av.open(str(beside), "w", options=options))
        stream = _video_stream(output, kind, size, fps, timed=isinstance(first, tuple))
        sound = iter(())  # type: Iterator[tuple[float, Packet]]
        if audio_from is not None:
            source = stack.enter_context(opened(audio_from))
            sound = _sound(source, output, kind) if source.streams.audio else sound
        end = _encode(output, stream, chain([first], frames), fps, sound)
        for moment, packet in sound:
            if moment >= end:
                break
            output.mux(packet)


def _video_stream(output: OutputContainer, kind: Container, size: tuple[int, int], fps: Fraction, timed: bool) -> VideoStream:
    options = {name: value for name, value in kind.options.items() if name != "movflags"}
    stream = cast("VideoStream", output.add_stream(kind.video, rate=fps, options=options))
    stream.width, stream.height = (n + n % 2 for n in size)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, TICKS) if timed else 1 / fps
    context = stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc = BT709, BT709, BT709
    context.color_range = ColorRange.MPEG
    return stream


def _encode(
    output: OutputContainer, stream: VideoStream, frames: Iterator[Frame], fps: Fraction, sound: Iterator[tuple[float, Packet]]
) -> float:
    """Encode all frames, with the sound up to each of them muxed beside; return where the picture ends, in seconds."""
    base = stream.codec_context.time_base
    assert base is not None
    size, last, heard = None, -1, -1.0
    for index, frame in enumerate(frames):
        image = frame[1] if isinstance(frame, tuple) else frame
        size = size or image.size
        if image.size != size:
            raise InputError(f"frame {index} is {image.size[0]}x{image.size[1]}, the first {size[0]}x{size[1]}: give frames of one size")
        last = max(round(frame[0] / base), last + 1) if isinstance(frame, tuple) else index
        output.mux(stream.encode(_yuv(image, last, base, fps)))
        while heard < last * base and (following := next(sound, None)) is not None:
            heard = following[0]
            output.mux(following[1])
    output.mux(stream.encode(None))
    return float(last * base + 1 / fps)


def _yuv(image: Image.Image, pts: int, base: Fraction, fps: Fraction) -> av.VideoFrame:
    width, height = (n + n % 2 for n in image.size)
    even = image.convert("RGB")
    if (width, height) != image.size:
        even = Image.new("RGB", (width, height))
        even.paste(image, (width - image.width, height - image.height))  # the last row and column, seen beside the whole
        even.paste(image, (0, 0))
    frame = av.VideoFrame.from_image(even).reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=Interpolation(SHARP)
    )
    frame.pts, frame.time_base = pts, base
    frame.duration = max(1, round(1 / fps / base))
    return frame


def _sound(source: InputContainer, output: OutputContainer, kind: Container) -> Iterator[tuple[float, Packet]]:
    """Yield (seconds, packet) of the sound of a clip, timed from its first picture; the output gets its stream at once."""
    stream = source.streams.audio[0]
    start = _start(source)
    if stream.codec_context.name in kind.copies:
        return _copied(source, stream, output.add_stream_from_template(stream), start)
    rate = 48_000 if kind.audio == "libopus" else stream.codec_context.sample_rate
    return _transcoded(source, stream, cast("AudioStream", output.add_stream(kind.audio, rate=rate)), start)


def _start(source: InputContainer) -> Fraction:
    """Return when the picture of a clip begins, in seconds of its own clock."""
    for stream in (*source.streams.video[:1], *source.streams.audio[:1]):
        if stream.start_time is not None and stream.time_base:
            return stream.start_time * stream.time_base
    return Fraction(0)


def _copied(source: InputContainer, stream: AudioStream, made: AudioStream, start: Fraction) -> Iterator[tuple[float, Packet]]:
    assert stream.time_base is not None
    shift = round(start / stream.time_base)
    for packet in source.demux(stream):
        if packet.dts is None or packet.pts is None or packet.pts < shift:
            continue
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        moment = float(packet.pts * stream.time_base)
        packet.stream = made
        yield moment, packet


def _transcoded(source: InputContainer, stream: AudioStream, made: AudioStream, start: Fraction) -> Iterator[tuple[float, Packet]]:
    context = made.codec_context
    for frame in chain(source.decode(stream), (None,)):
        if frame is not None and frame.pts is not None and frame.time_base:
            frame.pts -= round(start / frame.time_base)
            if frame.pts < 0:
                continue
        for packet in made.encode(frame):
            yield float((packet.pts or 0) * (packet.time_base or context.time_base or 0)), packet

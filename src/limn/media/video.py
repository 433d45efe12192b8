"""One reader for every clip: upright 8-bit RGB frames with their times, one at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image

from limn.errors import InputError
from limn.media.photo import PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

# no playlist or concat format, and no protocol but a file: a clip must not lead to other files or into the network
OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,3gp,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,ogg,asf,gif,apng,webp,h264,hevc,ivf,mxf,dv,yuv4mpegpipe",
}
READABLE = "MP4, MOV, MKV, WebM, AVI, MPEG, FLV, OGG, WMV, GIF"
SHARP = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT  # no rounding bias, whole chroma
UNSPECIFIED, BT2020_PQ, BT2020_HLG = 2, 16, 18  # ITU-T H.273: matrix and transfer codes
# where a display matrix (a b; c d) sends the pixel axes -> the same as a PIL operation (ISO/IEC 14496-12, 8.3.2)
TURNS = {
    (1, 0, 0, 1): None,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
DEGREES = {Image.Transpose.ROTATE_90: 90, Image.Transpose.ROTATE_180: 180, Image.Transpose.ROTATE_270: 270}


@dataclass(frozen=True)
class Clip:
    """A clip on disk; iterating decodes it from the start, frame by frame, and may be done again."""

    path: Path
    size: tuple[int, int]  # width, height of the frames as given out: upright, square pixels
    fps: Fraction  # average frames per second
    duration: float  # seconds
    rotation: int  # degrees counter-clockwise that the frames are turned by, 0, 90, 180 or 270
    has_audio: bool
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[tuple[float, Image.Image]]:
        """Yield (seconds since the first frame, RGB image), at the times that the file says, also where its rate varies."""
        return _frames(self)

    def __len__(self) -> int:
        """About how many frames there are, for a progress bar."""
        return max(1, round(self.duration * self.fps))

    def at(self, fps: Fraction | float) -> Iterator[tuple[float, Image.Image]]:
        """Yield (seconds, RGB image) at a constant rate: the frame that is on screen at that moment, repeated or left out."""
        return _resampled(iter(self), Fraction(fps).limit_denominator(1_000_000), self.duration)


def read_video(path: str | Path, pixels: int = PIXELS) -> Clip:
    """Open a clip and read its header and first frame; `pixels` caps width times height of a frame.

    InputError for what is missing, is no video, has no picture in it or is larger than the cap.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a clip: give one file")
    if not path.exists():
        raise InputError(f"there is no file {path}: check the name")
    with opened(path) as container:
        if not container.streams.video:
            raise InputError(f"{path} holds no picture, only sound: give a video")
        stream = container.streams.video[0]
        if stream.width * stream.height > pixels:
            raise InputError(
                f"{path} is {stream.width}x{stream.height} pixels, more than the {pixels / 1e6:g} million allowed: scale it down"
            )
        first = next(_decoded(container), None)
        if first is None:
            raise InputError(f"{path} holds no frame that can be decoded: expected {READABLE}")
        turn = _turn(first)
        fps = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
        return Clip(
            path=path,
            size=_upright(first, turn, _square(first, stream.sample_aspect_ratio)).size,
            fps=fps,
            duration=_duration(container, fps),
            rotation=DEGREES.get(turn, 0) if turn is not None else 0,
            has_audio=bool(container.streams.audio),
            notes=tuple(_notes(first)),
        )


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a clip for decoding; what FFmpeg refuses becomes an InputError that names the file."""
    try:
        container = av.open(str(path), options=OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a clip that can be read ({_said(error)}): expected {READABLE}") from error
    try:
        yield container
    finally:
        container.close()


def _decoded(container: InputContainer) -> Iterator[VideoFrame]:
    """Yield the frames of the first video stream; a damaged packet is left out, as players do."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"  # type: ignore[assignment]
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else []
        except av.InvalidDataError:
            continue
        except av.EOFError:
            return
        if packet is None:
            return
        yield from frames  # type: ignore[misc]


def _frames(clip: Clip) -> Iterator[tuple[float, Image.Image]]:
    with opened(clip.path) as container:
        square = container.streams.video[0].sample_aspect_ratio
        start: Fraction | None = None
        last = -1 / clip.fps
        for frame in _decoded(container):
            moment = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else (start or 0) + last + 1 / clip.fps
            start = moment if start is None else start
            last = max(moment - start, last)  # never back in time
            image = _upright(frame, _turn(frame), _square(frame, square))
            yield float(last), image if image.size == clip.size else image.resize(clip.size, Image.Resampling.BICUBIC)


def _resampled(frames: Iterator[tuple[float, Image.Image]], fps: Fraction, duration: float) -> Iterator[tuple[float, Image.Image]]:
    if fps <= 0:
        raise InputError(f"a clip cannot be read at {float(fps):g} frames per second: give a positive rate")
    count, hair = 0, float(1 / fps) / 100  # time stamps are rounded to the ticks of the file
    current: tuple[float, Image.Image] | None = None
    for upcoming in frames:
        while current is not None and float(count / fps) + hair < upcoming[0]:
            yield float(count / fps), current[1]
            count += 1
        current = upcoming
    while current is not None and float(count / fps) + hair < max(duration, current[0] + 2 * hair):
        yield float(count / fps), current[1]
        count += 1


def _upright(frame: VideoFrame, turn: Image.Transpose | None, width: int) -> Image.Image:
    """Return a frame as RGB in the colour space and range that it declares, with square pixels, turned as its matrix says."""
    space = frame.colorspace
    if space in {UNSPECIFIED, 0}:
        space = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    image = frame.reformat(width=width, format="rgb24", src_colorspace=space, interpolation=SHARP).to_image()
    return image if turn is None else image.transpose(turn)


def _square(frame: VideoFrame, ratio: Fraction | None) -> int:
    """Return the width at which the pixels of a frame are square."""
    return max(1, round(frame.width * ratio)) if ratio and Fraction(1, 4) <= ratio <= 4 else frame.width


def _turn(frame: VideoFrame) -> Image.Transpose | None:
    """Return the turn that the display matrix asks for; None for upright and for anything but quarter turns."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack_from("<5i", bytes(matrix))  # type: ignore[call-overload]
    return TURNS.get(tuple((n > 0x8000) - (n < -0x8000) for n in (a, b, c, d)))  # type: ignore[arg-type]


def _duration(container: InputContainer, fps: Fraction) -> float:
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / 1_000_000
    return float(max(stream.frames, 1) / fps)


def _notes(frame: VideoFrame) -> list[str]:
    notes = []
    if frame.format.components[0].bits > 8:
        notes.append(f"{frame.format.components[0].bits} bits per channel read as 8")
    if frame.color_trc in {BT2020_PQ, BT2020_HLG}:
        notes.append("high dynamic range: shown as it is, without tone mapping")
    if frame.interlaced_frame:
        notes.append("interlaced: fields are not separated")
    return notes


def _said(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:120]

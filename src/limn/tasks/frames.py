"""Clips frame by frame: one clip in, a function of a frame, another clip out, in memory that does not grow with their length.

What is done is kept in segments in a hidden folder beside the new clip, with a record of input and settings. An interrupted
run that is started again with the same ones goes on after its last whole segment; at the end the segments are joined as they
are, without encoding them again, and the folder is removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limn.errors import InputError, LimnError
from limn.tasks.progress import track

if TYPE_CHECKING:
    from PIL import Image

    from limn.media import Clip, Origin
    from limn.media.watermark import Pen

    Change = Callable[[Image.Image, float], Image.Image]

SEGMENT = 250  # frames: what an interruption may cost
BAD = (LimnError, ValueError, ArithmeticError, IndexError)  # what one frame may go wrong by without ending the clip


@dataclass(frozen=True)
class Fault:
    """Frames in a row that went wrong in one way."""

    first: int
    last: int
    seconds: float  # where the first of them is shown
    why: str

    def __str__(self) -> str:
        frames = f"frame {self.first}" if self.first == self.last else f"frames {self.first} to {self.last}"
        return f"{frames} ({self.seconds:.2f} s): {self.why}; the result before was shown again"


@dataclass(frozen=True)
class Passed:
    """A clip that went through."""

    path: Path
    frames: int
    seconds: float  # its length
    kept: int  # frames that an earlier, interrupted run had done
    faults: tuple[str, ...]


@dataclass
class Record:
    """What lies in the hidden folder: whose segments they are, and how far they reach."""

    key: str
    starts: list[float] = field(default_factory=list)  # seconds, of each whole segment
    frames: int = 0  # in all of them
    good: int = 0  # frames that went well
    faults: list[Fault] = field(default_factory=list)

    def blame(self, number: int, seconds: float, why: str) -> None:
        """Note a frame that went wrong; a row of them is one entry, so that the record stays small."""
        last = self.faults[-1] if self.faults else None
        if last is not None and last.last == number - 1 and last.why == why:
            self.faults[-1] = Fault(last.first, number, last.seconds, why)
        else:
            self.faults.append(Fault(number, number, seconds, why))

    def save(self, folder: Path) -> None:
        from limn.media import atomic

        with atomic(folder / "record.json") as beside:
            beside.write_text(json.dumps(asdict(self)), encoding="utf-8")


def through(
    clip_in: str | Path,
    out: str | Path,
    function: Change,
    *,
    settings: Mapping[str, Any],
    what: str = "working",
    sound: bool = False,
    origin: Origin | None = None,
    before: Image.Image | None = None,
    warm: int = 0,
    segment: int = SEGMENT,
) -> Passed:
    """Send every frame of a clip through `function` (RGB frame, seconds -> RGB frame of one size) into the clip `out`.

    A frame that fails is reported and the result before it shown again (`before` until there is one, else the frame itself).
    `settings` is all that the result depends on beside the clip: an interrupted run goes on where they are the same. A function
    with a memory is shown the `warm` frames before the place where it goes on. Times and, with `sound`, the sound are the clip's.
    InputError for a clip that cannot be read, a place that cannot be written, or where no frame went well.
    """
    from limn.media import read_video
    from limn.media.video_output import join_video, suffix_of

    clip, target = read_video(clip_in), Path(out).expanduser()
    suffix = ".webm" if suffix_of(target) == ".webm" else ".mp4"  # of the parts; Matroska does not say when to decode
    folder = target.with_name(f".{target.stem[:80]}.limn-parts")
    record = opened(folder, key_of(clip, target, settings, origin, segment))
    kept = record.frames
    run = Run(clip, function, record, folder, before, warm, origin)
    frames = track(run.results(), what, max(len(clip) - kept, 1))
    while run.segment(islice(frames, segment), suffix):
        record.save(folder)
    if not record.good:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{clip.path}: no frame of it could be used; the first: {record.faults[0].why if record.faults else 'none'}")
    parts = [(start, folder / f"{number:05}{suffix}") for number, start in enumerate(record.starts)]
    join_video(target, parts, clip.path if sound else None, origin)
    shutil.rmtree(folder, ignore_errors=True)
    faults = [str(fault) for fault in record.faults] + missing(clip, record.frames)
    return Passed(target, record.frames, record.frames / float(clip.fps), kept, tuple(faults))


def missing(clip: Clip, frames: int) -> list[str]:
    """Say where fewer frames could be decoded than the header promises: the reader leaves damaged ones out."""
    lost = len(clip) - frames
    if lost <= 2 + frames // 50:
        return []
    return [f"{lost} of about {len(clip)} frames of {clip.path.name} could not be decoded and were left out"]


def key_of(clip: Clip, target: Path, settings: Mapping[str, Any], origin: Origin | None, segment: int) -> str:
    """Return what identifies a piece of work: the clip's file as it is now, and everything asked for."""
    facts = clip.path.stat()
    marked = [origin.payload, origin.marked] if origin is not None else []
    told = [str(clip.path.resolve()), facts.st_size, facts.st_mtime_ns, target.suffix, segment, marked, dict(settings)]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def opened(folder: Path, key: str) -> Record:
    """Return the record of an earlier run of the same work, its segments all there; else begin anew in an empty folder."""
    from limn.media import writable

    writable(folder.with_name("x"))
    try:
        found = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        record = Record(found["key"], found["starts"], found["frames"], found["good"], [Fault(**fault) for fault in found["faults"]])
    except (OSError, ValueError, TypeError, KeyError):
        record = Record("")
    whole = all(any(folder.glob(f"{number:05}.*")) for number in range(len(record.starts)))
    if record.key == key and whole:
        return record
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Record(key)


@dataclass
class Run:
    """One pass over a clip, from where the record ends."""

    clip: Clip
    function: Change
    record: Record
    folder: Path
    before: Image.Image | None
    warm: int
    origin: Origin | None
    pen: Pen | None = None

    def results(self) -> Iterator[tuple[float, Image.Image]]:
        """Yield (seconds, result) of the frames that are not done yet."""
        done, last = self.record.frames, self.before
        for number, (seconds, frame) in enumerate(self.clip):
            if number < done - self.warm:
                continue
            try:
                result = self.function(frame, seconds)
                self.record.good += number >= done
                last = result
            except BAD as error:
                if number >= done:
                    self.record.blame(number, seconds, str(error).splitlines()[0] if str(error) else type(error).__name__)
                result = frame if last is None else last
            if number >= done:
                yield seconds, self.marked(result)

    def marked(self, image: Image.Image) -> Image.Image:
        """Return the frame with the watermark, as strong as the first one of this pass needs it."""
        if self.origin is None or not self.origin.marked:
            return image
        from limn.media import watermark

        self.pen = self.pen or watermark.Pen(image, self.origin.payload)
        return self.pen.embed(image)

    def segment(self, frames: Iterator[tuple[float, Image.Image]], suffix: str) -> bool:
        """Write the next segment; False where no frames are left."""
        from limn.media import write_video

        first = next(frames, None)
        if first is None:
            return False
        start, count = first[0], 0

        def timed() -> Iterator[tuple[float, Image.Image]]:
            nonlocal count
            for seconds, image in chain([first], frames):
                count += 1
                yield seconds - start, image

        write_video(self.folder / f"{len(self.record.starts):05}{suffix}", timed(), self.clip.fps)
        self.record.starts.append(start)
        self.record.frames += count
        return True

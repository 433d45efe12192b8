"""`limn data`: check a folder of pictures, align faces out of photographs, pack a set into one file or shards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image

from limn.errors import InputError
from limn.media import writable
from limn.tasks.progress import track
from limn.training.datasets import align as aligning
from limn.training.datasets import clips, inspect, masks
from limn.training.datasets import pack as packing
from limn.training.datasets.ahead import in_order
from limn.training.datasets.align import Skipped
from limn.training.datasets.inspect import Finding, Look
from limn.training.datasets.labels import LEVELS, chosen, read_rows, rows
from limn.training.datasets.source import TABLES, Source, open_source

Kind = Literal["images", "attributes", "identities", "paired", "unpaired", "masks", "clips"]
Share = Literal["all", "training", "held-out"]
SHARES = {"all": None, "training": True, "held-out": False}


@dataclass(frozen=True)
class Checked:
    """What was found in a dataset. The command's exit code is 1 where a training would stop at it, else 0."""

    data: Path
    kind: str
    files: int
    sound: int  # files with nothing to say about
    totals: Mapping[str, int]  # problem -> how many files
    stops: int  # findings at which a training stops
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """1 where something has to be mended: the check itself went well, so it is not the 2 of a wrong call."""
        return int(self.stops > 0)


@dataclass(frozen=True)
class Aligned:
    """What became of the photographs."""

    out: Path
    template: str
    photos: int
    crops: int  # written now
    already: int  # photographs that were done before
    skipped: tuple[Skipped, ...]
    transforms: Path  # source, matrix, box, points and score of every crop
    seconds: float


@dataclass(frozen=True)
class Packed:
    """What was written, and read back."""

    files: tuple[Path, ...]
    pictures: int
    megabytes: float
    left_out: tuple[Finding, ...]
    seconds: float


def check(
    data: Annotated[Path, "A folder, a zip or shards."],
    /,
    *,
    kind: Annotated[Kind, "What the pictures are for."] = "images",
    size: Annotated[int, "Name pictures with fewer pixels a side."] = 0,
    square: Annotated[bool, "Expect square pictures; not so for raw photographs."] = True,
    faces: Annotated[bool, "Look for faces: one is expected on each."] = False,
    detector: Annotated[str, "The face detector."] = "limn",
    columns: Annotated[Sequence[str], "Attributes, else all columns that mostly hold 0 and 1."] = (),
    classes: Annotated[int, "How many classes labels or masks have; 0: not checked."] = 0,
    notes: Annotated[bool, "List what is only worth knowing, too: grey, alpha, duplicates."] = True,
    workers: Annotated[int, "Threads; 0: one per core."] = 0,
) -> Checked:
    """Read every file of DATA once and say what is wrong with which; exit code 1 where a training would stop at it."""
    began, source = time.monotonic(), open_source(data)
    if kind == "clips":
        names, found = _clips(source, workers)
    else:
        names = source.names
        square = square and not (kind == "paired" and inspect.side_by_side(source))
        count = _counter(detector) if faces else None
        look = partial(inspect.look, source, size=size, square=square, count=count)
        looks: list[Look] = list(track(in_order(look, names, workers), "reading", len(names)))
        found = [it for seen in looks for it in seen.findings]
        levels = {mask for _, mask in masks.matched(source)[0]} if kind == "masks" else set()
        found += [
            *inspect.duplicates([seen for seen in looks if seen.name not in levels]),
            *inspect.strange(source, TABLES),
            *_together(source, kind, columns, classes),
        ]
    if not names:
        raise InputError(f"{data}: holds nothing to check for kind {kind}: is it the right folder?")
    found.sort(key=lambda it: (not it.stops, it.file, it.problem))
    named = {it.file for it in found}
    stops = [it for it in found if it.stops]
    totals = dict(Counter(it.problem for it in found).most_common())
    sound = sum(name not in named for name in names)
    return Checked(data, kind, len(names), sound, totals, len(stops), tuple(found if notes else stops), time.monotonic() - began)


def _together(source: Source, kind: Kind, columns: Sequence[str], classes: int) -> Iterator[Finding]:
    """Check what only shows when the files are seen together."""
    if kind in ("paired", "masks"):
        yield from inspect.partners(source, kind, classes)
    elif kind == "unpaired":
        yield from inspect.two_sets(source)
    else:
        wanted = columns or (_mostly_binary(source) if kind == "attributes" else ())
        yield from inspect.labelled(source, wanted, classes, needed=kind == "attributes" or classes > 0)


def _mostly_binary(source: Source) -> list[str]:
    known = [row for row in read_rows(source)[0] if row]
    return [name for name in (known[0] if known else ()) if sum(row.get(name) in LEVELS for row in known) > 0.9 * len(known)]


def _clips(source: Source, workers: int) -> tuple[Sequence[str], list[Finding]]:
    names = clips.names_of(source)
    found = in_order(partial(clips.fault, source), names, workers)
    said = zip(names, track(found, "reading", len(names)), strict=True)
    return names, [inspect.finding(name, "clip", reason) for name, reason in said if reason]


def _counter(detector: str) -> Callable[[Image.Image], int]:
    """Return what counts the faces of a picture."""
    from limn import faces

    return lambda image: len(faces.detect(image, detector, mesh=False))


def align(
    data: Annotated[Path, "A folder or zip of photographs."],
    /,
    *,
    out: Annotated[Path, "The folder for the crops; a run found there goes on."],
    template: Annotated[str, "How a face lies in its crop."] = "ffhq",
    size: Annotated[int, "Pixels a side."] = 256,
    faces: Annotated[Literal["largest", "all"], "Which faces of a photograph."] = "largest",
    smallest: Annotated[int, "Leave out faces with fewer pixels (the mean of box width and height)."] = 0,
    detector: Annotated[str, "The face detector."] = "limn",
    workers: Annotated[int, "Threads; 0: one per core."] = 0,
) -> Aligned:
    """Cut the faces out of photographs as a template asks; transforms.csv keeps how, skipped.csv why not.

    A photograph that was done before is not done again; one that cannot be used never stops the others.
    """
    began, source = time.monotonic(), open_source(data)
    wish = aligning.Wish(template, size, faces, smallest, detector)
    folder = aligning.begin(out, wish)
    names = aligning.photographs(source)
    if not names:
        raise InputError(f"{data}: holds no photographs: give a folder or zip with some")
    todo = [name for name in names if name not in folder.done]
    crops, skipped = 0, list[Skipped]()
    work = partial(aligning.one, source, wish, out, aligning.crop_names(names))
    for result in track(in_order(work, todo, workers), "aligning", len(todo)):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            folder.add(result)
            crops += len(result)
    transforms = folder.finish(source, skipped)
    return Aligned(out, template, len(names), crops, len(names) - len(todo), tuple(skipped), transforms, time.monotonic() - began)


def pack(
    data: Annotated[Path, "A folder, a zip or shards."],
    /,
    *,
    out: Annotated[Path, "FILE.zip, or shards as in shards-%06d.tar."],
    size: Annotated[int, "Bring all to so many pixels a side; 0: leave the files as they are, byte for byte."] = 0,
    crop: Annotated[bool, "Cut the middle square out of pictures that are not square."] = False,
    kind: Annotated[Literal["images", "masks"], "With masks, their values are not mixed by resizing."] = "images",
    per_shard: Annotated[int, "Pictures in a shard."] = 1000,
    where: Annotated[Sequence[str], "Select by labels.csv: era=modern, chroma>2."] = (),
    share: Annotated[Share, "A part alone: what a training learns from, or what it holds out."] = "all",
    skip_bad: Annotated[bool, "Leave out files that cannot be used, and say so, instead of stopping."] = False,
) -> Packed:
    """Write DATA as one zip or as WebDataset shards, in order of name, with its labels; what was written is read back."""
    began, source = time.monotonic(), open_source(data)
    if not source.names:
        raise InputError(f"{data}: holds no pictures: is it the right folder?")
    if kind == "masks" and (where or share != "all"):
        raise InputError("--where and --share: a mask has no row of its own in labels.csv; select when training, with --where")
    levels = [mask for _, mask in masks.matched(source)[0]] if kind == "masks" else []
    left_out: list[Finding] = []
    names = source.names
    if where or share != "all":
        names = tuple(names[number] for number in chosen(source, rows(source), SHARES[share], where))
    found = packing.prepared(source, size, crop, levels, names)
    entries = _usable(track(found, "packing", len(names)), data, skip_bad, left_out)
    if out.suffix == ".zip":
        pictures, files = packing.to_zip(entries, out), [out]
    else:
        pictures, files = packing.to_shards(entries, _pattern(out), per_shard)
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    return Packed(tuple(files), pictures, megabytes, tuple(left_out), time.monotonic() - began)


def _usable(
    found: Iterable[packing.Entry | tuple[str, str]], data: Path, skip_bad: bool, left_out: list[Finding]
) -> Iterator[packing.Entry]:
    for item in found:
        if isinstance(item, packing.Entry):
            yield item
        elif skip_bad:
            left_out.append(inspect.finding(item[0], "undecodable", item[1]))
        else:
            raise InputError(f"{data}: {item[0]}: {item[1]}; nothing was written (--skip-bad leaves such files out)")


def _pattern(out: Path) -> Path:
    """Return the pattern of shards if it is one and nothing is there; InputError else."""
    try:
        first = Path(str(out) % 0)
    except (TypeError, ValueError):
        first = out
    if out.suffix != ".tar" or first == out:
        raise InputError(f"{out}: give a name that ends in .zip, or one with a number for shards, such as shards-%06d.tar")
    writable(first)
    number = out.name.index("%")
    there = sorted(first.parent.glob(f"{out.name[:number]}[0-9]*.tar"))
    if there:
        raise InputError(f"{there[0]} is there from before: remove the old shards, or choose another name")
    return out

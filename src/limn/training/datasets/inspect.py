"""Finding what is wrong with the files of a dataset before a training does: each file by itself, then all of them together."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from limn.errors import InputError
from limn.media.photo import BROKEN, FORMATS
from limn.training.datasets import masks, paired
from limn.training.datasets.labels import LEVELS, Row, as_label, read_rows, table_of
from limn.training.datasets.pictures import opened
from limn.training.datasets.source import Source, is_picture

STOPS = ("undecodable", "truncated", "not square", "label", "unmatched", "mask size", "mask levels", "clip")  # a training stops at these
HASH = 16  # rows and columns of the difference hash: 256 bits
NEAR = 12  # bits in which near duplicates may differ; below the number of bands, so that two of them share one band at least
BANDS = 16
ODD = 2.5  # width to height, or height to width, above which a photograph is odd


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file."""

    file: str
    problem: str  # one of a few words, which the totals count
    stops: bool  # whether a training stops at it; the others are worth knowing
    detail: str = ""


@dataclass(frozen=True)
class Look:
    """What one file is by itself."""

    name: str
    findings: tuple[Finding, ...]
    digest: str = ""  # of the bytes
    bits: np.ndarray | None = None  # (HASH * HASH,) bool: the difference hash


def finding(file: str, problem: str, detail: str = "") -> Finding:
    """Make a finding; whether it stops a training follows from the problem."""
    return Finding(file, problem, problem in STOPS, detail)


def look(source: Source, name: str, size: int = 0, square: bool = True, count: Callable[[Image.Image], int] | None = None) -> Look:
    """Read and decode one picture and say what is wrong with it; `count` counts the faces."""
    try:
        data = source.read(name)
        rgb = opened(data, name)
    except InputError as error:
        said = str(error).removeprefix(f"{name}: ")
        return Look(name, (finding(name, "truncated" if "truncated" in said else "undecodable", said),))
    found = [*header(name, data), *shape(name, rgb.size, size, square)]
    if count and (faces := count(rgb)) != 1:
        found.append(finding(name, "several faces" if faces else "no face", f"{faces} faces" if faces else ""))
    return Look(name, tuple(found), hashlib.sha256(data).hexdigest(), difference_hash(rgb))


def header(name: str, data: bytes) -> Iterator[Finding]:
    """Say how the colours of a file differ from 8-bit RGB, to which they are brought on reading."""
    with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        warnings.simplefilter("ignore")
        mode, deep = picture.mode, any("16" in str(tile[3]) for tile in picture.tile)
        if mode.startswith(("I", "F")) or deep:
            yield finding(name, "16-bit", f"mode {mode}")
        if mode in ("L", "LA", "1") or mode.startswith("I"):
            yield finding(name, "grey")
        if picture.has_transparency_data:
            yield finding(name, "alpha", f"mode {mode}: the alpha is left out")
        if mode in ("CMYK", "YCCK", "LAB"):
            yield finding(name, "CMYK" if mode != "LAB" else "LAB")
        if mode == "P":
            yield finding(name, "palette")


def shape(name: str, measured: tuple[int, int], size: int, square: bool) -> Iterator[Finding]:
    """Compare width and height with what is wanted."""
    width, height = measured
    if square and width != height:
        yield finding(name, "not square", f"{width}×{height}: align it, or crop it")
    elif max(width, height) > ODD * min(width, height):
        yield finding(name, "odd aspect", f"{width}×{height}")
    if min(width, height) < size:
        yield finding(name, "small", f"{width}×{height}, wanted {size}")


def difference_hash(rgb: Image.Image) -> np.ndarray:
    """Return whether each of HASH x HASH cells is brighter than its right neighbour: the same for scaled and recompressed copies."""
    grey = np.asarray(rgb.convert("L").resize((HASH + 1, HASH), Image.Resampling.BOX), int)
    return (grey[:, :-1] > grey[:, 1:]).reshape(-1)


def duplicates(looks: Sequence[Look]) -> Iterator[Finding]:
    """Name each file whose bytes, or whose picture within NEAR bits of its hash, came before in the order of names."""
    first: dict[str, str] = {}
    rest = []
    for seen in looks:
        if seen.bits is None:
            continue
        if seen.digest in first:
            yield finding(seen.name, "duplicate", f"the same as {first[seen.digest]}")
        else:
            first[seen.digest] = seen.name
            rest.append(seen)
    if rest:
        names = [seen.name for seen in rest]
        for late, early, apart in near(np.stack([seen.bits for seen in rest if seen.bits is not None])):
            yield finding(names[late], "near duplicate", f"looks like {names[early]} ({apart} of {HASH * HASH} bits differ)")


def near(bits: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield (row, the nearest earlier row, bits apart) of hashes (N, 256) bool no more than NEAR apart.

    Two hashes with at most BANDS - 1 differing bits are equal in one of BANDS bands: only rows that share a band are compared.
    """
    packed = np.packbits(bits, axis=1)
    words = packed.view(np.uint64)
    bands = packed.reshape(len(packed), BANDS, -1)
    best: dict[int, tuple[int, int]] = {}
    told = np.flatnonzero(bits.any(1))  # a picture without any edge looks like nothing
    for band in range(BANDS):
        groups = defaultdict(list)
        for number in map(int, told):
            groups[bands[number, band].tobytes()].append(number)
        for group in groups.values():
            for place, row in enumerate(group[1:], 1):
                apart = np.bitwise_count(words[group[:place]] ^ words[row]).sum(1)
                at = int(apart.argmin())
                if apart[at] <= NEAR and (int(apart[at]), group[at]) < best.get(row, (NEAR + 1, 0)):
                    best[row] = (int(apart[at]), group[at])
    yield from ((row, early, apart) for row, (apart, early) in sorted(best.items()))


def labelled(source: Source, columns: Sequence[str] = (), classes: int = 0, needed: bool = False) -> Iterator[Finding]:
    """Check the label files: their form, pictures without a row (which stops where one is `needed`), rows without a picture, values."""
    known, problems = read_rows(source)
    yield from (finding(file, "label", said) for file, said in problems)
    if problems or not (needed or any(known)):
        return
    for name, row in zip(source.names, known, strict=True):
        if row is None:
            yield Finding(name, "no label row", needed)
        else:
            yield from _values(name, row, columns, classes)
    if not source.shards:
        used = {row["file"] for row in known if row}
        yield from (finding(file, "label without picture") for file in table_of(source)[0] if file not in used)
    lengths = {len(value) for row in known if row and isinstance(value := as_label(row.get("label", "")), list)}
    if len(lengths) > 1:
        yield finding("dataset.json", "label", f"vectors of {' and '.join(map(str, sorted(lengths)))} numbers: one length is expected")


def _values(name: str, row: Row, columns: Sequence[str], classes: int) -> Iterator[Finding]:
    for column in columns:
        if row.get(column) not in LEVELS:
            yield finding(name, "label", f"{column} is {row.get(column)!r}: expected 0 or 1 (or -1 and 1)")
    label = as_label(row.get("label", ""))
    if isinstance(label, int) and (label < 0 or 0 < classes <= label):
        yield finding(name, "label", f"the class is {label}: expected 0 to {classes - 1 if classes else 'the number of classes'}")
    if isinstance(label, list) and not all(isinstance(number, int | float) and math.isfinite(number) for number in label):
        yield finding(name, "label", "the vector holds what is no finite number")


def partners(source: Source, kind: str, classes: int = 0) -> Iterator[Finding]:
    """Check that pairs are pairs, and that masks are as large as their pictures and hold levels of the classes."""
    pairs, alone = masks.matched(source) if kind == "masks" else paired.matched(source)
    yield from (finding(name, "unmatched", "there is no partner of this stem") for name in alone)
    if kind == "masks":
        for picture, mask in pairs:
            yield from masked(source, picture, mask, classes)
    elif side_by_side(source):
        for (name,) in pairs:
            try:
                paired.halves(source, name, 8)
            except InputError as error:
                yield finding(name, "unmatched", str(error).removeprefix(f"{source.title(name)}: "))


def masked(source: Source, picture: str, mask: str, classes: int) -> Iterator[Finding]:
    """Check one mask against its picture."""
    try:
        levels = masks.read_mask(source.read(mask), mask, classes)
        with Image.open(io.BytesIO(source.read(picture)), formats=FORMATS) as beside:
            if beside.size != levels.size:
                yield finding(mask, "mask size", f"{levels.width}×{levels.height}, its picture {beside.width}×{beside.height}")
    except InputError as error:
        if "decoded" not in str(error):  # those are named already
            yield finding(mask, "mask levels", str(error).removeprefix(f"{mask}: "))
    except BROKEN:
        return


def side_by_side(source: Source) -> bool:
    """Whether the pairs of a dataset lie side by side in one file each."""
    return paired.two_folders(source) is None


def two_sets(source: Source) -> Iterator[Finding]:
    """Check that there are two folders."""
    if paired.two_folders(source) is None:
        yield finding(str(source.path), "unmatched", "two folders are expected: source and target, or A and B")


def strange(source: Source, known: Iterable[str]) -> Iterator[Finding]:
    """Name the files that are neither pictures nor labels: a training does not see them."""
    beside = (".json", ".cls", ".txt") if source.shards else ()
    for name in source.others:
        if name.rpartition("/")[2] not in known and not is_picture(name) and not name.endswith(beside):
            yield finding(name, "not a picture")

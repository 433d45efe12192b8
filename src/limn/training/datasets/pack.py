"""Writing a dataset as one zip, or as WebDataset shards: the same bytes for the same pictures, read back before they get their name."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePosixPath

from PIL import Image

from limn.errors import InputError
from limn.media import atomic
from limn.training.datasets.ahead import in_order
from limn.training.datasets.labels import Row, as_label, rows
from limn.training.datasets.pictures import opened
from limn.training.datasets.source import Source, key_of, open_source

DATE = (1980, 1, 1, 0, 0, 0)  # of every file in a zip: the earliest that the format knows


@dataclass(frozen=True)
class Entry:
    """One picture on its way into a package."""

    name: str
    data: bytes
    row: Row
    digest: str


def prepared(
    source: Source, size: int = 0, crop: bool = False, levels: Sequence[str] = (), names: Sequence[str] | None = None
) -> Iterator[Entry | tuple[str, str]]:
    """Yield the pictures (those `names`, else all) in order of name, or (name, reason) for one that cannot be used.

    Without `size` and `crop` their bytes stay as they are; else what has to be changed becomes PNG. `levels` names the masks,
    whose values must not be mixed. Names decide what is held out; a picture that becomes PNG gets its suffix.
    """
    known = dict(zip(source.names, rows(source), strict=True))
    masks = set(levels)

    def prepare(name: str) -> Entry | tuple[str, str]:
        try:
            data = source.read(name)
            fitted = _fitted(data, name, size, crop, name in masks)
        except InputError as error:
            return name, str(error).removeprefix(f"{name}: ")
        if fitted is not None:
            data = fitted
        new = name if fitted is None else str(PurePosixPath(name).with_suffix(".png"))
        row = known[name]
        if new != name:  # a row names its file in full, or by its last part
            row = row | {"file": str(PurePosixPath(row["file"]).with_suffix(".png"))}
        return Entry(new, data, row, hashlib.sha256(data).hexdigest())

    yield from in_order(prepare, source.names if names is None else names)


def _fitted(data: bytes, name: str, size: int, crop: bool, levels: bool) -> bytes | None:
    """Return a PNG of the wanted size, or None where the bytes may stay; every picture is decoded, so that none is bad."""
    rgb = opened(data, name)
    side = min(rgb.size)
    wanted = (size, size) if size else (side, side) if crop else rgb.size
    if rgb.size == wanted:
        return None
    if rgb.width != rgb.height and not crop:
        raise InputError(f"{name}: is {rgb.width}×{rgb.height}: align it, or give --crop for the middle square")
    picture = Image.open(io.BytesIO(data)) if levels else rgb
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    out = io.BytesIO()
    square.resize(wanted, Image.Resampling.NEAREST if levels else Image.Resampling.LANCZOS).save(out, "PNG", compress_level=1)
    return out.getvalue()


def to_zip(entries: Iterable[Entry], out: Path) -> int:
    """Write a zip with labels.csv, and dataset.json where there are labels; return how many pictures it holds."""
    written: dict[str, Entry] = {}
    with atomic(out) as beside:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
            for entry in entries:
                archive.writestr(zipfile.ZipInfo(entry.name, DATE), entry.data)
                _note(written, entry.name, entry)
            for name, text in tables(written).items():
                archive.writestr(zipfile.ZipInfo(name, DATE), text)
        _verify(open_source(beside), written)
    return len(written)


def to_shards(entries: Iterable[Entry], pattern: Path, per_shard: int) -> tuple[int, list[Path]]:
    """Write `shards-000000.tar` and so on, of about so many pictures each; return how many pictures they hold, and the shards.

    A picture's row lies beside it as KEY.json; a dot within a key becomes an underscore, as WebDataset asks. All shards get their
    names together at the end, or none does.
    """
    written: dict[str, Entry] = {}
    shards: list[Path] = []
    with ExitStack() as all_or_none:
        for name, group in groupby(_numbered(entries, per_shard), key=lambda pair: str(pattern) % pair[0]):
            shards.append(Path(name))
            beside, held = all_or_none.enter_context(atomic(Path(name))), dict[str, Entry]()
            with tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as archive:
                for _, entry in group:
                    _add(archive, written, held, entry)
            _verify(open_source(beside), held)
    return len(written), shards


def _numbered(entries: Iterable[Entry], per_shard: int) -> Iterator[tuple[int, Entry]]:
    """Yield the number of its shard with each entry; pictures of one key stay together."""
    shard, count, last = 0, 0, ""
    for entry in entries:
        key = key_of(plain(entry.name))
        if count >= per_shard and key != last:
            shard, count = shard + 1, 0
        count, last = count + 1, key
        yield shard, entry


def _add(archive: tarfile.TarFile, written: dict[str, Entry], held: dict[str, Entry], entry: Entry) -> None:
    name = plain(entry.name)
    first = key_of(name) not in {key_of(other) for other in list(held)[-2:]}
    _note(written, name, entry)
    held[name] = entry
    files = {name: entry.data}
    if first and entry.row != {"file": name}:
        row = {column: as_label(value) if column == "label" else value for column, value in entry.row.items()}
        files[f"{key_of(name)}.json"] = json.dumps(row, ensure_ascii=False).encode()
    for file, data in files.items():
        member = tarfile.TarInfo(file)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


def plain(name: str) -> str:
    """Return a name whose only dot is that of the suffix."""
    at = PurePosixPath(name)
    return str(at.with_name(at.stem.replace(".", "_") + at.suffix))


def tables(written: Mapping[str, Entry]) -> dict[str, str]:
    """Return the label files: labels.csv for all columns but `label`, which goes to dataset.json as NVIDIA's tools expect it."""
    known = [(name, entry.row) for name, entry in written.items()]
    columns = list(dict.fromkeys(column for _, row in known for column in row if column not in ("file", "label")))
    found = {}
    if columns:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["file", *columns], restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for _, row in known if not row.keys() <= {"file", "label"})
        found["labels.csv"] = text.getvalue()
    if any("label" in row for _, row in known):
        found["dataset.json"] = json.dumps({"labels": [[name, as_label(row["label"])] for name, row in known if "label" in row]})
    return found


def _note(written: dict[str, Entry], name: str, entry: Entry) -> None:
    """Remember an entry without its bytes; InputError for a name that is there already."""
    if name in written:
        raise InputError(f"{entry.name}: another picture is packed as {name}: rename one of them")
    written[name] = replace(entry, data=b"")


def _verify(source: Source, written: Mapping[str, Entry]) -> None:
    """Read a package back: every picture must be there, byte for byte, with its row."""
    if set(source.names) != set(written):
        raise InputError(f"{source.path}: holds {len(source.names)} pictures instead of {len(written)}: is the disk sound?")
    shared = Counter(key_of(name) for name in source.names) if source.shards else {}  # a picture and its mask have one row
    for name, row in zip(source.names, rows(source), strict=True):
        entry = written[name]
        if hashlib.sha256(source.read(name)).hexdigest() != entry.digest:
            raise InputError(f"{source.path}: {name} was not written as it should be: is the disk sound?")
        if shared.get(key_of(name), 1) == 1 and _told(row) != _told(entry.row):
            raise InputError(f"{source.path}: the labels of {name} were not written as they should be: do two rows name it?")


def _told(row: Row) -> Row:
    return {column: value for column, value in row.items() if value}

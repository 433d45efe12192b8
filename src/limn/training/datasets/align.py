"""Faces cut out of photographs into a folder of crops that can go on where it stopped.

The folder holds the crops (PNG), `align.json` (what was asked for), `transforms.csv` (how each crop came about), `labels.csv` (what is
known of each, for selecting among them) and `skipped.csv` (photographs without a crop, and why).
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from limn.errors import FaceError, InputError
from limn.media import atomic, read_image
from limn.training.datasets.labels import Row, read_rows
from limn.training.datasets.pictures import opened
from limn.training.datasets.source import Source

if TYPE_CHECKING:
    from limn.faces import Face

PHONE = (".heic", ".heif")
COLUMNS = ("file", "source", "face", "template", "size", "matrix", "box", "points", "score", "scale", "inside")
KNOWN = ("source", "face", "score", "scale", "inside")  # of them, in labels.csv


@dataclass(frozen=True)
class Wish:
    """What is asked for; crops of different wishes do not go into one folder."""

    template: str
    size: int
    faces: str  # "largest" or "all"
    smallest: int  # pixels
    detector: str


@dataclass(frozen=True)
class Skipped:
    """A photograph without a crop."""

    source: str
    reason: str


@dataclass
class Folder:
    """The crops made so far: `done` holds the rows of transforms.csv by photograph."""

    path: Path
    done: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> None:
        """Take down the crops of one photograph, which lie there whole; from now on it is done."""
        self.done[rows[0]["source"]] = list(rows)
        with (self.path / "transforms.csv").open("a", encoding="utf-8", newline="") as file:
            file.write(_table(rows, COLUMNS, header=False))

    def finish(self, source: Source, skipped: Sequence[Skipped]) -> Path:
        """Write the tables in order of name, labels of the photographs included; return the path of transforms.csv."""
        ordered = [row for name in sorted(self.done) for row in self.done[name]]
        _write(self.path / "transforms.csv", _table(ordered, COLUMNS))
        known = dict(zip(source.names, read_rows(source)[0], strict=True))
        labels = [{"file": row["file"]} | {k: row[k] for k in KNOWN} | _rest(known.get(row["source"])) for row in ordered]
        _write(self.path / "labels.csv", _table(labels, list(dict.fromkeys(["file", *KNOWN, *(k for row in labels for k in row)]))))
        _write(self.path / "skipped.csv", _table([asdict(it) for it in skipped], ("source", "reason")))
        return self.path / "transforms.csv"


def _rest(row: Row | None) -> Row:
    return {column: value for column, value in (row or {}).items() if column not in COLUMNS}


def begin(out: Path, wish: Wish) -> Folder:
    """Make the folder, or take up the one that is there; InputError where it was made with another wish."""
    from limn.faces import TEMPLATES
    from limn.faces.templates import template

    template(wish.template)
    if TEMPLATES[wish.template].needs == "box":
        raise InputError(f"template {wish.template!r} frames a whole clip; choose one for single faces, such as ffhq")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder for the crops")
    out.mkdir(parents=True, exist_ok=True)
    note = out / "align.json"
    if note.exists() and (before := json.loads(note.read_text())) != asdict(wish):
        other = ", ".join(f"{key} {value}" for key, value in before.items() if value != asdict(wish).get(key))
        raise InputError(f"{out} holds crops made with {other}: ask for the same, or give another folder")
    _write(note, json.dumps(asdict(wish)) + "\n")
    folder = Folder(out, _before(out))
    _write(out / "transforms.csv", _table([row for rows in folder.done.values() for row in rows], COLUMNS))
    return folder


def _before(out: Path) -> dict[str, list[Row]]:
    """Read the rows of photographs all of whose crops are there; a line that was cut off by a crash is dropped."""
    path = out / "transforms.csv"
    found: dict[str, list[Row]] = {}
    if path.exists():
        text = path.read_text(encoding="utf-8")
        for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
            if None not in row.values():
                found.setdefault(row["source"], []).append(row)
    return {name: rows for name, rows in found.items() if all((out / row["file"]).exists() for row in rows)}


def photographs(source: Source) -> list[str]:
    """Return the names of the photographs, phone photos (HEIC) among them where they lie in a folder."""
    phone = [name for name in source.others if source.path.is_dir() and name.lower().endswith(PHONE)]
    return sorted([*source.names, *phone])


def crop_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name of each photograph's crop without suffix: its own, with the suffix in it where two differ in that alone."""
    stems = {name: PurePosixPath(name).with_suffix("") for name in names}
    often = Counter(stems.values())
    return {name: str(stem) + (f"_{PurePosixPath(name).suffix[1:]}" if often[stem] > 1 else "") for name, stem in stems.items()}


def one(source: Source, wish: Wish, out: Path, crops: Mapping[str, str], name: str) -> list[Row] | Skipped:
    """Cut the faces out of one photograph and write them; return their rows, or why there are none."""
    from limn import faces

    try:
        image = read_image(source.path / name).image if name.lower().endswith(PHONE) else opened(source.read(name), name)
        found = faces.choose(faces.detect(image, wish.detector), wish.faces)
        large = [face for face in found if face.size >= wish.smallest]
        if not large:
            return Skipped(name, f"the face has {found[0].size:.0f} pixels, fewer than {wish.smallest}")
        return [_cut(image, face, wish, out, name, crops[name]) for face in large]
    except (InputError, FaceError) as error:
        return Skipped(name, str(error).removeprefix(f"{name}: "))


def _cut(image: Image.Image, face: Face, wish: Wish, out: Path, name: str, stem: str) -> Row:
    from limn.faces import align

    crop, matrix = align(image, face, wish.template, wish.size)
    file = f"{stem}_face{face.index}.png" if face.index else f"{stem}.png"
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    with atomic(out / file) as beside:
        crop.save(beside, "PNG", compress_level=4)
    return {
        "file": file,
        "source": name,
        "face": str(face.index),
        "template": wish.template,
        "size": str(wish.size),
        "matrix": json.dumps(np.asarray(matrix, np.float64).ravel().tolist()),
        "box": json.dumps([round(value, 2) for value in face.box]),
        "points": json.dumps(np.asarray(face.points, np.float64).round(2).ravel().tolist()),
        "score": f"{face.score:.4f}",
        "scale": f"{np.sqrt(abs(np.linalg.det(matrix[:, :2]))):.3f}",  # crop pixels per pixel of the photograph
        "inside": f"{inside(matrix, wish.size, image.size):.3f}",
    }


def inside(matrix: np.ndarray, size: int, photo: tuple[int, int]) -> float:
    """Return how much of a crop lies within the photograph; the rest is mirrored or filled."""
    grid = (np.indices((32, 32)).reshape(2, -1)[::-1] + 0.5) * size / 32 - 0.5
    x, y = np.linalg.solve(matrix[:, :2], grid - matrix[:, 2:])
    return float(((x > -0.5) & (y > -0.5) & (x < photo[0] - 0.5) & (y < photo[1] - 0.5)).mean())


def _table(rows: Iterable[Mapping[str, str]], columns: Sequence[str], header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")

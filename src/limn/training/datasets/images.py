"""A folder or zip of pictures, with an optional labels.csv whose columns can select among them.

Every picture is decoded once, brought to the model's size, and kept in memory as bytes.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limn.errors import InputError
from limn.training.datasets.order import generator, indices, is_held_out

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}


class Images:
    """Pictures (N, size, size, 3) in memory; `batch` gives `image` (size, 3, H, W) in [-1, 1], mirrored at random."""

    def __init__(self, pictures: np.ndarray, rows: list[dict[str, str]], mirror: bool = True) -> None:
        self.pictures, self.rows, self.mirror = pictures, rows, mirror

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        chosen = self.pictures[indices(step, size, len(self), seed)]
        if self.mirror:
            flip = generator(seed, step).random(size) < 0.5
            chosen = np.where(flip[:, None, None, None], chosen[:, :, ::-1], chosen)
        return {"image": tensor(chosen)}


def tensor(pictures: np.ndarray) -> Tensor:
    """Bytes (N, H, W, 3) as float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def open(path: Path, config: Any, train: bool = True, where: Sequence[str] = ()) -> Images:
    """Read every picture of a folder or zip at `config.size`; `where` holds conditions such as `era=modern` or `chroma>2`.

    The held-out twentieth (by the column `identity`, else by file name) is left out of training and is all there is else.
    """
    rows, pictures = [], []
    conditions = [condition(text) for text in where]
    for row, data in entries(path):
        key = row.get("identity") or row["file"]
        if is_held_out(key) == train or not all(test(row) for test in conditions):
            continue
        pictures.append(decode(data, config.size, f"{path}: {row['file']}"))
        rows.append(row)
    if not pictures:
        raise InputError(f"{path}: no picture fits {' and '.join(where) or 'the dataset'}: check the conditions against labels.csv")
    return Images(np.stack(pictures), rows, mirror=train)


def decode(data: bytes, size: int, name: str) -> np.ndarray:
    """Decode one square picture to (size, size, 3) bytes; the error names the file."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            rgb = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name}: cannot be decoded ({error}); remove or replace it") from error
    if rgb.width != rgb.height:
        raise InputError(f"{name}: is {rgb.width}×{rgb.height}, but training pictures are square: align or crop them first")
    return np.asarray(rgb if rgb.width == size else rgb.resize((size, size), Image.Resampling.LANCZOS))


def entries(path: Path) -> Iterator[tuple[dict[str, str], bytes]]:
    """Yield the label row (at least `file`) and the bytes of every picture, in order of name."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        table = labels((path / "labels.csv").read_text() if (path / "labels.csv").exists() else "")
        yield from ((table.get(p.name, {"file": str(p.relative_to(path))}), p.read_bytes()) for p in files)
        return
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: is neither a folder nor a zip of pictures")
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if Path(n).suffix.lower() in SUFFIXES)
        table = labels(archive.read("labels.csv").decode() if "labels.csv" in archive.namelist() else "")
        yield from ((table.get(Path(n).name, {"file": n}), archive.read(n)) for n in names)


def labels(text: str) -> dict[str, dict[str, str]]:
    """Rows of a labels.csv by their column `file`."""
    return {row["file"]: row for row in csv.DictReader(io.StringIO(text))}


def condition(text: str) -> Any:
    """Turn `column=value`, `column>number` or `column<number` into a test of a row."""
    match = re.fullmatch(r"(\w+)([=<>])(.*)", text)
    if not match:
        raise InputError(f"condition {text!r} is not understood: write column=value, column>number or column<number")
    column, sign, value = match.groups()

    def test(row: dict[str, str]) -> bool:
        if column not in row:
            raise InputError(f"condition {text!r}: labels.csv has no column {column!r}; it has {', '.join(row)}")
        if sign == "=":
            return row[column] == value
        number = float(row[column] or "nan")
        return number > float(value) if sign == ">" else number < float(value)

    return test

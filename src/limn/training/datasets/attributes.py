"""Pictures with attributes that are there or not: columns of 0/1 (or -1/1) in labels.csv, or CelebA's list_attr_celeba.txt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.errors import InputError
from limn.training.datasets.images import mirrored
from limn.training.datasets.labels import LEVELS, Row, chosen, rows
from limn.training.datasets.order import indices
from limn.training.datasets.pictures import MEMORY, Store, decode, filled, tensor
from limn.training.datasets.source import Source, open_source


@dataclass(frozen=True)
class Attributes:
    """`batch` gives `image` (N, 3, S, S) in [-1, 1], mirrored at random in training, and `attributes` (N, A) of 0 and 1."""

    store: Store
    values: np.ndarray  # (N, A) float32
    names: tuple[str, ...]  # of the attributes
    rows: list[Row]
    mirror: bool
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return the pictures and attributes of a step, the same ones for the same (seed, step)."""
        taken = self.store.batch(step, size, seed)
        image = tensor(mirrored(taken, step, seed) if self.mirror else taken)
        return {"image": image, "attributes": torch.from_numpy(self.values[indices(step, size, len(self), seed)])}


def open(
    path: Path,
    config: Any,
    train: bool = True,
    where: Sequence[str] = (),
    columns: Sequence[str] = (),
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Attributes:
    """Open pictures at `config.size` with the attributes of `columns`, or of every column that holds nothing but 0 and 1.

    InputError names the picture that has no row, or whose value is neither.
    """
    source = open_source(path)
    known = rows(source)
    names = tuple(columns) or binary(source, known)
    numbers = chosen(source, known, train, where)
    files, known = [source.names[n] for n in numbers], [known[n] for n in numbers]
    values = np.array([[level(source, row, name) for name in names] for row in known], np.float32)
    size = config.size
    store = Store(len(files), (size, size, 3), lambda n: decode(source.read(files[n]), size, source.title(files[n])), memory)
    left_out = filled(store, source, [(file,) for file in files], skip_bad)
    return Attributes(store, values[store.good], names, [known[n] for n in store.good], train, left_out)


def binary(source: Source, known: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns that hold 0 and 1 (or -1 and 1) wherever they hold anything; InputError where there are none."""
    labelled = [row for row in known if len(row) > 1]
    found = tuple(name for name in (labelled[0] if labelled else ()) if {row.get(name, "") for row in labelled} - {""} <= LEVELS.keys())
    found = tuple(name for name in found if any(row.get(name, "") for row in labelled))
    if not found:
        raise InputError(f"{source.path}: has no attributes: columns of 0 and 1 in labels.csv, or list_attr_celeba.txt, are expected")
    return found


def level(source: Source, row: Row, name: str) -> float:
    """Return an attribute of a picture as 0 or 1."""
    value = row.get(name, "")
    if value not in LEVELS:
        raise InputError(f"{source.path}: {row['file']} has {name} = {value!r}; expected 0 or 1 (or -1 and 1)")
    return LEVELS[value]

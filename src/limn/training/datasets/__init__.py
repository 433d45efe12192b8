"""What the training loop draws from: one file per kind of data, each with `open(path, config, train)`.

A dataset has a length and `batch(step, size, seed)`, a pure function: the same arguments give the same tensors, so that a
run that was interrupted sees exactly what it would have seen.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from limn.errors import InputError

KINDS = ("images", "attributes", "identities", "paired", "unpaired", "masks", "clips", "scenes", "points", "mesh", "drawn", "parsing")


class Dataset(Protocol):
    """A source of batches that is a function of (seed, step)."""

    def __len__(self) -> int: ...
    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]: ...


def open_dataset(kind: str, path: Path, config: Any, train: bool = True, **options: Any) -> Dataset:
    """Open the dataset of a kind; `config` is the system's, from which it takes sizes."""
    if kind not in KINDS:
        raise InputError(f"there is no dataset kind {kind!r}; known are {', '.join(KINDS)}")
    opener = import_module(f"limn.training.datasets.{kind}").open
    known = list(signature(opener).parameters)[3:]
    for name in options:
        if name not in known:
            raise InputError(f"data of the kind {kind!r} is not read with {name!r}: it has {', '.join(known) or 'no settings'}")
    return opener(Path(path), config, train, **options)

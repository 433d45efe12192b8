"""Two sets of pictures with nothing to do with each other, for CycleGAN and its kin: two folders, or two selections of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from limn.errors import InputError
from limn.training.datasets.labels import chosen, rows
from limn.training.datasets.order import generator, is_held_out
from limn.training.datasets.paired import moved, stem, two_folders
from limn.training.datasets.pictures import MEMORY, Store, decode, filled, tensor
from limn.training.datasets.source import Source, open_source


@dataclass(frozen=True)
class Unpaired:
    """`batch` gives `source` and `target` (N, 3, S, S) in [-1, 1], each mirrored and shifted by itself in training."""

    stores: tuple[Store, Store]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    size: int
    train: bool
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The larger of the two: after so many, every picture has been seen."""
        return max(map(len, self.stores))

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return the pictures of a step, the same ones for the same (seed, step)."""
        batch = {}
        for which, (key, store) in enumerate(zip(("source", "target"), self.stores, strict=True)):
            own = 2 * seed + which  # a seed of its own for each folder
            taken = store.batch(step, size, own)
            batch[key] = tensor(moved(taken, self.size, generator(own, step) if self.train else None))
        return batch


def open(
    path: Path,
    config: Any,
    train: bool = True,
    folders: Sequence[str] = (),
    source_where: Sequence[str] = (),
    target_where: Sequence[str] = (),
    swapped: bool = False,
    jitter: int = 0,
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Unpaired:
    """Open two folders of pictures (`folders`, else source/target, A/B, trainA/trainB ...) at `config.size`; see `paired` for the rest.

    With `source_where` and `target_where`, conditions such as `era=modern`, both are selected from one set by its labels.csv.
    """
    source = open_source(path)
    if source_where or target_where:
        known = rows(source)
        shares = [[source.names[n] for n in chosen(source, known, train, where)] for where in (source_where, target_where)]
    else:
        shares = _folders(source, folders, train)
    shares = shares[::-1] if swapped else shares
    stores = tuple(_store(source, names, config.size + jitter, memory / 2) for names in shares)
    left_out = [filled(store, source, [(name,) for name in names], skip_bad) for store, names in zip(stores, shares, strict=True)]
    kept = [tuple(names[n] for n in store.good) for store, names in zip(stores, shares, strict=True)]
    return Unpaired((stores[0], stores[1]), (kept[0], kept[1]), config.size, train, left_out[0] + left_out[1])


def _folders(source: Source, folders: Sequence[str], train: bool) -> list[list[str]]:
    """Return the names of the training or held-out share of each of two folders."""
    two = two_folders(source, folders)
    if two is None:
        raise InputError(f"{source.path}: two folders are expected, source and target or A and B; name others by folders")
    shares = [[name for name in names if is_held_out(stem(name)) != train] for names in two]
    if not all(shares):
        raise InputError(f"{source.path}: one of the two folders holds no picture of the {'training' if train else 'held-out'} share")
    return shares


def _store(source: Source, names: list[str], side: int, memory: float) -> Store:
    return Store(len(names), (side, side, 3), lambda n: decode(source.read(names[n]), side, source.title(names[n])), memory)

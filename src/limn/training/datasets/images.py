"""Pictures of one kind, in a folder, zip or shards, with labels that can select among them or be given to a conditional model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.training.datasets.labels import Row, chosen, rows, vectors
from limn.training.datasets.order import generator, indices
from limn.training.datasets.pictures import ALL, MEMORY, Store, decode, filled, tensor
from limn.training.datasets.source import open_source

__all__ = ["Images", "decode", "entries", "open", "tensor"]


class Images:
    """`batch` gives `image` (size, 3, S, S) in [-1, 1], mirrored at random in training, and `label` (size, C) where there are labels."""

    def __init__(self, store: Store, known: list[Row], labels: np.ndarray | None, mirror: bool, left_out: tuple[str, ...] = ()) -> None:
        self.store, self.rows, self.labels, self.mirror, self.left_out = store, known, labels, mirror, left_out

    def __len__(self) -> int:
        return len(self.store)

    @property
    def pictures(self) -> np.ndarray:
        """Every picture, (N, S, S, 3) uint8: for sets that fit into memory."""
        return self.store.take(np.arange(len(self)))

    def batch(self, step: int, size: int, seed: int, rows: slice = ALL) -> dict[str, Tensor]:
        """Return the pictures and labels of a step, or `rows` of them alone, the same ones for the same (seed, step)."""
        taken = self.store.batch(step, size, seed, rows)
        if self.mirror:
            taken = mirrored(taken, step, seed, rows)
        batch = {"image": tensor(taken)}
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[indices(step, size, len(self), seed)[rows]])
        return batch


def mirrored(pictures: np.ndarray, step: int, seed: int, rows: slice = ALL) -> np.ndarray:
    """Mirror half of the pictures (N, H, W, C), chosen by (seed, step); they may be `rows` of the step's."""
    flip = generator(seed, step).random(rows.stop or len(pictures))[rows] < 0.5
    return np.where(flip[:, None, None, None], pictures[:, :, ::-1], pictures)


def open(
    path: Path,
    config: Any,
    train: bool = True,
    where: Sequence[str] = (),
    label: str = "",
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Images:
    """Open the pictures of a folder, zip or shards at `config.size`; `where` holds conditions such as `era=modern` or `chroma>2`.

    The held-out twentieth (by the column `identity`, else by file name) is left out of training and is all there is else. `label`
    names the column of the labels; a model with `c_dim` above 0 takes `label`, which is where dataset.json and .cls files are read to.
    """
    source = open_source(path)
    known = rows(source)
    numbers = chosen(source, known, train, where)
    names, known = [source.names[n] for n in numbers], [known[n] for n in numbers]
    classes = int(getattr(config, "c_dim", 0))
    labels = vectors(source, known, label or "label", classes) if label or classes else None
    size = config.size
    store = Store(len(names), (size, size, 3), lambda n: decode(source.read(names[n]), size, source.title(names[n])), memory)
    left_out = filled(store, source, [(name,) for name in names], skip_bad)
    return Images(store, [known[n] for n in store.good], None if labels is None else labels[store.good], train, left_out)


def entries(path: Path) -> Iterator[tuple[Row, bytes]]:
    """Yield the label row (at least `file`) and the bytes of every picture, in order of name."""
    source = open_source(path)
    for row, name in zip(rows(source), source.names, strict=True):
        yield row, source.read(name)

"""Aligned portraits with the name of who is on them: for identity networks.

A zip or folder with `labels.csv` (columns `file`, `identity`), or a folder with one sub-folder per person. Whole people are held out, by
the hash of their names; those whom other datasets hold out are among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.errors import InputError, TrainingError
from limn.training.datasets.augment import distort
from limn.training.datasets.images import mirrored
from limn.training.datasets.labels import Row, condition, rows
from limn.training.datasets.order import is_held_out
from limn.training.datasets.pictures import AHEAD, MEMORY, Store, decode, filled, tensor
from limn.training.datasets.source import open_source

MARGIN = 1.5  # pictures that will be distorted are kept so much larger than the batches: room to zoom in
SHARE = 0.12  # of the people, held out: verification needs more pairs than other measures need pictures


class Identities:
    """Pictures and who is on them; `distorted` batches teach to tell people apart, others are mirrored at most.

    `names` are the files, `people` the sorted names of those on them, `labels` (N,) index into people, `size` the pixels of the batches.
    """

    def __init__(self, store: Store, known: Sequence[tuple[str, str]], size: int, distorted: bool, left_out: tuple[str, ...]) -> None:
        self.store, self.size, self.distorted, self.left_out = store, size, distorted, left_out
        self.names = tuple(name for name, _ in known)
        self.people = tuple(sorted({who for _, who in known}))
        number = {who: index for index, who in enumerate(self.people)}
        self.labels = torch.tensor([number[who] for _, who in known])

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pictures(self) -> Tensor:
        """Every picture, (N, 3, S, S) uint8: for sets that fit into memory."""
        return torch.from_numpy(self.store.take(np.arange(len(self)))).permute(0, 3, 1, 2)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return "image" (size, 3, S, S) in [-1, 1] and "label" (size,): rows 2i and 2i + 1 are one person.

        Half of the people have several pictures, and two of them are taken; of the others one picture is seen twice, distorted differently.
        """
        rng, chosen = self._draw(step, size, seed)
        lazy = self.store.room <= self.store.good[-1]
        soon = [int(row) for later in range(1, AHEAD + 1) for row in self._draw(step + later, size, seed)[1]] if lazy else []
        taken = self.store.take(chosen, soon)
        image = distort(tensor(taken), self.size, rng) if self.distorted else tensor(mirrored(taken, step, seed))
        return {"image": image, "label": self.labels[chosen]}

    def _draw(self, step: int, size: int, seed: int) -> tuple[np.random.Generator, np.ndarray]:
        """Choose two rows for each of size / 2 people; returned with the generator that chose them, for what else is drawn."""
        rng, people, several = np.random.default_rng((seed, step)), size // 2, self._several
        wanted = min(people // 2, len(several))
        drawn = [row for index in rng.permutation(len(several))[:wanted] for row in rng.choice(several[index], 2, replace=False)]
        return rng, np.array(drawn + rng.integers(0, len(self), people - wanted).repeat(2).tolist())

    @cached_property
    def rows_by_person(self) -> list[np.ndarray]:
        """The rows of every person, in the order of `people`."""
        order = np.argsort(self.labels.numpy(), kind="stable")
        counts = np.bincount(self.labels.numpy(), minlength=len(self.people))
        return np.split(order, np.cumsum(counts)[:-1])

    @cached_property
    def _several(self) -> list[np.ndarray]:
        return [rows for rows in self.rows_by_person if len(rows) > 1]

    def pairs(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows a, b (P,) and same (P,) bool: every pair of one person once, and as many of two people with like origins.

        The second pictures of the impostor pairs are those of the genuine pairs, shuffled, so that colour or archive gives nothing away.
        """
        genuine = [(a, b) for rows in self.rows_by_person for i, a in enumerate(rows) for b in rows[i + 1 :]]
        if len({int(self.labels[a]) for a, _ in genuine}) < 2:
            raise TrainingError("verification pairs need at least two people with two pictures each")
        a, b = np.array(genuine).T
        rng, who = np.random.default_rng(seed), self.labels.numpy()
        other = rng.permutation(b)
        while len(clash := np.flatnonzero(who[a] == who[other])):
            swap = rng.integers(0, len(other), len(clash))
            other[clash], other[swap] = other[swap], other[clash]
        same = torch.arange(2 * len(a)) < len(a)
        return torch.from_numpy(np.concatenate([a, a])), torch.from_numpy(np.concatenate([b, other])), same


def open(
    path: str | Path,
    config: Any,
    train: bool = True,
    everyone: bool = False,
    distorted: bool = True,
    where: Sequence[str] = (),
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Identities:
    """Open the pictures of the training identities, or of the held-out ones, or (`everyone`) of all, for batches of `config.size`.

    `where` holds conditions such as `era=modern`. Raises InputError naming the file that cannot be read (`skip_bad` leaves it out),
    TrainingError where there is nobody.
    """
    source, tests = open_source(path), [condition(text) for text in where]
    found = [(name, person(row), row) for name, row in zip(source.names, rows(source), strict=True)]
    found = [entry for entry in found if everyone or is_held_out(entry[1], SHARE) is not train]
    if not found:
        raise TrainingError(f"{path}: no pictures of {'training' if train else 'held-out'} people found")
    known = [(name, who) for name, who, row in found if all(test(row) for test in tests)]
    if not known:
        raise InputError(f"{path}: no picture fits {' and '.join(where)}: check the conditions against labels.csv")
    size = round(MARGIN * config.size) if distorted else config.size
    store = Store(len(known), (size, size, 3), lambda n: decode(source.read(known[n][0]), size, source.title(known[n][0])), memory)
    left_out = filled(store, source, [(name,) for name, _ in known], skip_bad)
    return Identities(store, [known[n] for n in store.good], config.size, distorted, left_out)


def person(row: Row) -> str:
    """Name who is on a picture: by the column `identity`, else by its folder, else by the file itself."""
    folder = Path(row["file"]).parent.name
    return row.get("identity") or (folder if folder not in ("", "images") else row["file"])

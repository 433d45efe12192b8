"""Aligned portraits with the name of who is on them: for identity networks.

A zip or folder with `labels.csv` (columns `file`, `identity`), or a folder with one sub-folder per person. Whole people are held out, by
the hash of their names; those whom other datasets hold out are among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.errors import TrainingError
from limn.training.datasets.augment import distort
from limn.training.datasets.images import decode, entries
from limn.training.datasets.order import is_held_out

STORED = 96  # pixels that pictures are kept at: room for the augmentation to zoom in
SHARE = 0.12  # of the people, held out: verification needs more pairs than other measures need pictures


@dataclass(frozen=True)
class Identities:
    """Pictures (N, 3, STORED, STORED) uint8 in memory, and the number of the person on each."""

    pictures: Tensor
    names: tuple[str, ...]  # file of each picture
    labels: Tensor  # (N,) int64: index into people
    people: tuple[str, ...]  # sorted
    size: int  # pixels of the batches

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return "image" (size, 3, S, S) in [-1, 1] and "label" (size,): rows 2i and 2i + 1 are one person.

        Half of the people have several pictures, and two of them are taken; of the others one picture is seen twice, distorted differently.
        """
        rng = np.random.default_rng((seed, step))
        rows = self._draw(rng, size // 2)
        image = distort(self.pictures[rows].float() / 127.5 - 1, self.size, rng)
        return {"image": image, "label": self.labels[rows]}

    def _draw(self, rng: np.random.Generator, people: int) -> np.ndarray:
        """Choose two rows for each of so many people: (2 * people,)."""
        several = self._several
        wanted = min(people // 2, len(several))
        rows = [row for index in rng.permutation(len(several))[:wanted] for row in rng.choice(several[index], 2, replace=False)]
        return np.array(rows + rng.integers(0, len(self), people - wanted).repeat(2).tolist())

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


def open(path: str | Path, config: Any, train: bool = True, everyone: bool = False) -> Identities:
    """Read all pictures of the training identities, or of the held-out ones, or (`everyone`) of all, for batches of `config.size`.

    Raises InputError naming the file that cannot be read, TrainingError where there is nobody.
    """
    path = Path(path)
    found = [(row["file"], person(row), data) for row, data in entries(path)]
    found = [entry for entry in found if everyone or is_held_out(entry[1], SHARE) is not train]
    if not found:
        raise TrainingError(f"{path}: no pictures of {'training' if train else 'held-out'} people found")
    people = tuple(sorted({who for _, who, _ in found}))
    number = {who: index for index, who in enumerate(people)}
    pictures = np.stack([decode(data, STORED, f"{path}: {name}").transpose(2, 0, 1) for name, _, data in found])
    labels = torch.tensor([number[who] for _, who, _ in found])
    return Identities(torch.from_numpy(pictures), tuple(name for name, _, _ in found), labels, people, config.size)


def person(row: dict[str, str]) -> str:
    """Name who is on a picture: by the column `identity`, else by its folder, else by the file itself."""
    folder = Path(row["file"]).parent.name
    return row.get("identity") or (folder if folder not in ("", "images") else row["file"])

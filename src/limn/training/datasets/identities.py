"""Aligned portraits with the name of who is on them: for identity networks.

A zip or folder with `labels.csv` (columns `file`, `identity`, pictures under `images/`), or a folder with one sub-folder per person.
One identity in eight is held out by the hash of its name, so that no person is ever on both sides.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from limn.errors import TrainingError
from limn.training.datasets.augment import distort

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
STORED = 96  # pixels that pictures are kept at: room for the augmentation to zoom in


def held_out(identity: str) -> bool:
    """Whether a person belongs to the held-out eighth: a function of the name alone."""
    return hashlib.sha256(identity.encode()).digest()[0] % 8 == 0


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
        chosen = rng.choice(len(several), wanted, replace=False) if wanted else []
        rows = [row for index in chosen for row in rng.choice(several[index], 2, replace=False)]
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
    """Read all pictures of the training identities, or of the held-out ones, or (`everyone`) of all.

    Raises TrainingError naming the file that cannot be read or the column that is missing.
    """
    path = Path(path)
    entries = [(name, who, read) for name, who, read in _entries(path) if everyone or held_out(who) is not train]
    if not entries:
        raise TrainingError(f"{path}: no pictures of {'training' if train else 'held-out'} people found")
    people = tuple(sorted({who for _, who, _ in entries}))
    number = {who: index for index, who in enumerate(people)}
    pictures = torch.from_numpy(np.stack([_decode(name, read()) for name, _, read in entries]))
    labels = torch.tensor([number[who] for _, who, _ in entries])
    return Identities(pictures, tuple(name for name, _, _ in entries), labels, people, config.size)


def _entries(path: Path) -> list[tuple[str, str, Any]]:
    """List (file, identity, function that returns its bytes) of a zip or folder."""
    if path.suffix == ".zip" and path.is_file():
        archive = zipfile.ZipFile(path)
        rows = _rows(path, archive.read("labels.csv") if "labels.csv" in archive.namelist() else b"")
        return [(name, who, lambda name=name: archive.read(f"images/{name}")) for name, who in rows]
    if (path / "labels.csv").is_file():
        rows = _rows(path, (path / "labels.csv").read_bytes())
        return [(name, who, (path / "images" / name).read_bytes) for name, who in rows]
    if not path.is_dir():
        raise TrainingError(f"{path} is neither a folder nor a zip: give pictures with labels.csv, or one folder per person")
    files = sorted(file for file in path.glob("*/*") if file.suffix.lower() in SUFFIXES)
    return [(str(file.relative_to(path)), file.parent.name, file.read_bytes) for file in files]


def _rows(path: Path, content: bytes) -> list[tuple[str, str]]:
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    if not rows or not {"file", "identity"} <= set(rows[0]):
        raise TrainingError(f"{path}: labels.csv with the columns file and identity is needed")
    by_file: dict[str, str] = defaultdict(str, {row["file"]: row["identity"] for row in rows})
    return [(name, who or name) for name, who in by_file.items()]


def _decode(name: str, content: bytes) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise TrainingError(f"{name}: not a readable picture ({error}); remove or replace it") from error
    if image.size != (STORED, STORED):
        image = image.resize((STORED, STORED), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)

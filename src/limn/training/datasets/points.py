"""Faces cut out as a detector cuts them, with their five points: for the network that places the points from near by.

The scenes give faces as they are; portraits with a mesh are turned in depth first, because scenes hold few turned heads.
Reads what `scenes` and `mesh` read, from the same folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from limn.errors import TrainingError
from limn.models.perception.limn_detector import AROUND, FLIPPED
from limn.training.datasets import mesh as meshes
from limn.training.datasets.scenes import Picture, from_mesh, read_scenes
from limn.training.datasets.spoil import spoilt

TURNED = 0.35  # share of crops that come from portraits, turned by up to 35 degrees sideways and 15 up or down
TRUST = 0.5  # weight of points derived from a mesh


@dataclass(frozen=True)
class Crops:
    """A dataset of the training loop: `batch` depends on nothing but its arguments."""

    pictures: tuple[Picture, ...]
    portraits: meshes.Meshes | None
    crop: int  # pixels

    def __len__(self) -> int:
        return len(self.pictures) + (len(self.portraits) if self.portraits else 0)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return `image` (N, 3, S, S) in [-1, 1], `points` (N, 5, 2) in units of its side from its middle, and `trust` (N)."""
        rows = [self.one(np.random.default_rng([seed, step, index])) for index in range(size)]
        image = torch.from_numpy(np.stack([row[0] for row in rows])).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        points = torch.from_numpy(np.stack([row[1] for row in rows]).astype(np.float32))
        return {"image": image, "points": points, "trust": torch.tensor([row[2] for row in rows])}

    def one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        """Return one crop, its points and how far they are to be trusted."""
        if self.portraits is not None and rng.random() < TURNED:
            index = int(rng.integers(len(self.portraits)))
            angles = np.deg2rad(rng.uniform(-1, 1, 2) * [35, 15])
            source, mesh = meshes.turned(self.portraits.pictures[index], self.portraits.points[index], angles[0], angles[1])
            (box, five), trust = from_mesh(mesh[:, :2]), TRUST
        else:
            picture = self.pictures[int(rng.integers(len(self.pictures)))]
            source, box, five, trust = picture.levels[0], picture.box, picture.points, 1.0
        crop, points = _cut(source, box, five, self.crop, rng)
        return spoilt(crop, rng), points, trust


def open(path: str | Path, config: Any, train: bool = True) -> Crops:
    """Open a folder with `scenes.zip` (and perhaps portraits with a mesh); `config.crop` is the side of the crops."""
    folder = Path(path)
    if not (folder / "scenes.zip").is_file():
        raise TrainingError(f"{folder / 'scenes.zip'}: no such file; give the folder that holds scenes.zip")
    has_meshes = (folder / "portraits128-mesh.npz").is_file()
    portraits = meshes.open(folder, SimpleNamespace(size=128), train) if has_meshes else None
    return Crops(tuple(read_scenes(folder / "scenes.zip", free=train)), portraits, config.crop)


def _cut(source: np.ndarray, box: np.ndarray, five: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut a face out as badly as a detector does: moved, scaled, turned, perhaps mirrored."""
    side = AROUND * float((box[2:] - box[:2]).max()) * np.exp(rng.normal(0, 0.08))
    middle = (box[:2] + box[2:]) / 2 + rng.normal(0, 0.04, 2) * side
    angle, flip = np.deg2rad(np.clip(rng.normal(0, 12), -40, 40)), bool(rng.random() < 0.5)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    fine = 2 * size  # halved below, as pixels are averaged where the detector cuts
    scaled = turn * (fine / side)
    matrix = np.concatenate([scaled, (np.full(2, fine / 2 - 0.5) - scaled @ middle)[:, None]], 1)
    crop = cv2.warpAffine(source, matrix, (fine, fine), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    points = ((five - middle) @ turn.T) / side
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), points[list(FLIPPED)] if flip else points

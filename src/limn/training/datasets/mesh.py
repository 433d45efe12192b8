"""Aligned portraits with a dense mesh, for a landmark network: jittered, turned in depth and spoilt anew for every batch.

Reads `portraits128.zip` (crops of template "ffhq", `labels.csv`) and `portraits128-mesh.npz` (`names`, `points_x8`: pixels times
eight) directly. One person in ten, chosen by a hash of the identity, is held out.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from limn.errors import TrainingError
from limn.models.perception.limn_mesh import MIRROR
from limn.training.datasets.scenes import decoded
from limn.training.datasets.spoil import spoilt

NODES = 33  # of the grid on which a turn in depth is computed, per side
REACH = 6.0  # pixels of a 128 crop: how far a point of the mesh carries the picture with it


@dataclass(frozen=True)
class Meshes:
    """A dataset of the training loop: `batch` depends on nothing but its arguments."""

    pictures: tuple[np.ndarray, ...]  # (S, S, 3) RGB uint8
    points: np.ndarray  # (N, 478, 3) float32, pixels
    identities: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return `image` (N, 3, S, S) in [-1, 1] and `points` (N, 478, 3) in its pixels."""
        rows = [self.one(np.random.default_rng([seed, step, index])) for index in range(size)]
        image = torch.from_numpy(np.stack([row[0] for row in rows])).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        return {"image": image, "points": torch.from_numpy(np.stack([row[1] for row in rows]).astype(np.float32))}

    def one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return one augmented crop and its mesh."""
        index = int(rng.integers(len(self.pictures)))
        picture, points = self.pictures[index], self.points[index]
        if rng.random() < 0.5:
            picture, points = mirrored(picture, points)
        if rng.random() < 0.4:
            yaw, pitch = np.deg2rad(rng.uniform(-28, 28)), np.deg2rad(rng.uniform(-14, 14))
            picture, points = turned(picture, points, yaw, pitch)
        picture, points = _jittered(picture, points, rng)
        if rng.random() < 0.12:
            picture = _covered(picture, rng)
        return spoilt(picture, rng), points


def open(path: str | Path, config: Any, train: bool = True) -> Meshes:
    """Open a folder with `portraits128.zip` and `portraits128-mesh.npz`, or the zip with the mesh beside it.

    With `train` nine people in ten, else the others. `config.size` must be the side of the portraits.
    """
    source = Path(path)
    source = source / "portraits128.zip" if source.is_dir() else source
    labels = source.with_name(source.stem + "-mesh.npz")
    for file in (source, labels):
        if not file.is_file():
            raise TrainingError(f"{file}: no such file; give the folder that holds portraits128.zip and portraits128-mesh.npz")
    with np.load(labels) as arrays:
        meshes = dict(zip(arrays["names"].tolist(), arrays["points_x8"].astype(np.float32) / 8, strict=True))
    with zipfile.ZipFile(source) as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")))
        rows = [row for row in rows if row["file"] in meshes and held_out(row["identity"]) != train]
        pictures = tuple(decoded(archive, f"images/{row['file']}") for row in rows)
    if not rows or pictures[0].shape[0] != config.size:
        raise TrainingError(f"{source}: expected portraits of {config.size} pixels that {labels.name} names")
    return Meshes(pictures, np.stack([meshes[row["file"]] for row in rows]), tuple(row["identity"] for row in rows))


def held_out(identity: str) -> bool:
    """Say whether a person is held out: one in ten, the same on every machine."""
    return hashlib.sha256(identity.encode()).digest()[0] % 10 == 0


def mirrored(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exchange left and right of a picture and of its mesh."""
    points = points[list(MIRROR)] * np.array([-1, 1, 1], np.float32)
    return np.ascontiguousarray(picture[:, ::-1]), points + np.array([picture.shape[1] - 1, 0, 0], np.float32)


def turned(picture: np.ndarray, points: np.ndarray, yaw: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn a head in depth by its own mesh (radians): the picture is carried along smoothly, what was hidden stays hidden.

    The labels follow the field that moved the picture, not the ideal turn, so that they stay on what they name.
    """
    size = picture.shape[0]
    middle = points.mean(0) + np.array([0, 0, size * 0.12], np.float32)  # the neck lies behind the face
    relative = (points - middle) @ _rotation(yaw, pitch).T
    aim = relative + middle
    field = _field((aim - points)[:, :2], aim[:, :2], size)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    picture = cv2.remap(picture, x - field[..., 0], y - field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = aim.copy()
    for _ in range(4):  # a point p is seen at q where q - field(q) = p
        at = cv2.remap(field, moved[:, None, 0].astype(np.float32), moved[:, None, 1].astype(np.float32), cv2.INTER_LINEAR)
        moved[:, :2] = points[:, :2] + at.reshape(-1, 2)
    return picture, moved.astype(np.float32)


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])


def _field(shift: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """Spread the shifts (K, 2) of points at (K, 2) to every pixel: Gaussian means near the mesh, falling to nothing away from it."""
    nodes = np.linspace(0, size - 1, NODES)[:, None]
    reach = REACH * size / 128
    across, down = (np.exp(-(((nodes - at[:, axis]) / reach) ** 2) / 2) for axis in (0, 1))
    total = down @ across.T + 0.05
    coarse = np.stack([(down * shift[:, axis]) @ across.T / total for axis in (0, 1)], -1).astype(np.float32)
    scale = (NODES - 1) / (size - 1)
    grow = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]], np.float32)
    return cv2.warpAffine(coarse, grow, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _jittered(picture: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Move, turn and scale a crop about as much as a detector errs, sometimes much more; stretch it a little."""
    size, wild = picture.shape[0], 2.0 if rng.random() < 0.2 else 1.0
    angle = np.deg2rad(np.clip(rng.normal(0, 5 * wild), -30, 30))
    scale = np.exp(np.clip(rng.normal(0, 0.06 * wild), -0.3, 0.3))
    stretch = np.exp(rng.normal(0, 0.04, 2))
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag(stretch)
    middle = np.array([size / 2, size * 0.58])
    matrix = np.concatenate([turn, (middle - turn @ middle + rng.normal(0, 0.025 * wild * size, 2))[:, None]], 1)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_REFLECT_101
    picture = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    moved = points[:, :2] @ turn.T + matrix[:, 2]
    return picture, np.concatenate([moved, points[:, 2:] * scale], 1)


def _covered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hide part of the crop behind a blob or a bar of one colour."""
    size = picture.shape[0]
    colour = tuple(int(v) for v in rng.integers(0, 256, 3))
    centre = tuple(float(v) for v in rng.uniform(0.1, 0.9, 2) * size)
    axes = tuple(float(v) for v in rng.uniform(0.08, 0.4, 2) * size)
    return cv2.ellipse(picture.copy(), (centre, axes, float(rng.uniform(0, 180))), colour, -1)

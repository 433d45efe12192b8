"""Still portraits that move: turned in depth, with another person's change of expression, shifted and tilted, by their dense mesh.

Where clips are few, such pictures teach what a face may look like while clips teach how it moves. Everything is a warp of one
photograph, so nothing that it hides can come to light; mouths stretch rather than open.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from limn.training.datasets import mesh

NODES = 33  # of the grid on which a movement is computed, per side
REACH = 9.0  # pixels of a 128 crop: how far a point of the mesh carries the picture with it
SIDE = 128  # pixels of the portraits
FIXED = (10, 152, 234, 454, 168, 6, 33, 263, 127, 356)  # points of the canonical mesh that expressions hardly move


@dataclass(frozen=True)
class Portraits:
    """Portraits with meshes, and changes of expression in units of the distance between the irises."""

    pictures: tuple[np.ndarray, ...]  # (SIDE, SIDE, 3) uint8
    points: np.ndarray  # (N, 478, 3), pixels
    changes: np.ndarray  # (M, 478, 3)

    def frames(self, rng: np.random.Generator, count: int, size: int) -> np.ndarray:
        """Return one portrait in `count` poses and expressions: (count, size, size, 3) uint8."""
        index = int(rng.integers(len(self.pictures)))
        picture, points = self.pictures[index], self.points[index]
        if rng.random() < 0.5:
            picture, points = mesh.mirrored(picture, points)
        change = self.changes[rng.integers(len(self.changes))]
        return np.stack([self.one(picture, points, change, rng, size) for _ in range(count)])

    def one(self, picture: np.ndarray, points: np.ndarray, change: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        """Return a portrait in one pose and expression."""
        span = float(np.linalg.norm(points[468, :2] - points[473, :2]))
        yaw, pitch = np.deg2rad(rng.normal(0, 9)), np.deg2rad(rng.normal(0, 5))
        middle = points.mean(0) + np.array([0, 0, SIDE * 0.12], np.float32)  # the neck lies behind the face
        shaped = points + rng.uniform(-0.4, 1.1) * span * change
        aim = (shaped - middle) @ rotation(yaw, pitch).T + middle
        moved = carried(picture, points[:, :2], aim[:, :2])
        return cv2.resize(posed(moved, rng), (size, size), interpolation=cv2.INTER_AREA)


def open(path: Path, train: bool = True) -> Portraits:
    """Open `portraits128.zip` with the mesh beside it; of each person the differences between two pictures are the changes."""
    held = mesh.open(path, SimpleNamespace(size=SIDE), train)
    of: dict[str, list[int]] = defaultdict(list)
    for index, identity in enumerate(held.identities):
        of[identity].append(index)
    pairs = [(rows[n], rows[m]) for rows in of.values() for n in range(len(rows)) for m in range(len(rows)) if n != m and len(rows) <= 8]
    changes = np.stack([difference(held.points[a], held.points[b]) for a, b in pairs]).astype(np.float32)
    return Portraits(held.pictures, held.points, changes)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how the mesh `other` differs from `one` once it is turned, scaled and shifted onto it, in distances between the irises."""
    rows = list(FIXED)
    a, b = one[rows] - one[rows].mean(0), other[rows] - other[rows].mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn, scale = u @ sign @ vt, (s * np.diag(sign)).sum() / max(float((b**2).sum()), 1e-6)
    laid = scale * (other - other[rows].mean(0)) @ turn + one[rows].mean(0)
    return (laid - one) / max(float(np.linalg.norm(one[468, :2] - one[473, :2])), 1.0)


def carried(picture: np.ndarray, points: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Carry a picture along with its points (K, 2), in pixels, to where they should be, smoothly."""
    size = picture.shape[0]
    nodes, reach = np.linspace(0, size - 1, NODES)[:, None], REACH * size / SIDE
    across, down = (np.exp(-(((nodes - aim[:, axis]) / reach) ** 2) / 2) for axis in (0, 1))
    total = down @ across.T + 0.05
    shift = aim - points
    coarse = np.stack([(down * shift[:, axis]) @ across.T / total for axis in (0, 1)], -1).astype(np.float32)
    scale = (size - 1) / (NODES - 1)
    grow = np.array([[scale, 0, 0], [0, scale, 0]], np.float32)
    field = cv2.warpAffine(coarse, grow, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return cv2.remap(picture, x - field[..., 0], y - field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def posed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tilt, scale and shift a picture as a head moves before a camera."""
    size = picture.shape[0]
    angle, scale = rng.normal(0, 4), np.exp(rng.normal(0, 0.03))
    matrix = cv2.getRotationMatrix2D((size / 2, size * 0.6), float(angle), float(scale))
    matrix[:, 2] += rng.normal(0, 0.025, 2) * size
    return cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def rotation(yaw: float, pitch: float) -> np.ndarray:
    """Return the matrix (3, 3) that turns by angles in radians."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])

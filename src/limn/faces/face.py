"""The record that every face tool shares: where a face is and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from limn.errors import InputError


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one image; all coordinates are image pixels, pixel centres at whole numbers."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    score: float  # the detector's confidence in [0, 1]
    points: np.ndarray  # (5, 2) float32: the picture's left eye, right eye, nose tip, left and right mouth corner
    mesh: np.ndarray | None = field(default=None, repr=False)  # (478, 3) float32, MediaPipe topology; z in the unit of x and y
    pose: tuple[float, float, float] | None = None  # yaw, pitch, roll in degrees, see limn.faces.measures
    index: int = 0  # by size, the largest is 0

    @classmethod
    def from_row(cls, row: np.ndarray, index: int = 0) -> Self:
        """Make a face of one row of a `Detector`: x0, y0, x1, y1, score, five points as x, y pairs."""
        values = np.asarray(row, np.float32)
        x0, y0, x1, y1, score = (float(value) for value in values[:5])
        return cls((x0, y0, x1, y1), score, values[5:15].reshape(5, 2), index=index)

    @property
    def size(self) -> float:
        """Return the geometric mean of the box's sides, in pixels."""
        x0, y0, x1, y1 = self.box
        return float(np.sqrt(max(x1 - x0, 0.0) * max(y1 - y0, 0.0)))

    def scaled(self, x: float, y: float) -> Self:
        """Return the face as it lies in the image resized by the factors x and y (pixel centres kept half a pixel inside)."""

        def grow(points: np.ndarray) -> np.ndarray:
            plane = (points[:, :2] + 0.5) * (x, y) - 0.5
            return np.concatenate([plane, points[:, 2:] * np.sqrt(x * y)], 1).astype(np.float32)

        (x0, y0), (x1, y1) = grow(np.reshape(np.asarray(self.box, np.float32), (2, 2)))
        mesh = None if self.mesh is None else grow(self.mesh)
        return replace(self, box=(float(x0), float(y0), float(x1), float(y1)), points=grow(self.points), mesh=mesh)


def five_points(face: Face | np.ndarray) -> np.ndarray:
    """Return the (5, 2) points of a face, of five points, or of the 68 points of iBUG; InputError for any other number."""
    points = face.points if isinstance(face, Face) else np.asarray(face, np.float64)
    if points.shape == (5, 2):
        return points
    if points.shape == (68, 2):
        return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])
    raise InputError(f"points of a face have the shape (5, 2) or (68, 2), not {points.shape}")

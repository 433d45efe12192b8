"""Crops that are no similarity to a template: boxes of FOMM, LivePortrait and InsightFace's landmark network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from limn.errors import InputError
from limn.faces import fit


def fomm_box(box: np.ndarray, frame: tuple[int, int], increase: float = 0.1) -> np.ndarray:
    """Return left, top, width, height (whole numbers) of FOMM's crop of a box x0, y0, x1, y1 in a frame of (height, width).

    Each side grows by ``increase`` of its length, or by what makes the box square where that is more; clipped to the frame.
    """
    left, top, right, bottom = np.asarray(box, np.float64)
    width, height = right - left, bottom - top
    grow_x = max(increase, ((1 + 2 * increase) * height - width) / (2 * width))
    grow_y = max(increase, ((1 + 2 * increase) * width - height) / (2 * height))
    grown = [left - grow_x * width, top - grow_y * height, right + grow_x * width, bottom + grow_y * height]
    left, top, right, bottom = (int(value) for value in grown)
    left, top, right, bottom = max(0, left), max(0, top), min(right, frame[1]), min(bottom, frame[0])
    return np.array([left, top, right - left, bottom - top])


def fomm_matrix(points: np.ndarray, size: int) -> np.ndarray:
    """Return the (2, 3) matrix of FOMM's square about the box with the corners ``points`` (2, 2); not clipped to a frame."""
    low, high = np.asarray(points, np.float64)
    side = (high - low).max() * 1.2
    factor = size / side
    shift = size / 2 - 0.5 - (low + high) / 2 * factor
    return np.array([[factor, 0.0, shift[0]], [0.0, factor, shift[1]]])


def join(boxes: np.ndarray) -> np.ndarray:
    """Return the smallest box x0, y0, x1, y1 about boxes (N, 4)."""
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def overlap_inclusive(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two boxes whose last pixels belong to them."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1, 0)
    shared = float(np.prod(sides))
    return shared / (float(np.prod(a[2:] - a[:2] + 1)) + float(np.prod(b[2:] - b[:2] + 1)) - shared)


class Turned(NamedTuple):
    """A turned square: centre (2,), side in pixels and angle in radians."""

    centre: np.ndarray
    side: float
    angle: float

    def corners(self) -> np.ndarray:
        """Return the corners (4, 2) in the image: upper left, upper right, lower right, lower left."""
        x = np.array([np.cos(self.angle), np.sin(self.angle)]) * self.side / 2
        y = np.array([-x[1], x[0]])
        return np.stack([self.centre - x - y, self.centre + x - y, self.centre + x + y, self.centre - x + y])

    def matrix(self, size: int) -> np.ndarray:
        """Return the (2, 3) matrix from image pixels to those of a crop of side ``size``."""
        factor = size / self.side
        cosine, sine = np.cos(self.angle) * factor, np.sin(self.angle) * factor
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return np.concatenate([turn, (size / 2 - turn @ self.centre)[:, None]], 1)


_EYES_AND_LIPS: dict[int, tuple[list[int], list[int], list[int]]] = {  # number of points -> left eye, right eye, mouth corners
    101: ([39, 42, 45, 48], [51, 54, 57, 60], [75, 81]),
    106: ([33, 35, 40, 39], [87, 89, 94, 93], [52, 61]),
    203: ([0, 6, 12, 18], [24, 30, 36, 42], [48, 66]),
}


def eyes_and_lips(points: np.ndarray) -> np.ndarray:
    """Return the middle of the eyes and of the mouth corners, (2, 2), of 5, 68, 101, 106 or 203 points (N, 2)."""
    p = np.asarray(points, np.float64)
    if len(p) == 5:
        return np.stack([p[:2].mean(0), p[3:].mean(0)])
    if len(p) == 68:
        return np.stack([p[[36, 39, 42, 45]].mean(0), p[[48, 54]].mean(0)])
    if len(p) not in _EYES_AND_LIPS:
        raise InputError(f"LivePortrait's crop takes 5, 68, 101, 106 or 203 points, not {len(p)}")
    left, right, lips = _EYES_AND_LIPS[len(p)]
    return np.stack([(p[left].mean(0) + p[right].mean(0)) / 2, p[lips].mean(0)])


def liveportrait(points: np.ndarray, scale: float = 2.3, shift: float = -0.125) -> Turned:
    """Return LivePortrait's square about (N, 2) points: along eyes-to-lips, ``scale`` times their extent, moved by ``shift`` of it."""
    p = np.asarray(points, np.float64)
    eyes, lips = eyes_and_lips(p)
    down = lips - eyes
    length = np.hypot(*down)
    down = np.array([0.0, 1.0]) if length <= 1e-3 else down / length
    right = np.array([down[1], -down[0]])
    along = (p - p.mean(0)) @ np.stack([right, down]).T
    low, high = along.min(0), along.max(0)
    side = float((high - low).max()) * scale
    middle = (low + high) / 2
    centre = p.mean(0) + middle[0] * right + (middle[1] + shift * side) * down
    return Turned(centre, side, float(np.arctan2(right[1], right[0])))


def liveportrait_matrix(points: np.ndarray, size: int, scale: float, shift: float) -> np.ndarray:
    """Return the (2, 3) matrix from image pixels to LivePortrait's crop of side ``size``."""
    return liveportrait(points, scale, shift).matrix(size)


def insightface_matrix(box: np.ndarray, size: int = 192) -> np.ndarray:
    """Return the (2, 3) matrix of InsightFace's landmark crop: 1.5 times the longer side of the box, upright."""
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    factor = size / (1.5 * max(x1 - x0, y1 - y0))
    return np.array([[factor, 0.0, size / 2 - factor * (x0 + x1) / 2], [0.0, factor, size / 2 - factor * (y0 + y1) / 2]])


def insightface_points(prediction: np.ndarray, matrix: np.ndarray, size: int = 192) -> np.ndarray:
    """Map the raw output (N, 2) of InsightFace's landmark network, in [-1, 1], to image pixels."""
    return fit.apply(fit.invert(matrix), (np.asarray(prediction, np.float64) + 1) * (size // 2))

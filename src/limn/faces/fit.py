"""Fitting a similarity (turn, scale, shift) between two sets of points, in the ways that the face tools do.

A matrix is (2, 3) float64 and maps column vectors: target = matrix @ (x, y, 1). Points on a plane are treated as complex
numbers, for which a similarity without reflection is z -> a z + b.
"""

from __future__ import annotations

import cv2
import numpy as np


def _complex(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    return points[..., 0] + 1j * points[..., 1]


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the least-squares similarity without reflection from (N, 2) to (N, 2) points (Umeyama 1991)."""
    z, t = _complex(source), _complex(target)
    centred = z - z.mean()
    a = np.vdot(centred, t - t.mean()) / max(np.vdot(centred, centred).real, 1e-12)
    b = t.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def similarity_or_mirrored(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the better of the plain and the mirrored least-squares similarity (Matlab's cp2tform 'similarity')."""
    mirror = np.array([-1.0, 1.0])
    plain = similarity(source, target)
    mirrored = similarity(source, np.asarray(target) * mirror) * mirror[:, None]

    def residual(matrix: np.ndarray) -> float:
        return float(np.linalg.norm(apply(matrix, source) - target))

    return plain if residual(plain) <= residual(mirrored) else mirrored


def similarity_median(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the similarity of least median of squares, refined on its inliers (OpenCV's LMEDS): facexlib's fit."""
    matrix, _ = cv2.estimateAffinePartial2D(np.float32(source), np.float32(target), method=cv2.LMEDS)  # type: ignore[arg-type]
    return similarity(source, target) if matrix is None else np.asarray(matrix, np.float64)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map (N, 2) points by a (2, 3) matrix."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of a (2, 3) matrix, (2, 3)."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], 1)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the (2, 3) matrix that applies ``inner`` first and then ``outer``."""
    return np.concatenate([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2:] + outer[:, 2:]], 1)


def scale_of(matrix: np.ndarray) -> float:
    """Return by how much a (2, 3) matrix enlarges lengths."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def between_sizes(source: float, target: float) -> np.ndarray:
    """Return the (2, 3) matrix of resizing a square of one side to another, pixel edges on pixel edges."""
    factor = target / source
    shift = (factor - 1) / 2
    return np.array([[factor, 0.0, shift], [0.0, factor, shift]])

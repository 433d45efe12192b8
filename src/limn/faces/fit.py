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


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return what `similarity` returns, by singular values in float32 as scikit-image and insightface compute it.

    A crop of theirs is the same to the last grey level only with the same rounding of the matrix.
    """
    source, target = np.asarray(source, np.float32), np.asarray(target, np.float32)
    start, end = source.mean(0), target.mean(0)
    covariance = (target - end).T @ (source - start) / len(source)
    sign = np.array([1.0, -1.0 if np.linalg.det(covariance) < 0 else 1.0])
    u, singular, v = np.linalg.svd(covariance)
    turn = u @ np.diag(sign) @ v
    scale = float(singular @ sign) / (source - start).var(0).sum()
    return np.concatenate([turn * scale, (end - scale * (turn @ start))[:, None]], 1)


def similarity_or_mirrored(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the better of the plain and the mirrored similarity, each the inverse of the least-squares fit from target to source.

    Matlab's cp2tform 'similarity': distances count in the plane of the source.
    """
    mirror = np.array([-1.0, 1.0])
    plain = invert(similarity(target, source))
    mirrored = invert(similarity(np.asarray(target) * mirror, source)) * mirror[:, None]

    def residual(matrix: np.ndarray) -> float:
        return float(np.linalg.norm(apply(matrix, source) - target))

    return plain if residual(plain) <= residual(mirrored) else mirrored


def similarity_median(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the similarity of least median of squares, refined on its inliers (OpenCV's LMEDS): facexlib's fit."""
    matrix, _ = cv2.estimateAffinePartial2D(np.asarray(source, np.float32), np.asarray(target, np.float32), method=cv2.LMEDS)
    return similarity(source, target) if matrix is None else np.asarray(matrix, np.float64)


def similarity_ransac(source: np.ndarray, target: np.ndarray, threshold: float = 100.0) -> np.ndarray:
    """Return the similarity of the largest set of points within ``threshold`` of their targets (OpenCV's RANSAC): facefusion's fit."""
    source, target = np.asarray(source, np.float32), np.asarray(target, np.float32)
    matrix, _ = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=threshold)
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

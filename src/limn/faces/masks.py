"""Soft masks of a face from its mesh, in pixels of the crop or picture that the mesh lies in."""

from __future__ import annotations

import cv2
import numpy as np

from limn.faces.landmarks import from_mesh

# fmt: off
OVAL = (  # the outline of the face in the mesh, clockwise from the middle of the forehead
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
FEATURES = (  # of the 68 points of iBUG: each eye with its brow, the nose, the mouth
    [*range(17, 22), *range(36, 42)],
    [*range(22, 27), *range(42, 48)],
    [*range(27, 36)],
    [*range(48, 68)],
)
_FINE = 4  # the outline is drawn at a quarter of a pixel


def oval(mesh: np.ndarray, size: tuple[int, int], grow: float = 0.0, feather: float = 0.25) -> np.ndarray:
    """Return the mask (height, width) float32 of the face's oval in a picture of (width, height).

    It is 1 inside and falls smoothly to 0 at ``grow`` outside the outline, over ``feather`` (both in distances between the eyes);
    beyond, it is exactly 0.
    """
    points = np.asarray(mesh, np.float64)[:, :2]
    unit = max(float(np.linalg.norm(points[468] - points[473])), 1e-6)
    distance = _signed_distance(points[list(OVAL)], size) / unit
    return smoothstep((distance + grow) / max(feather, 1e-6))


def features(mesh: np.ndarray, size: tuple[int, int], feather: float = 0.2) -> np.ndarray:
    """Return the mask (height, width) float32 of eyes with brows, nose and mouth: 1 inside their hulls, fading over ``feather``.

    ``feather`` is in distances between the eyes, as that of `oval`.
    """
    points = from_mesh(mesh)[:, :2]
    unit = max(float(np.linalg.norm(np.asarray(mesh)[468, :2] - np.asarray(mesh)[473, :2])), 1e-6)
    parts = [_signed_distance(cv2.convexHull(points[part].astype(np.float32))[:, 0], size) for part in FEATURES]
    return smoothstep(np.max(parts, 0) / unit / max(feather, 1e-6) + 1)


def inside_frame(size: tuple[int, int], border: float = 0.06) -> np.ndarray:
    """Return the mask (height, width) float32 that falls to 0 at the frame of (width, height), over ``border`` of the shorter side."""
    reach = max(border * min(size), 1e-6)
    across, along = (np.minimum(np.arange(side), np.arange(side)[::-1]) / reach for side in size)
    return np.minimum(smoothstep(across)[None], smoothstep(along)[:, None])


def _signed_distance(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the distance (height, width) in pixels to a closed outline (N, 2): positive inside."""
    drawn = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(drawn, [np.rint(outline * _FINE).astype(np.int32)], 1, shift=_FINE // 2)
    inner, outer = (cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for part in (drawn, 1 - drawn))
    return inner - outer


def smoothstep(x: np.ndarray | float) -> np.ndarray:
    """Return 0 below 0, 1 above 1 and 3x^2 - 2x^3 between, float32."""
    clipped = np.clip(x, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), np.float32)

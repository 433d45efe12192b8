"""Orders of facial points, conversions between them, and the published crop and decoding of the FAN landmark network."""

from __future__ import annotations

import cv2
import numpy as np

# the 68 points of iBUG in the 478-point mesh
# fmt: off
MESH_68 = np.array([
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305,  # brows, nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,  # mouth
])
# fmt: on
# where each of the 68 points lies after mirroring the picture
# fmt: off
FLIP_68 = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
])
# fmt: on


def from_mesh(mesh: np.ndarray) -> np.ndarray:
    """Return the 68 points of iBUG, (68, 2 or 3), of a mesh (478, 2 or 3)."""
    return np.asarray(mesh, np.float64)[MESH_68]


def five_from_mesh(mesh: np.ndarray) -> np.ndarray:
    """Return the five points (5, 2) of a mesh (478, 2 or 3): the middles of the eyes, the nose tip, the mouth corners."""
    plane = np.asarray(mesh, np.float64)[:, :2]
    groups = ([33, 133, 159, 145], [263, 362, 386, 374], [1, 4], [61, 78], [291, 308])
    return np.stack([plane[group].mean(0) for group in groups])


def mirror(points: np.ndarray, width: int) -> np.ndarray:
    """Return the 68 points of the mirrored picture of ``width`` pixels: x -> width - 1 - x."""
    flipped = np.asarray(points, np.float64)[FLIP_68].copy()
    flipped[:, 0] = width - 1 - flipped[:, 0]
    return flipped


def from_98(points: np.ndarray) -> np.ndarray:
    """Return the 68 points of the 98 of WFLW: the jaw smoothed and thinned to every other point, brows as middles of their edges."""
    p = np.asarray(points, np.float64)
    jaw = [p[i] if i in (0, 16, 32) else p[i] / 2 + (p[i - 1] + p[i + 1]) / 4 for i in range(0, 33, 2)]
    brow_left = [p[33], *((p[34 + i] + p[41 - i]) / 2 for i in range(4))]
    brow_right = [*((p[42 + i] + p[50 - i]) / 2 for i in range(4)), p[46]]
    eyes = p[[60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75]]
    return np.concatenate([jaw, brow_left, brow_right, p[51:60], eyes, p[76:96]])


def fan_frame(box: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centre (2,) and scale of FAN's crop about a box x0, y0, x1, y1: 12 % of the height up, 195 pixels to a scale of 1."""
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    centre = np.array([x1 - (x1 - x0) / 2, y1 - (y1 - y0) / 2 - (y1 - y0) * 0.12])
    return centre, float((x1 - x0 + y1 - y0) / 195)


def _fan_to_image(points: np.ndarray, centre: np.ndarray, scale: float, resolution: int) -> np.ndarray:
    """Map (..., 2) points of a crop of side ``resolution`` to image pixels, cut to whole numbers towards zero.

    The inverse is taken as FAN takes it: where a point falls on a whole pixel, its rounding decides.
    """
    side = 200.0 * scale
    forward = np.eye(3)
    forward[[0, 1], [0, 1]] = resolution / side
    forward[:2, 2] = resolution * (-centre / side + 0.5)
    back = np.linalg.pinv(forward)
    return np.trunc(np.asarray(points, np.float64) @ back[:2, :2].T + back[:2, 2])


def fan_crop(image: np.ndarray, centre: np.ndarray, scale: float, resolution: int = 256) -> np.ndarray:
    """Return FAN's crop (resolution, resolution, 3) of an uint8 image (H, W, 3); black beyond its borders."""
    start = _fan_to_image(np.array([1.0, 1.0]), centre, scale, resolution).astype(int)
    stop = _fan_to_image(np.array([resolution, resolution]), centre, scale, resolution).astype(int)
    height, width = image.shape[:2]
    low, high = np.maximum(start, 0), np.minimum(stop, (width, height))
    canvas = np.zeros((stop[1] - start[1], stop[0] - start[0], image.shape[2]), image.dtype)
    (x0, y0), (x1, y1) = low - start, high - start
    canvas[y0:y1, x0:x1] = image[low[1] : high[1], low[0] : high[0]]
    return cv2.resize(canvas, (resolution, resolution), interpolation=cv2.INTER_LINEAR)


def fan_decode(heatmaps: np.ndarray, centre: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points in the heat maps (N, P, 2), points in the image (N, P, 2) and scores (N, P) of heat maps (N, P, H, W).

    The maximum moves a quarter towards its higher neighbour in each direction; image points are whole numbers.
    """
    count, parts, height, width = heatmaps.shape
    flat = heatmaps.reshape(count, parts, -1)
    best = flat.argmax(-1)
    points = np.stack([best % width + 1.0, best // width + 1.0], -1)
    for n, part in np.ndindex(count, parts):
        x, y = int(best[n, part] % width), int(best[n, part] // width)
        if 0 < x < width - 1 and 0 < y < height - 1:
            plane = heatmaps[n, part]
            points[n, part] += np.sign([plane[y, x + 1] - plane[y, x - 1], plane[y + 1, x] - plane[y - 1, x]]) * 0.25
    points -= 0.5
    return points, _fan_to_image(points, centre, scale, width), flat.max(-1)

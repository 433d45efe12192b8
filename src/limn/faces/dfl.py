"""DeepFaceLab's geometry: aligned crops by face type, masks drawn from landmarks, and head angles, from the 68 points of iBUG.

Perov et al.: DeepFaceLab: Integrated, flexible and extensible face-swapping framework. 2020, arXiv 2005.05535. Masks are integer
polygons there: landmarks are cut to whole pixels before drawing.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from limn.errors import InputError
from limn.faces import fit

# how far each face type reaches beyond the square of the mean face, in its diagonals
PADDING = {
    "half_face": 0.0,
    "midfull_face": 0.0675,
    "full_face": 0.2109375,
    "full_face_no_align": 0.2109375,
    "whole_face": 0.40,
    "head": 0.70,
    "head_no_align": 0.70,
}

# points 17..67 (brows, nose, eyes, mouth) of the mean frontal face, in the unit square
# fmt: off
MEAN_FACE = np.array([
    (0.000213256, 0.106454), (0.0752622, 0.038915), (0.18113, 0.0187482), (0.29077, 0.0344891), (0.393397, 0.0773906),
    (0.586856, 0.0773906), (0.689483, 0.0344891), (0.799124, 0.0187482), (0.904991, 0.038915), (0.98004, 0.106454),
    (0.490127, 0.203352), (0.490127, 0.307009), (0.490127, 0.409805), (0.490127, 0.515625),
    (0.36688, 0.587326), (0.426036, 0.609345), (0.490127, 0.628106), (0.554217, 0.609345), (0.613373, 0.587326),
    (0.121737, 0.216423), (0.187122, 0.178758), (0.265825, 0.179852), (0.334606, 0.231733), (0.260918, 0.245099), (0.182743, 0.244077),
    (0.645647, 0.231733), (0.714428, 0.179852), (0.793132, 0.178758), (0.858516, 0.216423), (0.79751, 0.244077), (0.719335, 0.245099),
    (0.254149, 0.780233), (0.340985, 0.745405), (0.428858, 0.727388), (0.490127, 0.742578), (0.551395, 0.727388), (0.639268, 0.745405),
    (0.726104, 0.780233), (0.642159, 0.864805), (0.556721, 0.902192), (0.490127, 0.909281), (0.423532, 0.902192), (0.338094, 0.864805),
    (0.290379, 0.784792), (0.428096, 0.778746), (0.490127, 0.785343), (0.552157, 0.778746), (0.689874, 0.784792),
    (0.553364, 0.824182), (0.490127, 0.831803), (0.42689, 0.824182),
])
# fmt: on
_FITTED = [*range(17, 49), 54]  # no jaw, of the mouth only the corners

# a mean face in space, millimetres (the model file of OpenFace): jaw and brows, nostrils; the points that give the head angles
# fmt: off
_SOLID = np.array([
    (-73.393523, -29.801432, 47.667532), (-72.775014, -10.949766, 45.909403), (-70.533638, 7.929818, 44.842580),
    (-66.850058, 26.074280, 43.141114), (-59.790187, 42.564390, 38.635298), (-48.368973, 56.481080, 30.750622),
    (-34.121101, 67.246992, 18.456453), (-17.875411, 75.056892, 3.609035), (0.098749, 77.061286, -0.881698),
    (17.477031, 74.758448, 5.181201), (32.648966, 66.929021, 19.176563), (46.372358, 56.311389, 30.770570),
    (57.343480, 42.419126, 37.628629), (64.388482, 25.455880, 40.886309), (68.212038, 6.990805, 42.281449),
    (70.486405, -11.666193, 44.142567), (71.375822, -30.365191, 47.140426), (-61.119406, -49.361602, 14.254422),
    (-51.287588, -58.769795, 7.268147), (-37.804800, -61.996155, 0.442051), (-24.022754, -61.033399, -6.606501),
    (-11.635713, -56.686759, -11.967398), (12.056636, -57.391033, -12.051204), (25.106256, -61.902186, -7.315098),
    (38.338588, -62.777713, -1.022953), (51.191007, -59.302347, 5.349435), (60.053851, -50.190255, 11.615746),
    (1.226783, -8.414541, -36.948060), (-14.772472, 2.598255, -20.132003), (-7.180239, 4.751589, -23.536684),
    (0.555920, 6.562900, -25.944448), (8.272499, 4.661005, -23.695741), (15.214351, 2.643046, -20.858157),
])
# fmt: on
_POSED = [*range(27), *range(30, 36)]


def to_unit(points: np.ndarray) -> np.ndarray:
    """Return the least-squares similarity (2, 3) from (68, 2) image points to the unit square of the mean face."""
    return fit.similarity(np.asarray(points)[_FITTED], MEAN_FACE[[index - 17 for index in _FITTED]])


def averaged_yaw(points: np.ndarray) -> float:
    """Return how far the nose bridge lies off the middle of the jaw, in the unit of the (68, 2) points."""
    x = np.asarray(points, np.float64)[:, 0]
    left = (x[27:30] - x[:3]).mean()
    right = (x[[16, 15, 14]] - x[27:30]).mean()
    return float(right - left)


def _centre(points: np.ndarray, corners: np.ndarray, unit: np.ndarray, face_type: str) -> np.ndarray:
    """Return the middle of the crop: that of the mean face's square, up for whole faces, up and aside for turned heads."""
    centre = corners[4].copy()
    up = corners[0] - corners[3]
    if face_type == "whole_face":
        centre += up * 0.07
    elif face_type == "head":
        yaw = averaged_yaw(fit.apply(unit, points))
        centre -= (corners[0] - corners[1]) * (yaw * abs(math.tanh(yaw * 2)) / 2)
        centre += up * 0.50
    return centre


def matrix(points: np.ndarray, size: int, face_type: str = "whole_face", scale: float = 1.0) -> np.ndarray:
    """Return the (2, 3) matrix from image to aligned crop of side ``size`` for (68, 2) points; ``scale`` > 1 comes nearer.

    The `*_no_align` types are upright squares of half the area's root about the same centre.
    """
    if face_type not in PADDING:
        raise InputError(f"DeepFaceLab has no face type {face_type!r}: use {', '.join(PADDING)}")
    unit = to_unit(points)
    corners = fit.apply(fit.invert(unit), np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0.5)]))
    centre = _centre(points, corners, unit, face_type)
    down, up = corners[2] - corners[0], corners[1] - corners[3]
    reach = (np.linalg.norm(down) * (PADDING[face_type] * math.sqrt(2.0) + 0.5)) / scale
    down, up = down / np.linalg.norm(down) * reach, up / np.linalg.norm(up) * reach
    triangle = np.stack([centre - down, centre + up, centre + down])
    if face_type.endswith("_no_align"):
        half = np.linalg.norm(triangle[1] - triangle[0]) / 2
        triangle = centre + half * np.array([(-1, -1), (1, -1), (1, 1)])
    target = np.array([(0, 0), (size, 0), (size, size)], np.float32)
    return np.asarray(cv2.getAffineTransform(triangle.astype(np.float32), target), np.float64)


def rectangle(points: np.ndarray) -> np.ndarray:
    """Return x0, y0, x1, y1 of the upright full-face square of (68, 2) points: the outer pixels of a crop of 256."""
    back = fit.invert(matrix(points, 256, "full_face_no_align"))
    return fit.apply(back, np.array([(0, 0), (255, 255)])).ravel()


def pitch_yaw_roll(aligned: np.ndarray, size: int = 256) -> tuple[float, float, float]:
    """Return pitch, yaw, roll in radians, each cut to a right angle, of (68, 2) points in an aligned crop of side ``size``."""
    camera = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]], np.float64)
    _, turn, _ = cv2.solvePnP(_SOLID, np.asarray(aligned, np.float64)[_POSED], camera, np.zeros((4, 1)))
    r = cv2.Rodrigues(turn)[0]
    flat = math.hypot(r[0, 0], r[1, 0])
    if flat < 1e-6:
        angles = (math.atan2(-r[1, 2], r[1, 1]), math.atan2(-r[2, 0], flat), 0.0)
    else:
        angles = (math.atan2(r[2, 1], r[2, 2]), math.atan2(-r[2, 0], flat), math.atan2(r[1, 0], r[0, 0]))
    pitch, yaw, roll = (min(max(angle, -math.pi / 2), math.pi / 2) for angle in angles)
    return -pitch, yaw, roll


def expand_brows(points: np.ndarray, amount: float = 1.0) -> np.ndarray:
    """Return (68, 2) whole points with the brows moved up by half of ``amount`` times their distance from the eyes."""
    p = np.asarray(points).astype(int)
    beside_left = (p[36] + (p[36] + p[0]) // 2) // 2
    beside_right = (p[45] + (p[16] + p[45]) // 2) // 2
    below_left = np.stack([beside_left, *p[36:40]])
    below_right = np.stack([*p[42:46], beside_right])
    raised = p.copy()
    raised[17:22] = p[17:22] + amount * 0.5 * (p[17:22] - below_left)
    raised[22:27] = p[22:27] + amount * 0.5 * (p[22:27] - below_right)
    return raised


_HULLS = (  # the points of each convex part of the face
    [*range(9), 17],
    [*range(8, 17), 26],
    [17, 18, 19, 8],
    [24, 25, 26, 8],
    [*range(19, 25), 8],
    [*range(17, 22), 27, *range(31, 36), 8],
    [*range(22, 27), 27, *range(31, 36), 8],
    [*range(27, 36)],
)


def hull_mask(shape: tuple[int, int], points: np.ndarray, brows: float = 1.0) -> np.ndarray:
    """Return the face's mask (height, width) float32, 0 or 1: the union of eight convex hulls of the (68, 2) points."""
    return _filled(shape, expand_brows(points, brows), _HULLS)


def _filled(shape: tuple[int, int], points: np.ndarray, parts: tuple[list[int], ...]) -> np.ndarray:
    mask = np.zeros(shape, np.float32)
    for part in parts:
        cv2.fillConvexPoly(mask, cv2.convexHull(points[part].astype(np.int32)), (1.0,))
    return mask


def _soft(mask: np.ndarray) -> np.ndarray:
    """Widen a mask by a 32nd of its height and blur it by a 16th."""
    height = mask.shape[0]
    widen, blur = max(height // 32, 1), height // 16
    blur += 1 - blur % 2
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (widen, widen)))
    return cv2.GaussianBlur(mask, (blur, blur), 0)


def eye_mask(shape: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """Return the soft mask (height, width) float32 of both eyes of (68, 2) points."""
    return _soft(_filled(shape, np.asarray(points), ([*range(36, 42)], [*range(42, 48)])))


def mouth_mask(shape: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """Return the soft mask (height, width) float32 of the opening of the mouth of (68, 2) points."""
    return _soft(_filled(shape, np.asarray(points), ([*range(60, 68)],)))

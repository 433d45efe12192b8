"""Label maps drawn from a face mesh: which pixels are skin, brows, eyes, nose and lips.

The rings follow the mesh's own edges, in MediaPipe's numbering. What no mesh has (hair, neck, ears, glasses, cloth) is background.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from limn.faces.masks import OVAL

CLASSES = ("background", "skin", "brows", "eyes", "iris", "nose", "upper_lip", "mouth", "lower_lip")  # eyes: without the iris
COLOURS = (  # of each class in a picture that a person looks at or paints
    (0, 0, 0),
    (224, 172, 140),
    (120, 72, 40),
    (255, 255, 255),
    (40, 110, 220),
    (240, 200, 60),
    (200, 40, 60),
    (90, 0, 40),
    (240, 110, 130),
)

# left and right are the picture's
# fmt: off
_BROWS = ((46, 53, 52, 65, 55, 107, 66, 105, 63, 70), (276, 283, 282, 295, 285, 336, 296, 334, 293, 300))
_EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))  # the middle, then four points of the rim
_NOSE = (168, 193, 188, 174, 198, 209, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 429, 420, 399, 412, 417)
_LIP_TOP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)  # outer edge of the upper lip, left to right
_LIP_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)  # its inner edge
_LIP_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)  # inner edge of the lower lip
_LIP_BOTTOM = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)  # its outer edge
# fmt: on
_RINGS = (  # painted in this order, later ones over earlier ones
    ("skin", OVAL),
    ("nose", _NOSE),
    *(("brows", ring) for ring in _BROWS),
    *(("eyes", ring) for ring in _EYES),
    ("upper_lip", (*_LIP_TOP, *_LIP_UPPER[::-1])),
    ("lower_lip", (*_LIP_BOTTOM, *_LIP_LOWER[::-1])),
    ("mouth", (*_LIP_UPPER, *_LIP_LOWER[::-1])),
)
_BITS = 4  # binary digits of the sixteenths of a pixel in which outlines are drawn


def labels(mesh: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw a mesh (478, 2 or 3), in pixels with centres at whole numbers, as a map (height, width) uint8 of numbers in CLASSES.

    ``size`` is (width, height) of the picture that the mesh lies in. Closed eyes and lips leave their insides out.
    """
    points = np.asarray(mesh, np.float64)[:, :2]
    drawn = np.zeros((size[1], size[0]), np.uint8)
    for name, ring in _RINGS:
        _fill(drawn, points[list(ring)], CLASSES.index(name))
    for middle, *rim in _IRISES:
        _draw_iris(drawn, points[middle], points[rim])
    return drawn


def coloured(drawn: np.ndarray) -> Image.Image:
    """Return a label map (H, W) as an index picture whose palette is COLOURS: readable for people and, without loss, for programs."""
    picture = Image.fromarray(drawn.astype(np.uint8), "P")
    picture.putpalette([level for colour in COLOURS for level in colour])
    return picture


def _fill(drawn: np.ndarray, outline: np.ndarray, value: int) -> None:
    cv2.fillPoly(drawn, [np.rint(outline * (1 << _BITS)).astype(np.int32)], value, shift=_BITS)


def _draw_iris(drawn: np.ndarray, middle: np.ndarray, rim: np.ndarray) -> None:
    """Paint the disc of an iris where the eye is open."""
    radius = float(np.linalg.norm(rim - middle, axis=1).mean())
    disc = np.zeros_like(drawn)
    centre = [round(float(value) * (1 << _BITS)) for value in middle]
    cv2.circle(disc, centre, round(radius * (1 << _BITS)), 1, -1, shift=_BITS)
    drawn[(disc > 0) & (drawn == CLASSES.index("eyes"))] = CLASSES.index("iris")

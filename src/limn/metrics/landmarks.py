"""Does the face stand, and is it posed, as in the true picture? Distance of the 68 landmarks, and of yaw, pitch and roll.

The distance is that of 300-W (Sagonas et al. 2013): the mean over the points by the distance between the outer corners of the eyes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from limn.faces import Face, detect
from limn.faces.landmarks import from_mesh

Find = Callable[[Image.Image], Face | None]
OUTER = (36, 45)  # the outer corners of the eyes among the 68 points
MARGIN = 0.25  # of a picture's side, around it: detectors want some room about a face that fills its crop
SMALLEST = 256  # pixels a side to which small pictures are enlarged
TITLES = ("landmark error", "yaw error", "pitch error", "roll error")


def largest(image: Image.Image) -> Face | None:
    """Return the largest face, in pixels of the picture enlarged to at least 256 and put on a grey ground; None where there is none."""
    faces = detect(roomy(image))
    return faces[0] if faces else None


def roomy(image: Image.Image) -> Image.Image:
    """Return the picture, enlarged if small, on a grey ground with a quarter of its sides on every side."""
    factor = max(1.0, SMALLEST / min(image.size))
    width, height = round(image.width * factor), round(image.height * factor)
    canvas = Image.new("RGB", (round(width * (1 + 2 * MARGIN)), round(height * (1 + 2 * MARGIN))), (128, 128, 128))
    enlarged = image if factor == 1 else image.resize((width, height), Image.Resampling.BICUBIC)
    canvas.paste(enlarged, (round(width * MARGIN), round(height * MARGIN)))
    return canvas


def errors(image: Image.Image, other: Image.Image, find: Find = largest) -> np.ndarray:
    """Return (4,): landmark error in % of the eye distance in `other`, absolute errors of yaw, pitch, roll in degrees.

    The pictures are of one size; NaN where either holds no face.
    """
    ours, true = find(image), find(other)
    if ours is None or true is None or ours.mesh is None or true.mesh is None or ours.pose is None or true.pose is None:
        return np.full(len(TITLES), np.nan)
    apart = landmark_error(from_mesh(ours.mesh[:, :2]), from_mesh(true.mesh[:, :2]))
    return np.array([100 * apart, *np.abs(turned(np.array(ours.pose) - np.array(true.pose)))])


def landmark_error(points: np.ndarray, true: np.ndarray) -> float:
    """Return the mean distance of 68 points (68, 2) to the true ones by the distance between the true outer eye corners."""
    eyes = float(np.linalg.norm(true[OUTER[1]] - true[OUTER[0]]))
    return float(np.linalg.norm(points - true, axis=1).mean()) / max(eyes, 1e-9)


def turned(degrees: np.ndarray) -> np.ndarray:
    """Bring differences of angles to -180..180 degrees."""
    return (degrees + 180) % 360 - 180

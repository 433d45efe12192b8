"""Finding faces that a plain look misses: blurred, noisy, or filling the picture to its edges.

Made small, a worn picture looks like any other made small; with a border around it, a face that fills it looks like one in a picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from limn.faces.detect import detect, ordered, with_meshes
from limn.faces.face import Face

if TYPE_CHECKING:
    import torch

LOOKS = ((0.5, 128), (0.25, 256), (0.0, 128), (0.0, 256))  # border in long sides of the picture, and pixels of the long side then
SURE = 0.4  # score from which such a face is believed


def find(image: Image.Image, detector: str = "limn", device: torch.device | str = "cpu") -> list[Face]:
    """Return the faces of a worn picture, largest first, with their mesh, by the look that is surest of one; an empty list for none."""
    best: list[Face] = []
    for border, longest in LOOKS:
        found = look(image, border, longest, detector, device)
        if found and max(face.score for face in found) > max((face.score for face in best), default=SURE):
            best = found
    return with_meshes(image, ordered(best), device) if best else []


def look(image: Image.Image, border: float, longest: int, detector: str, device: torch.device | str) -> list[Face]:
    """Look at a picture with a border, made small; faces are given in pixels of the picture."""
    wide = round(border * max(image.size))
    pixels = np.asarray(image.convert("RGB"))
    framed = Image.fromarray(cv2.copyMakeBorder(pixels, wide, wide, wide, wide, cv2.BORDER_REPLICATE))
    factor = longest / max(framed.size)
    size = max(round(framed.width * factor), 1), max(round(framed.height * factor), 1)
    small = framed.resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC)
    found = detect(small, detector, threshold=SURE, mesh=False, device=device)
    return [moved(face.scaled(framed.width / size[0], framed.height / size[1]), -wide) for face in found]


def moved(face: Face, by: float) -> Face:
    """Return a face moved along both axes."""
    x0, y0, x1, y1 = face.box
    return replace(face, box=(x0 + by, y0 + by, x1 + by, y1 + by), points=face.points + np.float32(by))

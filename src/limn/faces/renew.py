"""Putting a restored face back: what the model knows better is taken from it, what only the photograph shows is kept.

Where the photograph is no finer than the model, the model's pixels replace it. Where it is finer, the model cannot draw its detail: the
change that the model makes is carried over, and the detail above the model's resolution is the photograph's own, without the grain that the
model took for noise. A face in which the model finds next to nothing to mend is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from limn.faces import fit
from limn.faces.masks import inside_frame, smoothstep
from limn.faces.paste import Box, region, unwarp
from limn.faces.transfer import GREY

MENDED = (3.0, 6.0)  # levels of 255 by which the model changes a face: below the first it was whole, above the second it was not
GRAIN = 2.5  # times the noise that the model took away: finer detail below this counts as noise too
FINER = (1.0, 2.0)  # pixels of the photograph in one of the model's: from which on its own detail counts, and from which on wholly
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Renewal:
    """What a model made of one face."""

    seen: np.ndarray  # (S, S, 3) uint8: the aligned face as the model was given it
    restored: np.ndarray  # (S, S, 3) uint8
    matrix: np.ndarray  # (2, 3): pixels of the picture that is worked on -> pixels of the crop
    mask: np.ndarray  # (S, S) float32, 0 to 1: the face
    fine: float  # pixels of the photograph in one of the model's
    colour: bool = False  # take the model's colours too, for a grey photograph


def apply(pixels: np.ndarray, face: Renewal, strength: float = 1.0) -> tuple[Box, np.ndarray]:
    """Renew a face in RGB pixels (H, W, 3) uint8, in place, by `strength` 0 to 1; return the box and the mask (h, w) of what changed."""
    side = len(face.seen)
    box = region(face.matrix, (side, side), (pixels.shape[1], pixels.shape[0]))
    x0, y0, x1, y1 = box
    under = pixels[y0:y1, x0:x1].astype(np.float32)
    own, drawn = (unwarp(part.astype(np.float32), face.matrix, box) for part in (face.seen, face.restored))
    kept = float(smoothstep((face.fine - FINER[0]) / (FINER[1] - FINER[0])))
    amount = strength * (1 + kept * (mended(face) - 1))
    change = drawn + kept * cored(under - own, grain(face)) - under
    weight = amount * np.clip(unwarp(face.mask, face.matrix, box, beyond=False), 0, 1)[..., None]
    if grey(face.seen) or face.colour:
        change = np.repeat((change @ LUMA)[..., None], 3, axis=-1)
    result, touched = under + weight * change, weight[..., 0]
    if face.colour:
        wide = strength * np.clip(unwarp(inside_frame((side, side), 0.2), face.matrix, box, beyond=False), 0, 1)[..., None]
        result, touched = tinted(result, drawn, wide), np.maximum(touched, wide[..., 0])
    pixels[y0:y1, x0:x1] = np.where(touched[..., None] > 0, np.rint(result).clip(0, 255), under).astype(np.uint8)
    return box, touched


def grey(picture: np.ndarray) -> bool:
    """Whether a picture has one tone only, as `transfer` has it."""
    pixels = picture.astype(np.float32)
    return bool((pixels - (pixels @ LUMA)[..., None]).std((0, 1)).mean() < GREY)


def mended(face: Renewal) -> float:
    """Say from 0 to 1 how much there was to mend: by the change of brightness within the face."""
    change = (face.restored.astype(np.float32) - face.seen) @ LUMA
    size = float(np.sqrt((face.mask * change**2).sum() / max(float(face.mask.sum()), 1e-6)))
    return float(smoothstep((size - MENDED[0]) / (MENDED[1] - MENDED[0])))


def grain(face: Renewal) -> float:
    """Estimate the noise of the photograph, in levels, by the finest part of what the model took away.

    Pixels of the crop are means over `fine`² of the photograph, whose noise is so many times stronger.
    """
    gone = (face.seen.astype(np.float32) - face.restored) @ LUMA
    finest = gone - cv2.GaussianBlur(gone, (0, 0), 1.0)
    level = float(np.median(np.abs(finest[face.mask > 0.5]))) * 1.48 if (face.mask > 0.5).any() else 0.0
    return max(level - 1.0, 0.0) * max(face.fine, 1.0)


def cored(detail: np.ndarray, noise: float) -> np.ndarray:
    """Shrink detail (h, w, 3) towards 0 by GRAIN times the noise."""
    return np.sign(detail) * np.maximum(np.abs(detail) - GRAIN * noise, 0) if noise else detail


def tinted(pixels: np.ndarray, colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Give pixels (h, w, 3) the colour of others, by weight, and leave their brightness (GPEN's colourisation, in BT.601)."""
    luma = (pixels @ LUMA)[..., None]
    tint = colours - (colours @ LUMA)[..., None]
    own = pixels - luma
    return luma + own + weight * (tint - own)


def enlarged(matrix: np.ndarray, scale: int) -> np.ndarray:
    """Return the matrix from a picture that was made `scale` times larger to the crop that `matrix` leads to."""
    return fit.compose(matrix, fit.between_sizes(scale, 1))

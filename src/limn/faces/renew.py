"""Putting a restored face back: what the model knows better is taken from it, what only the photograph shows is kept.

Where the photograph is no finer than the model, the model's pixels replace it. Where it is finer, the model cannot draw its detail: the
change that the model makes is carried over, and the detail above the model's resolution is the photograph's own, without the grain that the
model took for noise. A face in which the model finds next to nothing to mend is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from limn.faces import fit
from limn.faces.masks import inside_frame, smoothstep
from limn.faces.paste import Box, region, unwarp
from limn.faces.transfer import GREY

MENDED = (3.0, 7.0)  # levels of 255 by which the model changes a face: below the first it was whole, above the second it was not
EDGE = 0.15  # of the crop: over which a restored face fades into the picture
BROAD = 0.08  # standard deviation, in crop sides, above which light and colour are the photograph's
GRAIN = 2.0  # times the noise of the photograph, below which its finer detail counts as noise too
FINER = (1.0, 2.0)  # pixels of the photograph in one of the model's: from which on its own detail counts, and from which on wholly
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Renewal:
    """What a model made of one face."""

    seen: np.ndarray  # (S, S, 3) uint8: the aligned face as the model was given it
    restored: np.ndarray  # (S, S, 3) uint8
    matrix: np.ndarray  # (2, 3): pixels of the picture that is worked on -> pixels of the crop
    fine: float  # pixels of the photograph in one of the model's
    colour: bool = False  # take the model's colours too, for a grey photograph


def apply(pixels: np.ndarray, faces: Sequence[Renewal], strength: float = 1.0) -> list[tuple[Box, np.ndarray]]:
    """Renew faces in RGB pixels (H, W, 3) uint8, in place, by `strength` 0 to 1; return the box and the weight (h, w) of each.

    Where crops overlap each of them starts from the picture as it was, so that nothing is restored twice.
    """
    size = pixels.shape[1], pixels.shape[0]
    boxes = [region(face.matrix, (len(face.seen), len(face.seen)), size) for face in faces]
    before = [pixels[y0:y1, x0:x1].copy() for x0, y0, x1, y1 in boxes]
    done = []
    for face, box, was in zip(faces, boxes, before, strict=True):
        x0, y0, x1, y1 = box
        weight = strength * np.clip(unwarp(inside_frame(face.seen.shape[:2], EDGE), face.matrix, box, beyond=False), 0, 1)
        now, wanted = pixels[y0:y1, x0:x1], renewed(was.astype(np.float32), face, box)
        mixed = np.rint(now + weight[..., None] * (wanted - now)).clip(0, 255).astype(np.uint8)
        pixels[y0:y1, x0:x1] = np.where(weight[..., None] > 0, mixed, now)
        done.append((box, weight))
    return done


def renewed(was: np.ndarray, face: Renewal, box: Box) -> np.ndarray:
    """Return the pixels (h, w, 3) of a box, float32 in levels, as they should be within the crop; `was` are those of the picture."""
    own, drawn = (unwarp(part, face.matrix, box) for part in (face.seen.astype(np.float32), levelled(face)))
    kept = float(smoothstep((face.fine - FINER[0]) / (FINER[1] - FINER[0])))
    amount = 1 + kept * (mended(face) - 1)
    change = amount * (drawn + kept * cored(was - own, grain(was)) - was)
    if grey(face.seen):
        change = np.repeat((change @ LUMA)[..., None], 3, axis=-1)
    if not face.colour:
        return was + change
    colours = unwarp(face.restored.astype(np.float32), face.matrix, box)
    return ((was + change) @ LUMA)[..., None] + colours - (colours @ LUMA)[..., None]


def levelled(face: Renewal) -> np.ndarray:
    """Return the restored crop with the broad light and colour of the photograph, which wear does not change."""
    change = face.restored.astype(np.float32) - face.seen
    return face.restored - cv2.GaussianBlur(change, (0, 0), BROAD * len(face.seen), borderType=cv2.BORDER_REFLECT)


def grey(picture: np.ndarray) -> bool:
    """Whether a picture has one tone only, as `transfer` has it."""
    pixels = picture.astype(np.float32)
    return bool((pixels - (pixels @ LUMA)[..., None]).std((0, 1)).mean() < GREY)


def mended(face: Renewal) -> float:
    """Say from 0 to 1 how much there was to mend: by the change of light within the face."""
    change = (levelled(face) - face.seen) @ LUMA
    size = float(np.sqrt((middle(change) ** 2).mean()))
    return float(smoothstep((size - MENDED[0]) / (MENDED[1] - MENDED[0])))


def grain(pixels: np.ndarray) -> float:
    """Estimate the noise of pixels (h, w, 3), in levels, by the median of the finest diagonal differences (Donoho, Johnstone 1994).

    Most of a face is smooth, so that its own detail hardly counts.
    """
    luma = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2] @ LUMA
    if luma.size == 0:
        return 0.0
    diagonal = luma[::2, ::2] - luma[1::2, ::2] - luma[::2, 1::2] + luma[1::2, 1::2]
    return float(np.median(np.abs(diagonal))) / 2 / 0.6745


def middle(crop: np.ndarray) -> np.ndarray:
    """Return the inner half of a crop, where the face is."""
    quarter = len(crop) // 4
    return crop[quarter : len(crop) - quarter, quarter : len(crop) - quarter]


def cored(detail: np.ndarray, noise: float) -> np.ndarray:
    """Shrink detail (h, w, 3) towards 0 by GRAIN times the noise."""
    return np.sign(detail) * np.maximum(np.abs(detail) - GRAIN * noise, 0) if noise else detail


def enlarged(matrix: np.ndarray, scale: int) -> np.ndarray:
    """Return the matrix from a picture that was made `scale` times larger to the crop that `matrix` leads to."""
    return fit.compose(matrix, fit.between_sizes(scale, 1))

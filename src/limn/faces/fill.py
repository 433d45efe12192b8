"""Filling a hole in a photograph by what a network paints at its own, smaller resolution.

The network is asked for a little more than the hole: where the photograph is known there, its colours are compared with the painting's,
and the difference is spread over the hole as a smooth membrane (the homogeneous part of Pérez, Gangnet, Blake: Poisson Image Editing.
SIGGRAPH 2003). So the painting keeps its gradients and meets the photograph without a seam; what is known is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from limn.faces import fit, templates
from limn.faces.align import warp
from limn.faces.face import Face
from limn.faces.paste import region, unwarp
from limn.faces.transfer import GREY

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]  # crop (h, w, 3) uint8, hole (h, w) 0 or 1 -> painting (h, w, 3), levels of 255
OVERLAP = 2  # pixels of the network by which its hole is larger than the photograph's
CONTEXT = 1.0  # how far a whole-picture network sees beyond the hole, in sides of it, in every direction
LEAST, MOST = 256, 512  # pixels a side of the photograph that such a network sees at least, and of its own picture at most


@dataclass(frozen=True)
class View:
    """What a network sees of a photograph: a crop of `size` (width, height), where `matrix` (2, 3) takes photo pixels to its pixels."""

    matrix: np.ndarray
    size: tuple[int, int]

    def seen(self, picture: np.ndarray) -> np.ndarray:
        """Return the crop of a picture (H, W) or (H, W, C); beyond the photo's borders it is mirrored."""
        return warp(picture, self.matrix, self.size)

    def placed(self, picture: np.ndarray, photo: tuple[int, int]) -> np.ndarray:
        """Return what a crop (h, w) shows, in place in a photo of (width, height): (H, W) float32, 0 beyond the crop."""
        x0, y0, x1, y1 = box = region(self.matrix, self.size, photo)
        found = np.zeros((photo[1], photo[0]), np.float32)
        if x1 > x0 and y1 > y0:
            found[y0:y1, x0:x1] = unwarp(picture.astype(np.float32), self.matrix, box, beyond=False)
        return found

    def covers(self, photo: tuple[int, int]) -> np.ndarray:
        """Return which pixels (H, W) of a photo of (width, height) it shows whole."""
        return self.placed(np.ones(self.size[::-1]), photo) > 0.999


def of_face(face: Face, template: str, size: int) -> View:
    """Return the aligned crop of a face."""
    return View(templates.matrix(template, face, size), (size, size))


def about(hole: np.ndarray, multiple: int) -> View:
    """Return a part of the photo about a hole (H, W), made smaller where it is large; its sides are multiples of `multiple`."""
    along, across = window(hole)
    lengths = across.stop - across.start, along.stop - along.start
    scale = min(1.0, MOST / max(lengths))
    sides = [max(multiple, -(-round(length * scale) // multiple) * multiple) for length in lengths]
    shift = np.array([[1.0, 0.0, -across.start], [0.0, 1.0, -along.start]])
    shrink = np.array([[scale, 0.0, (scale - 1) / 2], [0.0, scale, (scale - 1) / 2]])
    return View(fit.compose(shrink, shift), (sides[0], sides[1]))


def painted(pixels: np.ndarray, hole: np.ndarray, view: View, paint: Paint, inside: np.ndarray | None = None) -> np.ndarray:
    """Return pixels (H, W, 3) uint8 with the hole (H, W) filled by a network, or with what of it is `inside`; all others are the same."""
    touched = view.seen(hole.astype(np.float32)) > 0.01
    wide = cv2.dilate(touched.astype(np.uint8), np.ones((2 * OVERLAP + 1,) * 2, np.uint8))
    crop = view.seen(pixels)
    painting = in_its_tone(paint(crop, wide).astype(np.float32), crop)
    x0, y0, x1, y1 = box = region(view.matrix, view.size, (pixels.shape[1], pixels.shape[0]))
    shown = unwarp(painting, view.matrix, box)
    near = cv2.dilate(hole[y0:y1, x0:x1].astype(np.uint8), np.ones((3, 3)))
    known = np.clip(unwarp(wide.astype(np.float32), view.matrix, box), 0, 1) * (1 - near)  # where photo and painting can be compared
    here = pixels[y0:y1, x0:x1].astype(np.float32)
    corrected = shown + spread(here - shown, known)
    result = pixels.copy()
    within = (hole if inside is None else inside)[y0:y1, x0:x1]
    result[y0:y1, x0:x1][within] = np.rint(corrected[within]).clip(0, 255).astype(np.uint8)
    return result


def in_its_tone(painting: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Return a painting (h, w, 3) without colours where the photo has but one tone; the membrane then gives it that."""
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    tint = crop - (crop @ luma)[..., None]
    return np.repeat((painting @ luma)[..., None], 3, -1) if tint.std((0, 1)).mean() < GREY else painting


def spread_into(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, 3) uint8 whose hole (H, W) takes on the colours around it, smoothly, without any network."""
    rows, columns = window(hole)
    part, known = pixels[rows, columns], ~hole[rows, columns]
    smooth = spread(part.astype(np.float32), known.astype(np.float32))
    result = pixels.copy()
    result[rows, columns][~known] = np.rint(smooth[~known]).clip(0, 255).astype(np.uint8)
    return result


def spread(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return (H, W, C) float32 that is `values` where the weight (H, W) is 1 and goes smoothly between them elsewhere.

    Averages of ever coarser neighbourhoods fill what finer ones leave open (pull-push; Gortler et al., The Lumigraph, SIGGRAPH 1996).
    """
    values, weight = values.astype(np.float32), weight.astype(np.float32)
    if min(weight.shape) < 2 or weight.min() >= 1:
        mean = (values * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6)
        return values * weight[..., None] + mean * (1 - weight[..., None])
    total = cv2.pyrDown(weight)
    sums = cv2.pyrDown(values * weight[..., None]).reshape(*total.shape, -1)  # OpenCV drops the axis of a single channel
    coarse = spread(sums / np.maximum(total, 1e-6)[..., None], np.minimum(total * 4, 1))
    raised = cv2.pyrUp(coarse, dstsize=weight.shape[::-1]).reshape(values.shape)
    return values * weight[..., None] + raised * (1 - weight[..., None])


def window(hole: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of a photo that lie about a hole (H, W): CONTEXT beyond it, and at least LEAST pixels."""

    def widened(found: np.ndarray, side: int) -> slice:
        low, high = int(found[0]), int(found[-1]) + 1
        more = max(CONTEXT * (high - low), (LEAST - (high - low)) / 2)
        return slice(max(0, int(low - more)), min(side, int(high + more + 0.5)))

    return widened(np.flatnonzero(hole.any(1)), hole.shape[0]), widened(np.flatnonzero(hole.any(0)), hole.shape[1])

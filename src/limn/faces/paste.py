"""Putting an aligned crop back into the image it came from, under a soft mask, at the image's own resolution."""

from __future__ import annotations

import numpy as np
from PIL import Image

from limn.errors import InputError
from limn.faces import fit
from limn.faces.align import warp

Box = tuple[int, int, int, int]  # x0, y0, x1, y1, the last column and row outside


def region(matrix: np.ndarray, crop: tuple[int, int], image: tuple[int, int]) -> Box:
    """Return the box of an image of (width, height) that a crop of (width, height) can reach; empty where it lies outside."""
    width, height = crop
    edges = np.array([(-1, -1), (width, -1), (width, height), (-1, height)])
    corners = fit.apply(fit.invert(matrix), edges)
    low = np.clip(np.floor(corners.min(0)).astype(int), 0, image)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 1, low, image)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def unwarp(crop: np.ndarray, matrix: np.ndarray, box: Box, beyond: bool = True) -> np.ndarray:
    """Return what a crop (h, w) or (h, w, C) shows of the image inside ``box``: the inverse of `warp`.

    Beyond the crop its picture is mirrored, or black where ``beyond`` is false (masks).
    """
    x0, y0, x1, y1 = box
    shift = np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]])
    back = fit.compose(shift, fit.invert(matrix))
    return warp(crop, back, (x1 - x0, y1 - y0), "reflect" if beyond else (0, 0, 0))


def paste(photo: Image.Image, crop: Image.Image, matrix: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Return the RGB photo with the crop in place under ``mask`` (h, w) in [0, 1], of the crop's size; ``matrix`` as from `align`.

    Where the mask is 0 the photo's pixels are kept bit for bit. Raises InputError where mask and crop differ in size.
    """
    if mask.shape != (crop.height, crop.width):
        raise InputError(f"the mask is {mask.shape[1]} x {mask.shape[0]}, the crop {crop.width} x {crop.height}: they must be alike")
    result = np.array(photo.convert("RGB"))
    box = region(matrix, crop.size, photo.size)
    x0, y0, x1, y1 = box
    if x1 > x0 and y1 > y0:
        weight = np.clip(unwarp(np.asarray(mask, np.float32), matrix, box, beyond=False), 0, 1)[..., None]
        shown = unwarp(np.asarray(crop.convert("RGB")), matrix, box).astype(np.float32)
        under = result[y0:y1, x0:x1].astype(np.float32)
        result[y0:y1, x0:x1] = np.rint(under + weight * (shown - under)).astype(np.uint8)
    return Image.fromarray(result)


def feathered(size: int, border: float = 0.1) -> np.ndarray:
    """Return a square mask (size, size) float32: 1 inside, falling smoothly to 0 over ``border`` of the side at each edge."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) / max(size * border, 1e-6)
    ramp = np.clip(distance, 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return np.outer(smooth, smooth).astype(np.float32)

"""Cutting a face out of an image, turned and scaled as a template asks, without aliasing."""

from __future__ import annotations

from math import ceil

import cv2
import numpy as np
from PIL import Image

from limn.errors import InputError
from limn.faces import fit
from limn.faces.face import Face
from limn.faces.templates import Border, matrix, template

_LARGEST = 4096  # side of the oversampled crop, pixels: 50 MB


def align(image: Image.Image, face: Face | np.ndarray, template_name: str = "ffhq", size: int = 256) -> tuple[Image.Image, np.ndarray]:
    """Return the aligned RGB crop of side ``size`` and the (2, 3) matrix from image pixels to its pixels.

    ``face`` is a Face or its (5, 2) or (68, 2) points. What lies beyond the image is mirrored or filled, as the template says.
    Raises InputError for an unknown template, FaceError where the face lacks what the template needs.
    """
    if size < 1:
        raise InputError(f"a crop needs a side of at least 1 pixel, not {size}")
    found = matrix(template_name, face, size)
    crop = warp(np.asarray(image.convert("RGB")), found, (size, size), template(template_name).border)
    return Image.fromarray(crop), found


def warp(pixels: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: Border = "reflect") -> np.ndarray:
    """Return ``pixels`` (H, W) or (H, W, C) mapped by a (2, 3) matrix into (width, height).

    Bicubic where it grows, the mean of the area where it shrinks. Beyond its borders the image is mirrored, or of the RGB colour given.
    """
    width, height = size
    times = min(max(ceil(1 / max(fit.scale_of(matrix), 1e-6)), 1), max(_LARGEST // max(size), 1))
    edge = cv2.BORDER_REFLECT if border == "reflect" else cv2.BORDER_CONSTANT
    colour = (0.0, 0.0, 0.0) if border == "reflect" else tuple(float(value) for value in border)
    if times == 1:
        return cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=edge, borderValue=colour)
    fine = fit.compose(fit.between_sizes(1, times), matrix)
    large = cv2.warpAffine(pixels, fine, (width * times, height * times), flags=cv2.INTER_LINEAR, borderMode=edge, borderValue=colour)
    return cv2.resize(large, size, interpolation=cv2.INTER_AREA)

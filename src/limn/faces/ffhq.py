"""The square of FFHQ, and its aligned crop exactly as the published script makes it.

Karras, Laine, Aila: A Style-Based Generator Architecture for Generative Adversarial Networks. CVPR 2019, arXiv 1812.04948,
appendix A. The published script takes dlib's 68 points; the same formula on the five points of a detector gives the square of
our own data and networks (checked: it reproduces the squares of portraits made elsewhere from five points within 0.3 pixels of 128).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from limn.faces.face import five_points


class Square(NamedTuple):
    """An oriented square: its centre and the half-side vectors of its own x and y axes, in image pixels."""

    centre: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def quad(self) -> np.ndarray:
        """Return the corners (4, 2): upper left, lower left, lower right, upper right."""
        c, x, y = self
        return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])

    def side(self) -> float:
        """Return the length of a side in pixels."""
        return float(2 * np.hypot(*self.x))

    def matrix(self, size: int) -> np.ndarray:
        """Return the (2, 3) matrix from image pixels to those of a crop of side ``size``.

        As in the portraits that the networks of this package learn from, the corner lies on the centre of the first of 128
        pixels, half a pixel inside the published script's, and at every size at the same place of the picture.
        """
        rows = np.stack([self.x, self.y]) * (size / self.side() ** 2 * 2)
        return np.concatenate([rows, (size / 2 - 0.5 + size / 256 - rows @ self.centre)[:, None]], 1)


def square(points: np.ndarray, level: bool = True) -> Square:
    """Return FFHQ's square about a face from its (5, 2) or (68, 2) points; with ``level`` false it stays upright in the picture.

    The x axis is the mean of the eye line and the line at right angles to eyes-to-mouth; the half side is the larger of twice the
    distance of the eyes and 1.8 times that of eyes and mouth; the centre lies a tenth of the way from the eyes to the mouth.
    """
    left, right, _, mouth_left, mouth_right = np.asarray(five_points(points), np.float64)
    eyes, across = (left + right) / 2, right - left
    down = (mouth_left + mouth_right) / 2 - eyes
    x = across + np.array([down[1], -down[0]]) if level else np.array([1.0, 0.0])
    x *= max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*x)
    return Square(eyes + 0.1 * down, x, np.array([-x[1], x[0]]))


class Intermediate(NamedTuple):
    """What the published script hands to the final transform: the prepared picture and the square's corners in it."""

    image: Image.Image
    quad: np.ndarray  # (4, 2), without the half pixel that PIL's corners need


def prepare(image: Image.Image, points: np.ndarray, size: int, padding: bool = True, level: bool = True) -> Intermediate:
    """Shrink, crop and pad a picture about a face as the published script does before its transform."""
    found = square(points, level)
    quad, side = found.quad(), found.side()
    shrink = int(np.floor(side / size * 0.5))
    if shrink > 1:
        small = (int(np.rint(image.width / shrink)), int(np.rint(image.height / shrink)))
        image, quad, side = image.resize(small, Image.Resampling.LANCZOS), quad / shrink, side / shrink
    border = max(int(np.rint(side * 0.1)), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    limit = np.array(image.size)
    start, stop = np.maximum(low - border, 0), np.minimum(high + border, limit)
    if (stop - start < limit).any():
        image, quad = image.crop((*start, *stop)), quad - start
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    outside = np.concatenate([np.maximum(border - low, 0), np.maximum(high - image.size + border, 0)])  # left, top, right, bottom
    if padding and outside.max() > border - 4:
        outside = np.maximum(outside, int(np.rint(side * 0.3)))
        image, quad = _pad(image, outside, side * 0.02), quad + outside[:2]
    return Intermediate(image, quad)


def _pad(image: Image.Image, outside: np.ndarray, sigma: float) -> Image.Image:
    """Reflect the picture beyond its borders, more and more blurred and faded to the median colour with the distance."""
    left, top, right, bottom = outside
    pixels = np.pad(np.asarray(image, np.float32), ((top, bottom), (left, right), (0, 0)), "reflect")
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    distance = np.maximum(
        1 - np.minimum(x / left, (width - 1 - x) / right),
        1 - np.minimum(y / top, (height - 1 - y) / bottom),
    )[..., None].astype(np.float32)
    blurred = _gaussian(pixels, sigma)
    pixels += (blurred - pixels) * np.clip(distance * 3 + 1, 0, 1)
    pixels += (np.median(pixels, (0, 1)) - pixels) * np.clip(distance, 0, 1)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _gaussian(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian cut at four standard deviations, borders mirrored with the edge pixel repeated."""
    radius = int(4 * sigma + 0.5)
    return cv2.GaussianBlur(pixels, (2 * radius + 1, 2 * radius + 1), sigma, borderType=cv2.BORDER_REFLECT)


def published_crop(
    image: Image.Image, points: np.ndarray, size: int = 1024, transform_size: int = 4096, padding: bool = True, level: bool = True
) -> Image.Image:
    """Return the crop that the published FFHQ script makes; pSp, e4e and ReStyle call it with 256 and 256."""
    ready, quad = prepare(image.convert("RGB"), points, size, padding, level)
    corners = tuple((quad + 0.5).ravel())
    crop = ready.transform((transform_size, transform_size), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return crop if transform_size <= size else crop.resize((size, size), Image.Resampling.LANCZOS)

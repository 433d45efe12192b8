"""Blending a face into a picture: soft masks, pyramids of bands, and gradients (Poisson).

Burt, Adelson: A Multiresolution Spline. ACM TOG 1983. Soft erosion as SimSwap makes it (Chen et al., ACM MM 2020, arXiv 2106.06340).
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray


def soft_erosion(mask: Array, size: int = 17, threshold: float = 0.9, iterations: int = 7) -> tuple[Array, Array, Array]:
    """Shrink masks (N, H, W) in [0, 1] by a cone-shaped kernel, again and again; return the soft ones, where they are full, and the kernel.

    What stays above ``threshold`` is 1, the rest is scaled to reach just below it. Beyond the frame lies nothing: it erodes there too.
    """
    steps = np.arange(size, dtype=np.float32) - size // 2
    far = np.hypot(steps[:, None], steps[None])
    kernel = ((far.max() - far) / (far.max() - far).sum()).astype(np.float32)
    soft, full = np.array(mask, np.float32), np.zeros(np.shape(mask), bool)
    for index, x in enumerate(soft):
        for _ in range(iterations - 1):
            x = np.minimum(x, cv2.filter2D(x, -1, kernel, borderType=cv2.BORDER_CONSTANT))
        soft[index] = cv2.filter2D(x, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    full = soft >= threshold
    rest = soft[~full].max() if (~full).any() else 1.0
    return np.where(full, 1, soft / max(rest, 1e-12)).astype(np.float32), full, kernel


def feather(mask: Array, size: int) -> Array:
    """Blur a mask by a Gaussian kernel of an odd ``size``, whose width OpenCV derives from it."""
    return cv2.GaussianBlur(mask, (size, size), 0)


def bands(image: Array, levels: int) -> list[Array]:
    """Return the Laplacian pyramid of a float image: ``levels`` differences, finest first, and what is left."""
    parts = []
    for _ in range(levels):
        small = cv2.pyrDown(image)
        parts.append(image - cv2.pyrUp(small, dstsize=image.shape[1::-1]))
        image = small
    return [*parts, image]


def blend_bands(front: Array, back: Array, mask: Array, levels: int = 4) -> Array:
    """Blend float images (H, W, C) under a mask (H, W) band by band: coarse differences over a wide seam, fine ones over a narrow."""
    masks = [np.asarray(mask, np.float32)]
    for _ in range(levels):
        masks.append(cv2.pyrDown(masks[-1]))
    layers = [f * m[..., None] + b * (1 - m[..., None]) for f, b, m in zip(bands(front, levels), bands(back, levels), masks, strict=True)]
    result = layers.pop()
    while layers:
        fine = layers.pop()
        result = cv2.pyrUp(result, dstsize=fine.shape[1::-1]) + fine
    return result

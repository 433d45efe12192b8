"""Blending a face into a picture: soft masks, pyramids of bands, and gradients (Poisson).

Burt, Adelson: A Multiresolution Spline. ACM TOG 1983. Pérez, Gangnet, Blake: Poisson Image Editing. SIGGRAPH 2003. Soft erosion as
SimSwap makes it (Chen et al., ACM MM 2020, arXiv 2106.06340).
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from limn.errors import InputError

Array = np.ndarray
Guidance = Literal["front", "larger", "mean"]
NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def soft_erosion(mask: Array, size: int = 17, threshold: float = 0.9, iterations: int = 7) -> tuple[Array, Array, Array]:
    """Shrink masks (N, H, W) in [0, 1] by a cone-shaped kernel, again and again; return the soft ones, where they are full, and the kernel.

    What stays above ``threshold`` is 1, the rest is scaled to reach just below it. Beyond the frame lies nothing: it erodes there too.
    """
    steps = np.arange(size, dtype=np.float32) - size // 2
    far = np.hypot(steps[:, None], steps[None])
    kernel = ((far.max() - far) / (far.max() - far).sum()).astype(np.float32)
    soft = np.array(mask, np.float32)
    for index, given in enumerate(soft):
        x = given
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
    masks: list[Array] = [np.asarray(mask, np.float32)]
    for _ in range(levels):
        masks.append(cv2.pyrDown(masks[-1]))
    layers = [f * m[..., None] + b * (1 - m[..., None]) for f, b, m in zip(bands(front, levels), bands(back, levels), masks, strict=True)]
    result = layers.pop()
    while layers:
        fine = layers.pop()
        result = cv2.pyrUp(result, dstsize=fine.shape[1::-1]) + fine
    return result


def seamless(front: Array, back: Array, mask: Array, centre: tuple[int, int], flag: int = cv2.NORMAL_CLONE) -> Array:
    """Return `cv2.seamlessClone` of uint8 pictures without its side effect on the mask; ``centre`` is x, y in ``back``.

    It solves Poisson's equation over the whole box of the mask (Pérez et al., Poisson Image Editing, SIGGRAPH 2003), so that colours around
    the object inside the box may shift; `poisson` solves it inside the mask alone.
    """
    try:
        return cv2.seamlessClone(front, back, np.array(mask), centre, flag)
    except cv2.error as error:
        raise InputError(
            f"the mask about {centre} does not lie inside a picture of {back.shape[1]}x{back.shape[0]}: shrink or move it"
        ) from error


def poisson(front: Array, back: Array, mask: Array, corner: tuple[int, int] = (0, 0), guidance: Guidance = "front") -> Array:
    """Return ``back`` (H, W, C) as float, made of the gradients of ``front`` (h, w, C) under ``mask`` (h, w; 128 or more of 255).

    ``corner`` is the row and column of the mask's origin in ``back``. The unknowns are the pixels under the mask (its frame left out); all
    others are as they were. Guidance, for each neighbour: the difference in ``front``, the larger one, or the mean. Clipped to 0..255.
    """
    inside = np.asarray(mask) >= 128
    inside[[0, -1]] = inside[:, [0, -1]] = False
    rows, columns = np.nonzero(inside)
    result = np.array(back, np.float64)
    if len(rows):
        found = solve(front, back, inside, corner, guidance)
        result[rows + corner[0], columns + corner[1]] = np.clip(found, 0, 255)
    return result


def solve(front: Array, back: Array, inside: Array, corner: tuple[int, int], guidance: Guidance, precision: float = 1e-9) -> Array:
    """Return the solution (P, C) of the masked equation, unclipped, at the pixels of ``inside`` (h, w) in the order of rows.

    By conjugate gradients, until the residual has shrunk to ``precision``.
    """
    height, width = inside.shape
    f = np.asarray(front, np.float64)[:height, :width]
    b = np.asarray(back, np.float64)[corner[0] : corner[0] + height, corner[1] : corner[1] + width]
    weight, wanted = inside[..., None].astype(np.float64), np.zeros(f.shape)
    for shift in NEIGHBOURS:
        mine, theirs = f - np.roll(f, shift, (0, 1)), b - np.roll(b, shift, (0, 1))
        wanted += {"front": mine, "larger": np.where(np.abs(mine) >= np.abs(theirs), mine, theirs), "mean": (mine + theirs) / 2}[guidance]
        wanted += np.roll(b * (1 - weight), shift, (0, 1))
    wanted *= weight

    def laplacian(x: Array) -> Array:
        return (4 * x - sum(np.roll(x, shift, (0, 1)) for shift in NEIGHBOURS)) * weight

    x = b * weight
    residual = wanted - laplacian(x)
    direction, size = residual, (residual**2).sum()
    enough = precision**2 * max(float((wanted**2).sum()), 1e-30)
    for _ in range(10 * (height + width)):
        if size <= enough:
            break
        moved = laplacian(direction)
        step = size / (direction * moved).sum()
        x, residual = x + step * direction, residual - step * moved
        before, size = size, (residual**2).sum()
        direction = residual + size / before * direction
    return x[inside]

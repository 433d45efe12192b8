"""Crops and paste-backs exactly as published tools make them, for systems whose results depend on it; arrays uint8 (H, W, 3).

insightface's norm_crop and INSwapper, facexlib's FaceRestoreHelper (GFPGAN, CodeFormer, RestoreFormer), facefusion's paste_back.
Our own `align` and `paste` do the same jobs without aliasing and without these fixed sizes.
"""

from __future__ import annotations

import cv2
import numpy as np

from limn.faces import fit
from limn.faces.templates import FACEXLIB_512, arcface

Array = np.ndarray
BLACK = (0.0, 0.0, 0.0)
FACEXLIB_GREY = (135.0, 133.0, 132.0)  # BGR, beyond the image's border


def warp_exactly(image: Array, matrix: Array, size: tuple[int, int], border: tuple[float, ...] | None = BLACK) -> Array:
    """Return ``image`` (H, W) or (H, W, C) mapped by a (2, 3) matrix into (width, height), bilinear in float32.

    Positions are not rounded: so does OpenCV 5, while OpenCV 4 rounds them to 1/32 pixel. ``border`` None repeats the edge pixels.
    """
    inverse = fit.invert(np.asarray(matrix, np.float64)).astype(np.float32)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    at_x, at_y = (np.clip(row[0] * x + row[1] * y + row[2], -1, side) for row, side in zip(inverse, image.shape[1::-1], strict=True))
    left, top = np.floor(at_x), np.floor(at_y)
    shape = (*at_x.shape, *(1,) * (image.ndim - 2))
    right_share, bottom_share = (at_x - left).reshape(shape), (at_y - top).reshape(shape)
    padded = _framed(image, border)
    columns, rows = left.astype(int) + 1, top.astype(int) + 1
    upper = padded[rows, columns] * (1 - right_share) + padded[rows, columns + 1] * right_share
    lower = padded[rows + 1, columns] * (1 - right_share) + padded[rows + 1, columns + 1] * right_share
    mixed = upper * (1 - bottom_share) + lower * bottom_share
    return np.rint(mixed).astype(np.uint8) if image.dtype == np.uint8 else mixed.astype(image.dtype)


def _framed(image: Array, border: tuple[float, ...] | None) -> Array:
    """Return the image in float32 with a frame: one pixel above and left, two below and right."""
    frame = ((1, 2), (1, 2), *((0, 0),) * (image.ndim - 2))
    padded = np.pad(image.astype(np.float32), frame, "edge")
    if border is not None:
        colour = border[: image.shape[2]] if image.ndim == 3 else border[0]
        padded[[0, -2, -1]] = colour
        padded[:, [0, -2, -1]] = colour
    return padded


def _box(side: int) -> Array:
    return np.ones((side, side), np.uint8)


def insightface_crop(image: Array, points: Array, size: int = 112) -> tuple[Array, Array]:
    """Return insightface's bilinear crop about five points, black beyond the border, and its (2, 3) matrix."""
    matrix = fit.umeyama(points, arcface(size))
    return warp_exactly(image, matrix, (size, size)), matrix


def insightface_paste(image: Array, face: Array, matrix: Array) -> Array:
    """Return ``image`` with a swapped face (S, S, 3) in place as INSwapper pastes.

    The mask is eroded by a tenth of the face's size and blurred by a twentieth.
    """
    height, width = image.shape[:2]
    back = fit.invert(matrix)
    shown = warp_exactly(face, back, (width, height))
    white = warp_exactly(np.full(face.shape[:2], 255.0, np.float32), back, (width, height))
    white[white > 20] = 255
    rows, columns = np.where(white == 255)
    size = int(np.sqrt((rows.max() - rows.min()) * (columns.max() - columns.min()))) if len(rows) else 0
    mask = cv2.erode(white, _box(max(size // 10, 10)), iterations=1)
    blur = 2 * max(size // 20, 5) + 1
    mask = (cv2.GaussianBlur(mask, (blur, blur), 0) / 255)[..., None]
    return (mask * shown + (1 - mask) * image.astype(np.float32)).astype(np.uint8)


def inswapper_latent(embedding: Array, emap: Array) -> Array:
    """Return INSwapper's source code (1, 512): the unit embedding times the file's last initialiser, of unit length."""
    code = (embedding / np.linalg.norm(embedding)).reshape(1, -1) @ emap
    return code / np.linalg.norm(code)


def facexlib_matrix(points: Array, size: int = 512) -> Array:
    """Return facexlib's (2, 3) matrix from image to crop of side ``size``, by least median of squares over five points."""
    return fit.similarity_median(points, FACEXLIB_512 * (size / 512))


def facexlib_inverse(matrix: Array, factor: float = 1.0) -> Array:
    """Return the (2, 3) matrix from a facexlib crop into the image enlarged by ``factor``."""
    return fit.invert(matrix) * factor


def facexlib_crop(image: Array, points: Array, size: int = 512) -> Array:
    """Return facexlib's crop of a BGR image: bilinear, grey beyond the border."""
    return warp_exactly(image, facexlib_matrix(points, size), (size, size), FACEXLIB_GREY)


def facexlib_paste(image: Array, faces: list[Array], matrices: list[Array], factor: int = 1) -> Array:
    """Return the image enlarged by ``factor`` (Lanczos) with restored faces (S, S, 3) in place, as FaceRestoreHelper without its parser."""
    height, width = image.shape[0] * factor, image.shape[1] * factor
    result = cv2.resize(image, (width, height), interpolation=cv2.INTER_LANCZOS4)
    for face, matrix in zip(faces, matrices, strict=True):
        inverse = facexlib_inverse(matrix, factor)
        if factor > 1:
            inverse[:, 2] += 0.5 * factor
        shown = warp_exactly(face, inverse, (width, height))
        mask = warp_exactly(np.ones(face.shape[:2], np.float32), inverse, (width, height))
        inside = cv2.erode(mask, _box(2 * factor))
        edge = int(float(inside.sum()) ** 0.5) // 20
        centre = cv2.erode(inside, _box(edge * 2))
        soft = cv2.GaussianBlur(centre, (edge * 2 + 1, edge * 2 + 1), 0)[..., None]
        result = soft * (inside[..., None] * shown) + (1 - soft) * result
    return result.astype(np.uint8)


def facefusion_box_mask(size: tuple[int, int], blur: float = 0.3, padding: tuple[float, ...] = (0, 0, 0, 0)) -> Array:
    """Return facefusion's box mask (height, width) for a crop of (width, height); padding top, right, bottom, left in percent."""
    width, height = size
    amount = int(width * 0.5 * blur)
    area = max(amount // 2, 1)
    top, right, bottom, left = padding
    mask = np.ones((height, width), np.float32)
    mask[: max(area, int(height * top / 100))] = 0
    mask[-max(area, int(height * bottom / 100)) :] = 0
    mask[:, : max(area, int(width * left / 100))] = 0
    mask[:, -max(area, int(width * right / 100)) :] = 0
    return cv2.GaussianBlur(mask, (0, 0), amount * 0.25) if amount > 0 else mask


def facefusion_area(shape: tuple[int, int], size: tuple[int, int], matrix: Array) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 of the part of an image of (height, width) that a crop of (width, height) covers."""
    corners = fit.apply(fit.invert(matrix), np.array([(0, 0), (size[0], 0), (size[0], size[1]), (0, size[1])]))
    corners = np.rint(corners).astype(int)  # theirs are integers before and after the transform
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    height, width = shape
    return max(0, min(x0, width)), max(0, min(y0, height)), max(0, min(x1, width)), max(0, min(y1, height))


def facefusion_paste(image: Array, face: Array, mask: Array, matrix: Array) -> Array:
    """Return the image with a crop in place under a mask, as facefusion pastes: edges replicated, so no dark seam."""
    x0, y0, x1, y1 = facefusion_area((image.shape[0], image.shape[1]), (face.shape[1], face.shape[0]), matrix)
    back = fit.invert(matrix)
    back[:, 2] -= (x0, y0)
    size = (x1 - x0, y1 - y0)
    weight = np.clip(warp_exactly(mask, back, size), 0, 1)[..., None]
    shown = warp_exactly(face, back, size, None)
    result = image.copy()
    result[y0:y1, x0:x1] = (image[y0:y1, x0:x1] * (1 - weight) + shown * weight).astype(image.dtype)
    return result


def facefusion_balance(source: Array, target: Array, slider: float) -> Array:
    """Return facefusion's mix of a source code and the unit target embedding; the slider 0..1 weighs the target by 0.35..-0.35."""
    weight = 0.35 - 0.7 * slider
    return source * (1 - weight) + target / np.linalg.norm(target) * weight


def pixel_boost_tiles(image: Array, model_size: int) -> Array:
    """Split (S, S, C) into the interleaved tiles (n * n, model_size, model_size, C) that a small model sees one by one."""
    total = image.shape[0] // model_size
    tiles = image.reshape(model_size, total, model_size, total, -1)
    return tiles.transpose(1, 3, 0, 2, 4).reshape(total**2, model_size, model_size, -1)

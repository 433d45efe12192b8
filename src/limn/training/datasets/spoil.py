"""What happens to photographs on their way: light, colour, blur, low resolution, noise, compression. Pictures are RGB uint8."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

GREY = np.array([0.299, 0.587, 0.114], np.float32)


def spoilt(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a random choice of all of them, in the order of a camera; about a fifth of the pictures stay as they are."""
    if rng.random() < 0.2:
        return picture
    picture = lit(picture, rng)
    if rng.random() < 0.25:
        picture = grey(picture, rng)
    if rng.random() < 0.25:
        picture = blurred(picture, rng)
    if rng.random() < 0.2:
        picture = softened(picture, rng)
    if rng.random() < 0.35:
        picture = noisy(picture, rng)
    return compressed(picture, rng) if rng.random() < 0.3 else picture


def lit(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change exposure, contrast and white balance; one in six is taken in low light."""
    gamma = np.exp(rng.normal(0, 0.3))
    gain = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.06, 3))
    if rng.random() < 1 / 6:
        gain = gain * rng.uniform(0.15, 0.5)
    shift = rng.normal(0, 12)
    ramp = np.linspace(0, 1, 256)[:, None]
    table = np.clip(255 * gain * ramp**gamma + shift, 0, 255).astype(np.uint8)
    return cv2.LUT(picture, table[None])


def grey(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take the colour away; one in three is toned as old prints are."""
    tone = np.array([1.06, 1.0, 0.86], np.float32) if rng.random() < 1 / 3 else np.ones(3, np.float32)
    plain = cv2.transform(picture, GREY[None])
    return np.clip(plain[..., None] * tone, 0, 255).astype(np.uint8)


def blurred(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by defocus, or by a motion in a line."""
    if rng.random() < 0.7:
        return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 2.0)))
    length, angle = int(rng.integers(3, 8)), rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    middle, reach = (length - 1) / 2, np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    ends = [tuple(int(v) for v in np.round(middle + side * reach)) for side in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return cv2.filter2D(picture, -1, kernel / kernel.sum())


def softened(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take away detail: scale down to a third or a half and up again."""
    height, width = picture.shape[:2]
    factor = rng.uniform(0.3, 0.7)
    small = cv2.resize(picture, (max(int(width * factor), 8), max(int(height * factor), 8)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC)


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add grain, coloured or grey, cut from a sheet of it."""
    height, width = picture.shape[:2]
    y, x = (int(rng.integers(0, 1024 - side)) for side in (height, width))
    grain = _grain()[y : y + height, x : x + width]
    grain = grain if rng.random() < 0.6 else grain[..., :1]
    return np.clip(picture + grain * np.float32(rng.uniform(2, 18)), 0, 255).astype(np.uint8)


def compressed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Go through JPEG of quality 15 to 85."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 86))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


@cache
def _grain() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1024, 1024, 3), np.float32)

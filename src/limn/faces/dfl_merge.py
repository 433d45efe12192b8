"""DeepFaceLab's merger: a predicted face put into the frame, with its masks, colour matching, blending and finish.

Perov et al.: DeepFaceLab. 2020, arXiv 2005.05535. Pictures are RGB (theirs are BGR), float32 in [0, 1] inside; masks are (H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from limn.errors import InputError
from limn.faces import colour, dfl, fit

Array = np.ndarray
Mode = Literal["overlay", "hist-match", "seamless", "seamless-hist-match", "raw-rgb", "raw-predict", "original"]
MASKS = ("full", "dst", "prd", "learned-dst", "prd*dst", "prd+dst", "xseg-prd", "xseg-dst", "xseg-prd*xseg-dst", "all")
COLOURS = ("none", "rct", "lct", "mkl", "mkl-m", "idt", "idt-m", "sot-m", "mix-m")
SEGMENTED = 256  # pixels at which XSeg looks at a face
FINE = 4  # times the network's size at which masks are worked on
FAINT = 1 / 255  # a mask below is none


@dataclass(frozen=True)
class Settings:
    """What the merger asks its user, with its defaults."""

    mode: Mode = "overlay"
    mask: int = 4  # of MASKS
    erode: int = 0  # pixels of the fine mask; negative: dilate
    blur: int = 0  # pixels of the fine mask
    colours: int = 1  # of COLOURS
    scale: float = 0.0  # percent by which the face is pasted larger
    threshold: float = 238.0  # of the histogram match
    masked_histogram: bool = True
    sharpen: int = 0  # 1 box, 2 Gaussian
    amount: float = 0.0  # of the sharpening; negative blurs
    denoise: int = 0  # of the frame, per cent
    degrade: float = 0.0  # of the frame's resolution, per cent
    face_type: str = "full_face"


@dataclass(frozen=True)
class Places:
    """Where the face lies: (2, 3) matrices from the frame to the crop, to the crop as it is pasted, and to the fine mask."""

    size: tuple[int, int]  # width, height of the frame
    side: int  # pixels of the network
    crop: Array
    paste: Array
    mask: Array

    def cut(self, frame: Array) -> Array:
        """Return the face of a frame."""
        return warp_cubic(frame, self.crop, (self.side, self.side))

    def back(self, picture: Array, matrix: Array) -> Array:
        """Return a crop in place in the frame, black around it."""
        return warp_cubic(picture, fit.invert(matrix), self.size)


@dataclass(frozen=True)
class Predicted:
    """What the network gave: the face, its mask, the mask of the face that was there."""

    face: Array
    mask: Array
    target_mask: Array


def merge(
    image: Array,
    points: Array,
    predict: Callable[[Array], tuple[Array, Array, Array]],
    side: int,
    settings: Settings = Settings(),
    segment: Callable[[Array], Array] | None = None,
    seed: int = 0,
) -> Array:
    """Return the frame (H, W, 4) uint8 with the face that `predict` makes of the crop in place, and the mask as its fourth channel.

    ``image`` (H, W, 3) uint8, ``points`` (68, 2); `segment` is XSeg, for the masks that name it: (256, 256, 3) -> (256, 256).
    """
    frame = image.astype(np.float32) / 255
    kind = settings.face_type
    matrices = [dfl.matrix(points, side, kind), *(dfl.matrix(points, s, kind, 1 + 0.01 * settings.scale) for s in (side, FINE * side))]
    places = Places((image.shape[1], image.shape[0]), side, *matrices)
    target = np.clip(places.cut(frame), 0, 1)
    found = Predicted(*(np.clip(np.asarray(each, np.float32), 0, 1) for each in predict(cv2.resize(target, (side, side)))))
    hull = np.clip(places.cut(dfl.hull_mask((image.shape[0], image.shape[1]), points)), 0, 1)
    fine = worked(chosen_mask(settings, found, hull, _segmented(settings, found, frame, points, segment)), side, settings)
    whole = np.clip(places.back(fine, places.mask), 0, 1)
    whole[whole < FAINT] = 0
    small = fine if fine.shape[0] == side else cv2.resize(fine, (side, side), interpolation=cv2.INTER_CUBIC)
    result, mask = _composed(frame, target, found.face, (whole, small), places, settings, seed)
    return (np.concatenate([result, mask[..., None]], -1) * 255).astype(np.uint8)


def warp_cubic(image: Array, matrix: Array, size: tuple[int, int]) -> Array:
    """Return ``image`` (H, W) or (H, W, C) mapped by a (2, 3) matrix into (width, height), bicubic (a = -0.75), black beyond the border.

    Positions are not rounded: so does OpenCV 5, while OpenCV 4 rounds them to 1/32 pixel. Only what the image reaches is computed.
    """
    result = np.zeros((size[1], size[0], *image.shape[2:]), np.float32)
    right_edge, lower_edge = image.shape[1] + 1, image.shape[0] + 1
    corners = fit.apply(matrix, np.array([(-2, -2), (right_edge, -2), (right_edge, lower_edge), (-2, lower_edge)]))
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, size)
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, size)
    if x1 <= x0 or y1 <= y0:
        return result
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    rows = fit.invert(matrix).astype(np.float32)
    at = [np.clip(row[0] * x + row[1] * y + row[2], -3, side + 2) for row, side in zip(rows, image.shape[1::-1], strict=True)]
    whole = [np.floor(each).astype(int) for each in at]
    padded = np.pad(image.astype(np.float32), ((4, 5), (4, 5), *((0, 0),) * (image.ndim - 2)))
    across, along = (_taps((a - w).reshape(*a.shape, *(1,) * (image.ndim - 2))) for a, w in zip(at, whole, strict=True))
    part = result[y0:y1, x0:x1]
    for down, weight in enumerate(along):
        part += weight * sum(share * padded[whole[1] + down + 3, whole[0] + right + 3] for right, share in enumerate(across))
    return result


def _taps(t: Array) -> list[Array]:
    """Return the weights of the four pixels about a position between the second and the third."""
    a = -0.75
    outer = [a * ((x - 5) * x + 8) * x - 4 * a for x in (t + 1, 2 - t)]
    inner = [((a + 2) * x - (a + 3)) * x * x + 1 for x in (t, 1 - t)]
    return [outer[0], inner[0], inner[1], outer[1]]


def _segmented(
    settings: Settings, found: Predicted, frame: Array, points: Array, segment: Callable[[Array], Array] | None
) -> tuple[Array, Array] | None:
    """Return XSeg's masks of the predicted and of the original face, where the settings name them."""
    if settings.mask < MASKS.index("xseg-prd"):
        return None
    if segment is None:
        raise InputError(f"the mask {MASKS[settings.mask]} needs a segmentation network: give one, or another mask")
    side = found.face.shape[0]
    matrix = dfl.matrix(points, SEGMENTED, settings.face_type)
    seen = cv2.resize(found.face, (SEGMENTED, SEGMENTED), interpolation=cv2.INTER_CUBIC)
    there = warp_cubic(frame, matrix, (SEGMENTED, SEGMENTED))
    masks = (np.reshape(segment(each), (SEGMENTED, SEGMENTED)) for each in (seen, there))
    one, other = (cv2.resize(mask, (side, side), interpolation=cv2.INTER_CUBIC) for mask in masks)
    return one, other


def chosen_mask(settings: Settings, found: Predicted, hull: Array, segmented: tuple[Array, Array] | None) -> Array:
    """Return the mask in the crop that the settings name."""
    one, other = (np.reshape(mask, hull.shape) for mask in (found.mask, found.target_mask))
    a, b = segmented or (one, other)
    made = (np.ones_like(hull), hull, one, other, one * other, np.clip(one + other, 0, 1), a, b, a * b, one * other * a * b)
    if not 0 <= settings.mask < len(made):
        raise InputError(f"there is no mask {settings.mask}: they count from 0 to {len(made) - 1}: {', '.join(MASKS)}")
    mask = np.array(made[settings.mask], np.float32)
    mask[mask < FAINT] = 0
    return mask


def worked(mask: Array, side: int, settings: Settings) -> Array:
    """Return the mask at FINE times the size, eroded, cleared at its border and blurred; the raw modes take it as it is."""
    mask = cv2.resize(mask, (FINE * side, FINE * side), interpolation=cv2.INTER_CUBIC)
    if settings.mode.startswith("raw"):
        return mask
    mask = np.pad(mask, side)
    if settings.erode:
        shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(settings.erode),) * 2)
        mask = cv2.erode(mask, shape) if settings.erode > 0 else cv2.dilate(mask, shape)
    edge = side + settings.blur // 2
    inside = np.zeros_like(mask)
    inside[edge:-edge, edge:-edge] = mask[edge:-edge, edge:-edge]
    if settings.blur > 0:
        odd = settings.blur + 1 - settings.blur % 2
        inside = cv2.GaussianBlur(inside, (odd, odd), 0)
    return np.clip(inside[side:-side, side:-side], 0, 1)


def _composed(
    frame: Array, target: Array, face: Array, masks: tuple[Array, Array], places: Places, settings: Settings, seed: int
) -> tuple[Array, Array]:
    """Return the frame with the face in it, and the mask of the frame; a mask of less than 4 pixels pastes nothing."""
    whole, small = masks
    if settings.mode == "original":
        return frame, whole
    if settings.mode == "raw-predict":
        return face, small
    if settings.mode == "raw-rgb":
        over = places.back(np.ones_like(face), places.paste)
        return np.clip(frame * (1 - over) + places.back(face, places.paste) * over, 0, 1), whole
    rows, columns = np.nonzero(whole >= 0.1)
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) < 4:
        return frame, whole
    seamless, area = settings.mode.startswith("seamless"), (small > 0).astype(np.float32)
    if not seamless:
        face = recoloured(face, target, area, settings.colours, seed)
    if settings.mode == "hist-match":
        face = _histogram(face, target, area, settings)
    shown = np.clip(places.back(face, places.paste), 0, 1)
    if seamless:
        shown = cloned(shown, frame, whole)
    result = frame * (1 - whole[..., None]) + shown * whole[..., None]
    return _finished(result, frame, target, area, whole, places, settings, seed), whole


def recoloured(face: Array, target: Array, area: Array, method: int, seed: int = 0) -> Array:
    """Give the face the colours of the target by the merger's number of a method; the `-m` ones see black outside the area."""
    rng, name = np.random.default_rng(seed), COLOURS[method]
    one, other = (x * area[..., None] for x in (face, target)) if name.endswith("-m") else (face, target)
    made: dict[str, Callable[[], Array]] = {
        "none": lambda: face,
        "rct": lambda: colour.reinhard(face, target, area, area),
        "lct": lambda: colour.linear(face, target),
        "mkl": lambda: colour.monge(one, other),
        "idt": lambda: colour.distribution(one, other, colour.rotations(20, rng)),
        "sot": lambda: colour.sliced(one, other, colour.directions(10, 30, rng)),
        "mix": lambda: colour.mixed(one, other, colour.directions(10, 5, rng)),
    }
    return made[name.removesuffix("-m")]()


def _histogram(face: Array, target: Array, area: Array, settings: Settings) -> Array:
    """Match histograms; with the mask, what lies outside it is white in both."""
    mask = area[..., None] if settings.masked_histogram else np.ones_like(area)[..., None]
    white = np.minimum(face * mask + (1 - mask), 1)
    return colour.histograms(white, target * mask + (1 - mask), settings.threshold)


def cloned(shown: Array, frame: Array, mask: Array) -> Array:
    """Clone seamlessly under a mask, cut where it first has pixels; the face as it is where OpenCV refuses (a mask at the border)."""
    level = next((i / 10 for i in range(1, 10) if (mask > i / 10).any()), None)
    if level is None:
        return shown
    hard = ((mask > level) * 255).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(hard)
    centre = int(x + width / 2), int(y + height / 2)
    front, back = ((picture * 255).astype(np.uint8) for picture in (shown, frame))
    back = np.rint(frame * 255).astype(np.uint8)
    try:
        return cv2.seamlessClone(front, back, hard.copy(), centre, cv2.NORMAL_CLONE).astype(np.float32) / 255
    except cv2.error:
        return shown


def _finished(
    result: Array, frame: Array, target: Array, area: Array, whole: Array, places: Places, settings: Settings, seed: int
) -> Array:
    """Recolour what was cloned, sharpen or blur the face, and spoil the frame as the face is: in the crop, pasted once more."""
    seamless, histogram = settings.mode.startswith("seamless"), settings.mode == "seamless-hist-match"
    if not ((seamless and settings.colours) or histogram or settings.amount or settings.denoise or settings.degrade):
        return result
    face = places.cut(result.astype(np.float32))
    if seamless:
        face = recoloured(face, target, area, settings.colours, seed)
    if histogram:
        face = colour.histograms(face, target, settings.threshold)
    face = sharpened(face, settings.sharpen, settings.amount)
    under = degraded(denoised(frame, settings.denoise), settings.degrade)
    return np.clip(under * (1 - whole[..., None]) + places.back(face, places.crop) * whole[..., None], 0, 1)


def sharpened(face: Array, kind: int, amount: float, side: int = 3) -> Array:
    """Sharpen by what a box (1) or Gaussian (2) filter takes away; a negative amount blurs by medians, ten to a whole one."""
    if amount > 0 and kind == 1:
        return face + (face - cv2.blur(face, (side, side))) * amount
    if amount > 0 and kind == 2:
        return face + (face - cv2.GaussianBlur(face, (side, side), 0)) * (0.5 * amount)
    return _medians(face, -amount, 10) if amount < 0 else face


def denoised(frame: Array, power: int) -> Array:
    """Take the median over 5 x 5 pixels, ten times for a power of 100, the last ones in part."""
    return _medians(frame, power, 100, 10)


def _medians(picture: Array, power: float, full: int, step: int = 10) -> Array:
    while power > 0:
        blurred = cv2.medianBlur(picture.astype(np.float32), 5)
        share = 1.0 if power >= full else (power % full) / full
        picture = picture * (1 - share) + blurred * share
        power -= step
    return picture


def degraded(frame: Array, power: float) -> Array:
    """Take resolution away: scaled down by up to a hundredth part, and up again."""
    if not power:
        return frame
    share, (height, width) = 1 - power / 101, frame.shape[:2]
    small = cv2.resize(frame, (int(width * share), int(height * share)), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

"""Parts of a portrait guessed from its mesh and its colours: labels for a parser, where nobody ever painted any.

The mesh says where skin is for certain and what is likely about it: hair above the oval, neck below the chin, clothes under that,
background towards the edges. The sure pixels teach the colours and the roughness of each part, these say anew what every pixel is, and
so on: GrabCut's iteration (Rother, Kolmogorov, Blake, SIGGRAPH 2004) with histograms for mixtures and a guided filter (He, Sun, Tang,
PAMI 2013) for cuts. The small parts are drawn from the mesh over the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from limn.faces import drawn
from limn.faces.masks import OVAL
from limn.models.perception.limn_parser import CLASSES

OUTER = ("background", "hair", "skin", "neck", "clothes")  # what is guessed; the other classes are drawn
ROUNDS = 4
POWER = 0.8  # trust in the colours against the prior
ROUGHNESS = 0.35  # trust in the roughness against the colours
BINS = (20, 14, 14)  # of lightness and the two colour axes, the latter over the picture's own range
BARE = 0.85  # how much of the prior for hair a usual colour of the face gives to skin: bald heads
GREY = 3.0  # levels by which a colour axis varies, below which a picture counts as grey
LEVELS = 10  # of roughness
LEFT_IRIS, RIGHT_IRIS, TOP, CHIN, NOSE, SIDES = 468, 473, 10, 152, 1, (234, 454)
_B, _H, _S, _N, _C = range(len(OUTER))


@dataclass(frozen=True)
class Frame:
    """Where each pixel (S, S) lies about a face, in distances between the eyes; the face is upright whatever the picture."""

    depth: np.ndarray  # inside the oval, negative outside
    across: np.ndarray  # to the picture's right of the oval's middle
    below: np.ndarray  # below the eyes
    chin: float  # how far below the eyes the chin is
    nose: float
    half: float  # half the width of the oval


def frame(mesh: np.ndarray, size: int) -> Frame:
    """Lay the frame of a mesh (478, 2 or 3), pixels with centres at whole numbers, over a picture of `size` pixels a side."""
    points = np.asarray(mesh, np.float32)[:, :2]
    eyes, middle = points[RIGHT_IRIS] - points[LEFT_IRIS], (points[RIGHT_IRIS] + points[LEFT_IRIS]) / 2
    unit = max(float(np.linalg.norm(eyes)), size / 20)
    down = (points[CHIN] - points[TOP]) / max(float(np.linalg.norm(points[CHIN] - points[TOP])), 1e-3)
    right = np.array([down[1], -down[0]], np.float32)
    outline = points[list(OVAL)]
    centre = (outline.min(0) + outline.max(0)) / 2
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    inside = np.zeros((size, size), np.uint8)
    cv2.fillPoly(inside, [np.rint(outline * 16).astype(np.int32)], 1, shift=4)
    depth = (cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)) / unit
    across = ((x - centre[0]) * right[0] + (y - centre[1]) * right[1]) / unit
    below = ((x - middle[0]) * down[0] + (y - middle[1]) * down[1]) / unit
    chin, nose = (float((points[index] - middle) @ down) / unit for index in (CHIN, NOSE))
    half = abs(float((points[SIDES[1]] - points[SIDES[0]]) @ right)) / 2 / unit
    return Frame(depth, across, below, chin, nose, half)


def prior(at: Frame) -> np.ndarray:
    """Return how likely each of OUTER is at each pixel, (5, S, S), before the picture is looked at; shapes of an average head."""
    inside, out, reach = _step(at.depth / 0.05), np.clip(-at.depth, 0, None), np.abs(at.across)
    above, under = _step((0.6 * at.nose - at.below) / 0.25), _step((at.below - at.chin + 0.25) / 0.12)
    forehead = _step((-0.3 - at.below) / 0.1)

    def within(far: float, width: float) -> np.ndarray:
        return _step((far - out) / width)

    fringe = 0.02 + 0.4 * forehead * np.exp(-np.clip(at.depth, 0, None) / 0.2)
    fringe += 0.25 * np.exp(-np.clip(at.depth, 0, None) / 0.08) * _step((at.chin - 0.5 - at.below) / 0.2)
    fringe = np.where(at.depth > 0.5, 0.008, np.clip(fringe, 0, 0.6))
    hair = above * (0.12 + 0.4 * within(0.85, 0.12)) + (1 - above) * (0.1 + 0.3 * within(0.6, 0.2))
    skin = above * (0.01 + 0.12 * within(0.7, 0.1) + 0.3 * within(0.2, 0.08) * forehead) + (1 - above) * (0.01 + 0.1 * within(0.12, 0.04))
    ears = 0.35 * np.exp(-((np.clip(np.abs(at.below - 0.35) - 0.25, 0, None) / 0.2) ** 2)) * within(0.33, 0.05)
    behind = above * (0.04 + 0.86 * _step((out - 0.85) / 0.12) + 0.12 * _step((out - 0.3) / 0.1))
    behind += (1 - above) * (0.1 + 0.7 * _step((out - 0.5) / 0.2))
    neck = under * (0.01 + 0.7 * _step((0.85 * at.half - reach) / 0.12) * _step((at.chin + 0.75 - at.below) / 0.15))
    collar = at.below - at.chin - 0.15 - 0.9 * np.clip(1.1 * at.half - reach, 0, None)
    clothes = 0.75 * under * (0.08 + _step(collar / 0.15)) + 0.003 * (1 - under) * _step((at.below - at.nose) / 0.2)
    outside = 1 - inside
    found = np.stack(
        [
            behind * (1 - 0.5 * under) * outside + 0.002 * inside,
            hair * outside * (1 - 0.6 * under) + fringe * inside,
            np.maximum(skin, ears * (1 - under)) * outside + (1 - fringe) * inside,
            neck * outside + 0.02 * inside * under,
            clothes * outside + 0.002 * inside,
        ]
    )
    return (found / found.sum(0)).astype(np.float32)


def outer(picture: np.ndarray, likely: np.ndarray, at: Frame) -> np.ndarray:
    """Return the shares (5, S, S) of OUTER in an RGB uint8 picture, from what is `likely` (5, S, S) before looking."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32)
    light = lab[..., 0]
    rough = np.sqrt(np.maximum(cv2.GaussianBlur((light - cv2.GaussianBlur(light, (0, 0), 1.5)) ** 2, (0, 0), 2.0), 0))
    cells = _cells(cv2.GaussianBlur(lab, (0, 0), 0.7)), np.clip((np.log(rough + 0.3) + 1.2) / 4.5 * LEVELS, 0, LEVELS - 1).astype(int)
    before, shares = np.log(likely + 1e-4), likely
    for number in range(ROUNDS):
        teaching = shares**2  # the surer a pixel, the more it teaches
        if number == 0:
            before = _first_lesson(teaching, likely, cells, at, coloured=bool(lab[..., 1:].std((0, 1)).max() > GREY))
        seen = np.stack([_likelihood(*cells, weight) for weight in teaching])
        seen[_N] = np.logaddexp(seen[_N] + np.log(0.25), seen[_S] + np.log(0.75))  # a neck is skin, in shadow
        score = before + POWER * seen
        shares = _normal(score)
        for _ in range(2):
            smooth = np.clip(np.stack([_guided(light, share) for share in shares]), 1e-4, 1)
            shares = _normal(1.6 * np.log(smooth / smooth.sum(0)) + 0.4 * (score - score.max(0)))
    return shares


def _first_lesson(teaching: np.ndarray, likely: np.ndarray, cells: tuple[np.ndarray, np.ndarray], at: Frame, coloured: bool) -> np.ndarray:
    """Let only sure pixels teach (`teaching` is changed in place), and return the logarithm of what is likely, bald heads allowed for.

    What has the colour of the face's middle, or of the background, teaches no hair; above the eyes, colours that are usual in the face's
    middle are skin rather than hair. Grey pictures do not tell skin from hair by colour.
    """
    teaching[_S] *= at.depth > 0.15
    teaching[_H] *= at.depth < 0
    skin, hair, behind = (_likelihood(*cells, teaching[part]) for part in (_S, _H, _B))
    teaching[_H] /= 1 + np.exp(np.clip(np.maximum(skin, behind) - hair + 1.5, -60, 60))
    middle = skin[at.depth > 0.15]
    if not coloured or not middle.size:
        return np.log(likely + 1e-4)
    usual = (skin > np.quantile(middle, 0.15)).astype(np.float32)
    moved = BARE * cv2.GaussianBlur(usual, (0, 0), 1.5) * (at.below < -0.2) * likely[_H]
    likely = likely.copy()
    likely[_S] += moved
    likely[_H] -= moved
    return np.log(likely + 1e-4)


def labels(picture: np.ndarray, mesh: np.ndarray, likely: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the class numbers of `limn_parser.CLASSES` (S, S) uint8 and how sure each is (S, S) uint8, 0 to 255.

    `mesh` (478, 2 or 3) in pixels, centres at whole numbers; `likely` (5, S, S) replaces the prior of an average head.
    """
    size = picture.shape[0]
    at = frame(mesh, size)
    shares = outer(picture, prior(at) if likely is None else likely, at)
    number = np.array([CLASSES.index(name) for name in OUTER], np.uint8)
    found, sure = number[shares.argmax(0)], shares.max(0)
    parts = drawn.labels(mesh, (size, size))
    left = _left(mesh, size)
    for index, name in enumerate(drawn.CLASSES):
        if name in ("background", "skin"):
            continue
        here = parts == index
        for value, side in _sides(name):
            chosen = here & (left if side == "left" else ~left if side == "right" else True)
            found[chosen], sure[chosen] = value, 1.0
    return found, np.rint(255 * np.clip(1.25 * sure - 0.25, 0.1, 1)).astype(np.uint8)


def _sides(name: str) -> list[tuple[int, str]]:
    """Return the classes that a drawn class becomes, each with its side of the face."""
    name = {"eyes": "eye", "iris": "eye", "brows": "brow", "mouth": "inner_mouth"}.get(name, name)
    sides = ("left", "right") if name in ("eye", "brow") else ("",)
    return [(CLASSES.index("_".join(filter(None, (side, name)))), side) for side in sides]


def _left(mesh: np.ndarray, size: int) -> np.ndarray:
    """Say which pixels (size, size) lie nearer to the left iris than to the right one."""
    points = np.asarray(mesh, np.float32)[:, :2]
    across, middle = points[RIGHT_IRIS] - points[LEFT_IRIS], (points[RIGHT_IRIS] + points[LEFT_IRIS]) / 2
    y, x = np.mgrid[0:size, 0:size]
    return (x - middle[0]) * across[0] + (y - middle[1]) * across[1] < 0


def _cells(lab: np.ndarray) -> np.ndarray:
    """Return the number of the histogram's cell that each pixel falls into."""
    flat = np.zeros(lab.shape[:2], int)
    for axis, count in enumerate(BINS):
        values = lab[..., axis]
        low, high = (0.0, 255.0) if axis == 0 else (min(float(values.min()), 110.0), max(float(values.max()), 146.0))
        flat = flat * count + np.clip((values - low) / (high - low) * count, 0, count - 1).astype(int)
    return flat


def _likelihood(colour: np.ndarray, rough: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the logarithm of how well each pixel's colour and roughness fit those of pixels that weigh so much."""
    histogram = np.bincount(colour.ravel(), weight.ravel(), int(np.prod(BINS))).reshape(BINS)
    for axis in range(3):
        histogram = 0.5 * histogram + 0.25 * (_shifted(histogram, axis, 1) + _shifted(histogram, axis, -1))
    total = float(histogram.sum())
    spare = 0.02 * total + 2  # for colours that were never met
    density = (histogram + spare / histogram.size) / (total + spare)
    rough_counts = np.bincount(rough.ravel(), weight.ravel(), LEVELS) + 2
    return np.log(density).ravel()[colour] + ROUGHNESS * np.log(rough_counts / rough_counts.sum())[rough]


def _shifted(array: np.ndarray, axis: int, by: int) -> np.ndarray:
    """Return the array moved one step along an axis, nothing coming in."""
    moved = np.roll(array, by, axis)
    moved[(*(slice(None),) * axis, 0 if by > 0 else -1)] = 0
    return moved


def _guided(guide: np.ndarray, values: np.ndarray, radius: int = 4, eps: float = 60.0) -> np.ndarray:
    """Smooth values (S, S) where a guide of levels is smooth, and keep its edges."""

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(array.astype(np.float32), -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    level, value = mean(guide), mean(values)
    slope = (mean(guide * values) - level * value) / (mean(guide * guide) - level * level + eps)
    return mean(slope) * guide + mean(value - slope * level)


def _normal(score: np.ndarray) -> np.ndarray:
    """Return the softmax over the first axis, float32."""
    powers = np.exp(score - score.max(0))
    return (powers / powers.sum(0)).astype(np.float32)


def _step(x: np.ndarray) -> np.ndarray:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))

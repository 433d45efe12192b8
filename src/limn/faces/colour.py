"""Giving a picture the colours of another: the methods of face swapping, as DeepFaceLab has them.

rct: mean and spread in Lab (Reinhard et al., Color Transfer between Images, IEEE CG&A 2001). lct: covariance in RGB, by principal
components, Cholesky factors or symmetrically (Hertzmann et al., Image Analogies, 2001). mkl: the optimal linear map (Pitié, Kokaram,
2007). idt: the whole distribution, one axis of a random rotation after the other, two thirds of the way (Pitié, Kokaram, Dahyot, 2005).
sot: sliced optimal transport (Bonneel et al., 2015), whose change is smoothed. mix: lightness by lct, the rest by sot.
Images are RGB float32 (H, W, 3) in [0, 1]; the result is again; `source` takes the colours of `target`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import cv2
import numpy as np

from limn.errors import InputError

Array = np.ndarray
Linear = Literal["pca", "chol", "sym"]
EPSILON = 1e-5  # on the diagonal of the covariances of lct
LIMITS = ((0.0, 100.0), (-127.0, 127.0), (-127.0, 127.0))  # of L, a and b
SMOOTH = (5.0, 16.0)  # of the change that sot makes: spread in value and in pixels
FLAT = 100  # the lightness at which `mix` compares tints, of 255


def reinhard(source: Array, target: Array, source_mask: Array | None = None, target_mask: Array | None = None) -> Array:
    """rct. What lies outside a mask (H, W or H, W, 1), below a half, counts as black, as published; `transfer` leaves it out."""
    labs = [cv2.cvtColor(np.asarray(image, np.float32), cv2.COLOR_RGB2LAB) for image in (source, target)]
    seen = [_blackened(lab, mask) for lab, mask in zip(labs, (source_mask, target_mask), strict=True)]
    (mean, spread), (wanted_mean, wanted_spread) = ((x.mean((0, 1)), x.std((0, 1))) for x in seen)
    moved = (labs[0] - mean) * (wanted_spread / np.maximum(spread, 1e-8)) + wanted_mean
    clipped = np.clip(moved, *np.array(LIMITS).T).astype(np.float32)
    return np.clip(cv2.cvtColor(clipped, cv2.COLOR_LAB2RGB), 0, 1)


def _blackened(lab: Array, mask: Array | None) -> Array:
    if mask is None:
        return lab
    inside = np.reshape(mask, lab.shape[:2]) >= 0.5
    return lab * inside[..., None]


def linear(source: Array, target: Array, mode: Linear = "pca") -> Array:
    """lct: the linear map that gives the source the target's mean and covariance; any number of channels."""
    (_, x), (wanted, y) = _centred(source), _centred(target)
    c, d = (flat.T @ flat / len(flat) + EPSILON * np.eye(flat.shape[1]) for flat in (x, y))
    if mode == "chol":
        upper, lower = (np.linalg.cholesky(each[::-1, ::-1])[::-1, ::-1] for each in (d, c))  # of blue, green, red: their order counts
        change = upper @ np.linalg.inv(lower)
    elif mode == "pca":
        change = _root(d) @ np.linalg.inv(_root(c))
    elif mode == "sym":
        root = _root(c)
        change = np.linalg.inv(root) @ _root(root @ d @ root) @ np.linalg.inv(root)
    else:
        raise InputError(f"lct is done by pca, chol or sym, not by {mode!r}")
    return np.clip(x @ change.T + wanted, 0, 1).reshape(np.shape(source)).astype(np.float32)


def monge(source: Array, target: Array) -> Array:
    """mkl: of all linear maps that match mean and covariance the one that moves colours least (Monge and Kantorovich)."""
    (_, x), (wanted, y) = _centred(source), _centred(target)
    c, d = np.cov(x.T), np.cov(y.T)
    values, axes = np.linalg.eigh(c)
    scale = np.sqrt(values.clip(np.finfo(float).eps))
    inner = _root((axes * scale).T @ d @ (axes * scale))
    change = (axes / scale) @ inner @ (axes / scale).T
    return np.clip(x @ change + wanted, 0, 1).reshape(np.shape(source)).astype(np.float32)


def _centred(image: Array) -> tuple[Array, Array]:
    """Return the mean colour (C,) and the pixels (N, C) without it."""
    flat = np.asarray(image, np.float64).reshape(-1, np.shape(image)[-1])
    mean = flat.mean(0)
    return mean, flat - mean


def _root(matrix: Array) -> Array:
    """Return the symmetric square root of a symmetric matrix."""
    values, axes = np.linalg.eigh(matrix)
    return (axes * np.sqrt(values.clip(0))) @ axes.T


def rotations(count: int, rng: np.random.Generator) -> Array:
    """Draw rotations (count, 3, 3), evenly among all."""
    made = np.linalg.qr(rng.standard_normal((count, 3, 3)))[0]
    return made * np.sign(np.linalg.det(made))[:, None, None]


def distribution(source: Array, target: Array, turns: Iterable[Array], bins: int = 256) -> Array:
    """idt: match the histograms along the axes of every rotation (3, 3) in turn, each by its share of the way."""
    turns = list(turns)
    x, y = (np.asarray(image, np.float64).reshape(-1, 3).T for image in (source, target))
    for turn in turns:
        seen, wanted = turn @ x, turn @ y
        moved = np.stack([_matched_axis(a, b, bins) for a, b in zip(seen, wanted, strict=True)])
        x = x + np.linalg.solve(turn, moved - seen) / len(turns)
    return np.clip(x.T, 0, 1).reshape(np.shape(source)).astype(np.float32)


def _matched_axis(values: Array, wanted: Array, bins: int) -> Array:
    """Map values so that their histogram becomes that of others; beyond the last bin they become `bins`, as published."""
    low, high = min(values.min(), wanted.min()), max(values.max(), wanted.max())
    counts, edges = np.histogram(values, bins, (low, high))
    shares = [np.cumsum(part).astype(np.float32) for part in (counts, np.histogram(wanted, bins, (low, high))[0])]
    mapped = np.interp(shares[0] / shares[0][-1], shares[1] / shares[1][-1], edges[1:])
    return np.interp(values, edges[1:], mapped, left=0, right=bins)


def directions(steps: int, batch: int, rng: np.random.Generator) -> Array:
    """Draw directions (steps, batch, 3), evenly over the sphere."""
    return rng.standard_normal((steps, batch, 3))


def sliced(source: Array, target: Array, along: Array, smooth: tuple[float, float] | None = SMOOTH) -> Array:
    """sot: move the pixels so that their ranks along every direction of a step (steps, batch, 3) match the target's, of the same shape.

    The change is smoothed by a bilateral filter of these spreads in value and in pixels, and the result clipped, unless `smooth` is None.
    """
    if np.shape(source) != np.shape(target):
        raise InputError(f"sot needs two pictures of one size, got {np.shape(source)[:2]} and {np.shape(target)[:2]}")
    before, y = (np.asarray(image, np.float32) for image in (source, target))
    wanted = y.reshape(-1, 3)
    x: Array = before.reshape(-1, 3)
    for batch in along:
        move = np.zeros_like(x)
        for direction in batch / np.linalg.norm(batch, axis=-1, keepdims=True):
            mine, theirs = x @ direction, wanted @ direction
            order = np.argsort(mine)
            move[order] += (theirs[np.argsort(theirs)] - mine[order])[:, None] * direction
        x = x + move / len(batch)
    result = x.reshape(before.shape).astype(np.float32)
    if smooth is None:
        return result
    return np.clip(before + cv2.bilateralFilter(result - before, 0, *smooth), 0, 1)


def mixed(source: Array, target: Array, along: Array) -> Array:
    """mix: in 8 bits, lightness by lct, and tint by sot of both pictures at one lightness."""
    labs = [cv2.cvtColor(_bytes(image), cv2.COLOR_RGB2LAB) for image in (source, target)]
    light = _bytes(linear(labs[0][..., :1].astype(np.float32) / 255, labs[1][..., :1].astype(np.float32) / 255))
    tints = []
    for lab in labs:
        lab[..., 0] = FLAT
        tints.append(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(np.float32))
    moved = sliced(tints[0], tints[1], along, None)
    change = cv2.bilateralFilter(moved - tints[0], 0, *SMOOTH)
    lab = cv2.cvtColor(np.clip(tints[0] + change, 0, 255).astype(np.uint8), cv2.COLOR_RGB2LAB)
    lab[..., :1] = light.reshape(*lab.shape[:2], 1)
    return (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) / 255).astype(np.float32)


def _bytes(image: Array) -> Array:
    return np.clip(np.asarray(image, np.float32) * 255, 0, 255).astype(np.uint8)


def histograms(source: Array, target: Array, threshold: float = 255.0) -> Array:
    """Match the quantiles of every channel; a threshold below 255 leaves the brightest values of the target out."""
    matched = [_matched_channel(source[..., c], target[..., c], threshold) for c in range(source.shape[-1])]
    return np.stack(matched, -1).astype(np.float32)


def _matched_channel(source: Array, target: Array, threshold: float) -> Array:
    _, where, counts = np.unique(source.ravel(), return_inverse=True, return_counts=True)
    values, wanted = np.unique(target.ravel(), return_counts=True)
    share = threshold * np.cumsum(counts) / counts.sum()
    return np.interp(share, 255 * np.cumsum(wanted) / wanted.sum(), values)[where].reshape(source.shape)


METHODS: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "rct": lambda source, target, rng: reinhard(source, target),  # noqa: ARG005
    "lct": lambda source, target, rng: linear(source, target),  # noqa: ARG005
    "mkl": lambda source, target, rng: monge(source, target),  # noqa: ARG005
    "idt": lambda source, target, rng: distribution(source, target, rotations(20, rng)),
    "sot": lambda source, target, rng: sliced(source, target, directions(10, 5, rng), None),
    "hist": lambda source, target, rng: histograms(source, target),  # noqa: ARG005
}


def transfer(method: str, source: Array, target: Array, mask: Array, seed: int = 0) -> Array:
    """Give the pixels of `source` under a mask (H, W), above a half, the colours that `target` has there; others stay as they are.

    Unlike the published masks, what lies outside is not counted. InputError for an unknown method.
    """
    if method not in METHODS:
        raise InputError(f"there is no colour transfer {method!r}: use {', '.join(METHODS)} or none")
    inside = np.asarray(mask) > 0.5
    result: Array = np.array(source, np.float32)
    if inside.sum() >= 16:
        mine, theirs = (np.ascontiguousarray(image[inside][:, None]) for image in (result, np.asarray(target, np.float32)))
        result[inside] = METHODS[method](mine, theirs, np.random.default_rng(seed))[:, 0]
    if method == "sot" and inside.any():  # pixels have neighbours again
        change = result - np.asarray(source, np.float32)
        change[~inside] = change[inside].mean(0)
        result[inside] = (source + cv2.bilateralFilter(change, 0, *SMOOTH))[inside]
    return np.clip(result, 0, 1).astype(np.float32)

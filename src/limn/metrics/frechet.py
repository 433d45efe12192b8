"""Fréchet distance between two sets of feature vectors, taken as Gaussians (FID, Heusel et al., arXiv 1706.08500, eq. 6).

With Inception features it is FID; the number depends on the resize chain and on the covariance, so both are named with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from limn.errors import InputError

Convention = Literal["unbiased", "nvlabs"]  # covariance over n - 1 (pytorch-fid, clean-fid, torch-fidelity) or over n (NVlabs)


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and covariance (D, D) of `count` feature vectors, float64."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def moments(features: np.ndarray | Iterable[np.ndarray], convention: Convention = "unbiased") -> Moments:
    """Return the moments of features (N, D), or of batches of them, which are summed without being kept."""
    batches = [features] if isinstance(features, np.ndarray) else features
    count, shift, total, products = 0, np.zeros(0), np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        rows = np.asarray(batch, np.float64)
        if count == 0:
            shift = rows.mean(0)  # sums of values near zero keep their digits
            total, products = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
        rows = rows - shift
        count, total, products = count + len(rows), total + rows.sum(0), products + rows.T @ rows
    if count < 2:
        raise InputError(f"a Fréchet distance needs at least two images in each set, not {count}")
    mean = total / count
    scatter = products / count - np.outer(mean, mean)
    return Moments(mean + shift, scatter * (count / (count - 1) if convention == "unbiased" else 1), count)


def distance(moments: Moments, others: Moments) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with the root's trace from eigenvalues: real for rank-deficient sets too."""
    if moments.mean.shape != others.mean.shape:
        raise InputError(
            f"feature vectors of {moments.mean.size} and {others.mean.size} numbers cannot be compared: use one network for both"
        )
    values, vectors = np.linalg.eigh(moments.covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ others.covariance @ root).clip(0)).sum()
    apart = np.square(moments.mean - others.mean).sum()
    return float(apart + np.trace(moments.covariance) + np.trace(others.covariance) - 2 * cross)


def frechet(features: np.ndarray, others: np.ndarray, convention: Convention = "unbiased") -> float:
    """Return the Fréchet distance of features (N, D) to others (M, D)."""
    return distance(moments(features, convention), moments(others, convention))

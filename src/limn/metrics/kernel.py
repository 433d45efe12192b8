"""Kernel distance between two sets of feature vectors (KID, Bińkowski et al., arXiv 1801.01401): unbiased also for small sets."""

from __future__ import annotations

import numpy as np


def squared_mmd(features: np.ndarray, others: np.ndarray) -> float:
    """Return the unbiased squared MMD of features (N, D) and others (N, D) under the kernel (x.y / D + 1)^3, in float64."""
    x, y = np.asarray(features, np.float64), np.asarray(others, np.float64)
    size, wide = len(x), x.shape[1]
    own = _cube(x @ x.T / wide + 1) + _cube(y @ y.T / wide + 1)
    cross = _cube(x @ y.T / wide + 1)
    return float((own.sum() - np.trace(own)) / (size * (size - 1)) - 2 * cross.mean())


def _cube(values: np.ndarray) -> np.ndarray:
    return values * values * values  # NumPy's power of 3 is several times slower


def kid(features: np.ndarray, others: np.ndarray, subsets: int = 100, size: int = 1000, seed: int = 2020) -> tuple[float, float]:
    """Return (mean, standard deviation) of KID over random subsets of features (N, D) against others (M, D).

    Subsets are drawn as torch-fidelity draws them (features first, its seed 2020); a set smaller than `size` limits the subsets.
    clean-fid and NVlabs report the mean alone, from the global generator; papers often print KID x 1000.
    """
    size = min(size, len(features), len(others))
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows = rng.choice(len(features), size, replace=False)
        values.append(squared_mmd(features[rows], others[rng.choice(len(others), size, replace=False)]))
    return float(np.mean(values)), float(np.std(values))

"""Inception score (Salimans et al., arXiv 1606.03498): sure of each image, unsure over all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def inception_score(logits: np.ndarray, splits: int = 10, shuffle: int | None = None) -> tuple[float, float]:
    """Return (mean, population standard deviation) of the score of logits (N, classes) over splits taken in order.

    NVlabs takes logits without the bias of the last layer, in order; torch-fidelity the same logits shuffled with seed 2020.
    """
    rows = np.asarray(logits, np.float64)
    if shuffle is not None:
        rows = rows[np.random.RandomState(shuffle).permutation(len(rows))]
    rows = rows - rows.max(1, keepdims=True)
    log_p = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    edges = [index * len(rows) // splits for index in range(splits + 1)]
    scores = [_score(log_p[start:stop]) for start, stop in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    return float(np.exp((p * (log_p - np.log(p.mean(0)))).sum(1).mean()))

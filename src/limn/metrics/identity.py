"""Is it the same person? Cosine similarity of identity embeddings, and how well it tells pairs of people apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.errors import InputError


@torch.inference_mode()
def embed(network: nn.Module, images: Tensor | Iterable[Tensor], batch: int = 64) -> Tensor:
    """Return unit embeddings (N, D) of aligned images (N, 3, H, W) in [-1, 1]: the sum over each image and its mirror image.

    `network` has `embed(images) -> (N, D)`, as limn-identity does; an iterable of batches is accepted for sets that do not fit in memory.
    """
    parts = images.split(batch) if isinstance(images, Tensor) else images
    return torch.cat([F.normalize(network.embed(part) + network.embed(part.flip(-1))) for part in parts])  # type: ignore[operator]


def similarity(network: nn.Module, images: Tensor, others: Tensor) -> Tensor:
    """Return the cosine similarity (N,) of aligned images (N, 3, H, W) to others: 1 for the same face, about 0 for strangers."""
    if len(images) != len(others):
        raise InputError(f"identity similarity compares pairs: {len(images)} images cannot be paired with {len(others)}")
    return (embed(network, images) * embed(network, others)).sum(1)


def verification(similarities: np.ndarray, same: np.ndarray, folds: int = 10, seed: int = 0) -> tuple[float, float]:
    """Return (accuracy, threshold) of telling pairs (N,) apart; each fold is judged by the best threshold of the others (LFW protocol)."""
    order = np.random.default_rng(seed).permutation(len(same))
    similarities, same = np.asarray(similarities, np.float64)[order], np.asarray(same, bool)[order]
    fold = np.arange(len(same)) % folds
    right, thresholds = 0, []
    for held in range(folds):
        threshold = best_threshold(similarities[fold != held], same[fold != held])
        right += int(((similarities[fold == held] > threshold) == same[fold == held]).sum())
        thresholds.append(threshold)
    return right / len(same), float(np.mean(thresholds))


def best_threshold(similarities: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold above which "same" is right most often: midway between the two similarities it parts."""
    order = np.argsort(similarities, kind="stable")
    ordered, truth = similarities[order], same[order]
    right = np.concatenate([[truth.sum()], truth.sum() + np.cumsum(np.where(truth, -1, 1))])  # right[i]: the first i are called different
    cut = int(right.argmax())
    edges = np.concatenate([[ordered[0] - 1e-6], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1e-6]])
    return float(edges[cut])

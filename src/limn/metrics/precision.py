"""Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991): plausible samples, and how much of reality they cover."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limn.errors import InputError


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1]."""

    precision: float  # samples inside the manifold of the real images
    recall: float  # real images inside the manifold of the samples

    @property
    def f_score(self) -> float:
        """Their harmonic mean."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


def precision_recall(features: Tensor, real: Tensor, neighbours: int = 3, rows: int = 1024) -> PrecisionRecall:
    """Compare features (N, D) of samples with those of real images (M, D): balls reach to the k-th neighbour, not counting itself."""
    if min(len(features), len(real)) <= neighbours:
        raise InputError(f"precision and recall with k={neighbours} need more than {neighbours} images in each set")
    sample, truth = features.double(), real.double()
    inside_real = covered(sample, truth, radii(truth, neighbours, rows), rows)
    inside_samples = covered(truth, sample, radii(sample, neighbours, rows), rows)
    return PrecisionRecall(inside_real, inside_samples)


def radii(features: Tensor, neighbours: int, rows: int = 1024) -> Tensor:
    """Return the distance (N,) of every vector (N, D) to its k-th neighbour."""
    return torch.cat([torch.cdist(part, features).kthvalue(neighbours + 1).values for part in features.split(rows)])


def covered(features: Tensor, centres: Tensor, reach: Tensor, rows: int = 1024) -> float:
    """Return the share of features (N, D) that lie within reach (M,) of a centre (M, D)."""
    inside = [(torch.cdist(part, centres) <= reach).any(1) for part in features.split(rows)]
    return float(torch.cat(inside).double().mean())

"""Which training pictures are nearest to a sample? What a generator has copied shows here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limn.errors import InputError


@dataclass(frozen=True)
class Neighbours:
    """For every sample its nearest references, nearest first."""

    distances: Tensor  # (N, count)
    indices: Tensor  # (N, count) int64, into the references


def nearest(features: Tensor, references: Tensor, count: int = 3, rows: int = 512) -> Neighbours:
    """Find the `count` nearest of references (M, D) to each of features (N, D) by Euclidean distance, a block of rows at a time."""
    if len(references) < count:
        raise InputError(f"{count} nearest neighbours were asked for among {len(references)} references: ask for fewer")
    found = [torch.cdist(part.float(), references.float()).topk(count, largest=False) for part in features.split(rows)]
    return Neighbours(torch.cat([each.values for each in found]), torch.cat([each.indices for each in found]))


def copied(samples: Tensor, references: Tensor) -> float:
    """Return the share of samples (N, D) that lie nearer to a reference than nearly all references (M, D) lie to each other.

    The bar is the first percentile of the references' own nearest distances: about 0.01 says that samples are new, much more that
    pictures are remembered.
    """
    own = nearest(references, references, 2).distances[:, 1]
    bar = own.quantile(0.01)
    return float((nearest(samples, references, 1).distances[:, 0] < bar).float().mean())

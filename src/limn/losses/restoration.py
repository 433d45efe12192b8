"""How far a restored picture is from the one it was, as frozen networks see it (they are passed in)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Features(Protocol):
    """A frozen network that compares pictures: images (N, 3, H, W) in [-1, 1] -> feature maps."""

    def features(self, images: Tensor) -> Sequence[Tensor]: ...


class Identity(Protocol):
    """A frozen network that compares people: aligned images (N, 3, H, W) in [-1, 1] -> embeddings (N, D)."""

    def embed(self, images: Tensor) -> Tensor: ...


def feature_distance(network: Features, images: Tensor, targets: Tensor, weights: Sequence[float] = ()) -> Tensor:
    """Mean absolute difference of feature maps, each in units of its own size, summed with `weights` (all 1 without)."""
    with torch.no_grad():
        wanted = [x.float() for x in network.features(targets)]
    found = [x.float() for x in network.features(images)]
    parts = [(x - y).abs().mean() / y.abs().mean().clamp_min(1e-6) for x, y in zip(found, wanted, strict=True)]
    return torch.stack([part * weight for part, weight in zip(parts, weights or [1.0] * len(parts), strict=True)]).sum()


def identity_distance(network: Identity, images: Tensor, targets: Tensor) -> Tensor:
    """One minus the mean cosine of the embeddings."""
    with torch.no_grad():
        wanted = network.embed(targets).float()
    return (1 - F.cosine_similarity(network.embed(images).float(), wanted)).mean()


def feature_l1(network: Features, images: Tensor, targets: Tensor, weights: Sequence[float] = ()) -> Tensor:
    """Mean absolute difference of feature maps, summed with `weights` (all 1 without): BasicSR's perceptual loss."""
    with torch.no_grad():
        wanted = [x.float() for x in network.features(targets)]
    found = [x.float() for x in network.features(images)]
    parts = [(x - y).abs().mean() for x, y in zip(found, wanted, strict=True)]
    return torch.stack([part * weight for part, weight in zip(parts, weights or [1.0] * len(parts), strict=True)]).sum()

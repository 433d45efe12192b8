"""The moving average of a network's weights, which is what people use of a trained generator."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def shadow(networks: nn.ModuleDict, names: tuple[str, ...]) -> nn.ModuleDict:
    """Copy the networks named, frozen, to hold their average."""
    return nn.ModuleDict({name: copy.deepcopy(networks[name]) for name in names}).requires_grad_(False).eval()


def decay(images_seen: int, batch: int, half_life: float, ramp: float = 0.05) -> float:
    """Weight of the past after a batch: half is forgotten after `half_life` images, or after `ramp` of all seen where that is less.

    `ramp` 0 leaves the half-life as it is from the first batch.
    """
    return 0.5 ** (batch / max(min(half_life, images_seen * ramp) if ramp else half_life, 1e-8))


@torch.no_grad()
def update(averages: nn.ModuleDict, networks: nn.ModuleDict, past: float) -> None:
    """Move each average towards its network, both laid out alike; buffers are copied."""
    for name, average in averages.items():
        live = networks[name]
        means, weights = ([here(p) for p in network.parameters()] for network in (average, live))
        torch._foreach_lerp_(means, weights, 1 - past)
        for a, b in zip(average.buffers(), live.buffers(), strict=True):
            a.copy_(b)


def here(parameter: Tensor) -> Tensor:
    """Return the values of a parameter that this process keeps: all, or of a sharded one its share."""
    kept = parameter.detach()
    return kept.to_local() if hasattr(kept, "to_local") else kept

"""Normalisation layers by name, and batch normalisation as the published translators run it at test time."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "instance", "none"]


def norm(kind: Norm, channels: int) -> nn.Module:
    """Make the normalisation of (N, channels, H, W): batch with scale and shift, instance without either, or none."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()


def normalised(layer: nn.Module, x: Tensor, own: bool = False) -> Tensor:
    """Apply a layer of `norm`; with `own`, batch normalisation takes each picture's own statistics, as a batch of one in training does."""
    if own and isinstance(layer, nn.BatchNorm2d):
        return F.instance_norm(x, weight=layer.weight, bias=layer.bias, eps=layer.eps)
    return layer(x)

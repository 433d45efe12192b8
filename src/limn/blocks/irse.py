"""Improved residual units with squeeze-and-excitation: the trunk of ArcFace's IR-SE networks, of pSp and of e4e.

Deng et al., ArcFace (arXiv 1801.07698), section 3.2.2; Hu et al., Squeeze-and-Excitation Networks (arXiv 1709.01507).
Module names follow the published state dicts, so that these load without renaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Trunk:
    """Shape of a trunk: four stages, the first unit of each halves the resolution."""

    channels_in: int = 3
    stem: int = 64  # channels after the first convolution
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of each stage, all different
    units: tuple[int, ...] = (3, 4, 14, 3)  # residual units in each stage; (3, 4, 14, 3) is the "50" of the papers
    squeeze: bool = True  # squeeze-and-excitation (IR-SE) or not (IR)

    @property
    def ends(self) -> tuple[int, ...]:
        """Index in the body of the last unit of each stage."""
        return tuple(total - 1 for total in accumulate(self.units))


class SqueezeExcite(nn.Module):
    """Scale each channel by what the mean of all channels says: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class PReLU(nn.Module):
    """Parametric ReLU, one slope per channel, as two ReLUs: on a CPU a quarter of the time of torch's own in training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() - self.weight.to(x.dtype).view(1, -1, 1, 1) * (-x).relu()


class Unit(nn.Module):
    """BN, 3×3, PReLU, 3×3 with the stride, BN and squeeze-and-excitation, added to a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool = True) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)  # plain subsampling
        else:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        layers = [
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.res_layer = nn.Sequential(*layers, *([SqueezeExcite(outputs)] if squeeze else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


def stem(trunk: Trunk) -> nn.Sequential:
    """Make the first layer: (N, channels_in, H, W) -> (N, stem, H, W)."""
    first = nn.Conv2d(trunk.channels_in, trunk.stem, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(trunk.stem), PReLU(trunk.stem))


def body(trunk: Trunk) -> nn.Sequential:
    """Make the residual units of all stages: (N, stem, H, W) -> (N, widths[-1], H/16, W/16)."""
    units: list[nn.Module] = []
    inputs = trunk.stem
    for width, count in zip(trunk.widths, trunk.units, strict=True):
        for index in range(count):
            units.append(Unit(inputs, width, 2 if index == 0 else 1, trunk.squeeze))
            inputs = width
    return nn.Sequential(*units)


def stages(trunk: Trunk, units: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Run the body and return the maps at the end of each stage, finest first."""
    maps = []
    for index, unit in enumerate(units):
        x = unit(x)
        if index in trunk.ends:
            maps.append(x)
    return maps


def trunk_of(state: Mapping[str, Tensor]) -> Trunk:
    """Infer the trunk from a state dict with `input_layer.*` and `body.N.*`; a stage is a run of units of one width."""
    widths: list[int] = []
    while (name := f"body.{len(widths)}.res_layer.1.weight") in state:
        widths.append(state[name].shape[0])
    runs = [(width, len(list(run))) for width, run in groupby(widths)]
    first = state["input_layer.0.weight"].shape
    return Trunk(first[1], first[0], tuple(w for w, _ in runs), tuple(n for _, n in runs), "body.0.res_layer.5.fc1.weight" in state)


def unit_length(x: Tensor) -> Tensor:
    """Scale rows (N, C) to length one, without an epsilon, as the published networks do."""
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)

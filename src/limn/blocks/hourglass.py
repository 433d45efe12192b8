"""The layers of the keypoint animators, on maps or on volumes: down and up by two, residual blocks, the hourglass.

First Order Motion Model and its 3-D descendants are made of them. In volumes only height and width are halved and doubled.
Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def doubled(x: Tensor) -> Tensor:
    """Double height and width by repetition."""
    factors = (2, 2) if x.ndim == 4 else (1, 2, 2)
    return F.interpolate(x, scale_factor=factors)


def halved(x: Tensor) -> Tensor:
    """Halve height and width by the mean."""
    return F.avg_pool2d(x, 2) if x.ndim == 4 else F.avg_pool3d(x, (1, 2, 2))


class Same(nn.Module):
    """Convolution, batch norm, ReLU; `slope` is that of its negative side."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, dims: int = 2, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = CONV[dims](inputs, outputs, kernel, padding=kernel // 2)
        self.norm, self.slope = NORM[dims](outputs), slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.slope) if self.slope else F.relu(self.norm(self.conv(x)))


class Down(Same):
    """The same, then half the size."""

    def forward(self, x: Tensor) -> Tensor:
        return halved(super().forward(x))


class Up(Same):
    """Twice the size, then the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(doubled(x))


class Residual(nn.Module):
    """Norm and ReLU before each of two convolutions, added to the input."""

    def __init__(self, channels: int, dims: int = 2) -> None:
        super().__init__()
        self.conv1 = CONV[dims](channels, channels, 3, padding=1)
        self.conv2 = CONV[dims](channels, channels, 3, padding=1)
        self.norm1, self.norm2 = NORM[dims](channels), NORM[dims](channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


def widths(width: int, most: int, count: int) -> list[int]:
    """Return the channels at each of `count` + 1 levels: doubled at every one, `most` at most."""
    return [min(most, width << level) for level in range(count + 1)]


class Encoder(nn.Module):
    """Halves its input `levels` times and returns every map, the input first."""

    def __init__(self, inputs: int, width: int, most: int, levels: int, dims: int) -> None:
        super().__init__()
        sizes = [inputs, *widths(width, most, levels)[1:]]
        self.down_blocks = nn.ModuleList(Down(sizes[n], sizes[n + 1], dims=dims) for n in range(levels))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for block in self.down_blocks:
            maps.append(block(maps[-1]))
        return maps


class Decoder(nn.Module):
    """Doubles the last of the maps back to the size of the first, joining each on the way; `finished` adds a last convolution."""

    def __init__(self, inputs: int, width: int, most: int, levels: int, dims: int, finished: bool) -> None:
        super().__init__()
        sizes = widths(width, most, levels)
        self.up_blocks = nn.ModuleList(
            Up(sizes[n + 1] * (1 if n == levels - 1 else 2), sizes[n], dims=dims) for n in reversed(range(levels))
        )
        self.channels = sizes[0] + inputs
        self.finished = finished
        if finished:
            self.conv = CONV[dims](self.channels, self.channels, 3, padding=1)
            self.norm = NORM[dims](self.channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *others, x = maps
        for block, skip in zip(self.up_blocks, reversed(others), strict=True):
            x = torch.cat([block(x), skip], 1)
        return F.relu(self.norm(self.conv(x))) if self.finished else x


class Hourglass(nn.Module):
    """(N, inputs, ...) -> (N, width + inputs, ...) of the same size, which must be divisible by 2 ** levels."""

    def __init__(self, inputs: int, width: int, most: int, levels: int, dims: int = 2, finished: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, width, most, levels, dims)
        self.decoder = Decoder(inputs, width, most, levels, dims, finished)
        self.channels = self.decoder.channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out

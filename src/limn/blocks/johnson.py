"""The generator of Johnson et al. (arXiv 1603.08155) as CycleGAN uses it: down, residual blocks, up, at any size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.norms import Norm, norm, normalised

Padding = Literal["reflect", "replicate", "zero"]


@dataclass(frozen=True)
class Johnson:
    """Shape of the generator."""

    channels_in: int = 3
    channels_out: int = 3
    width: int = 64  # channels at full size; doubled at every halving
    downs: int = 2  # halvings
    blocks: int = 9  # residual blocks at the smallest size
    norm: Norm = "instance"
    bias: bool = True  # of the convolutions before a norm; the last one always has one
    dropout: bool = False  # half of the channels' values inside the residual blocks
    padding: Padding = "reflect"  # inside the residual blocks; at both ends of the network it is always reflection


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity; the sum is not activated."""

    def __init__(self, shape: Johnson, channels: int) -> None:
        super().__init__()
        self.mode = "constant" if shape.padding == "zero" else shape.padding
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, bias=shape.bias) for _ in range(2))
        self.norms = nn.ModuleList(norm(shape.norm, channels) for _ in range(2))

    def forward(self, x: Tensor, rng: torch.Generator | None = None, own: bool = False) -> Tensor:
        y = F.relu(normalised(self.norms[0], self.convs[0](F.pad(x, (1,) * 4, self.mode)), own))
        y = y if rng is None else dropped(y, rng)
        return x + normalised(self.norms[1], self.convs[1](F.pad(y, (1,) * 4, self.mode)), own)


class JohnsonGenerator(nn.Module):
    """Images (N, channels_in, H, W) in [-1, 1] -> (N, channels_out, H, W) in [-1, 1]; H and W divisible by `multiple`."""

    def __init__(self, shape: Johnson = Johnson()) -> None:
        super().__init__()
        self.shape, self.multiple = shape, 2**shape.downs
        sizes = [shape.width << level for level in range(shape.downs + 1)]
        self.stem = nn.Conv2d(shape.channels_in, sizes[0], 7, bias=shape.bias)
        self.stem_norm = norm(shape.norm, sizes[0])
        steps = list(pairwise(sizes))
        self.downs = nn.ModuleList(nn.Conv2d(few, many, 3, 2, 1, bias=shape.bias) for few, many in steps)
        self.down_norms = nn.ModuleList(norm(shape.norm, many) for _, many in steps)
        self.blocks = nn.ModuleList(Residual(shape, sizes[-1]) for _ in range(shape.blocks))
        steps.reverse()
        self.ups = nn.ModuleList(nn.ConvTranspose2d(many, few, 3, 2, 1, output_padding=1, bias=shape.bias) for few, many in steps)
        self.up_norms = nn.ModuleList(norm(shape.norm, few) for few, _ in steps)
        self.head = nn.Conv2d(sizes[0], shape.channels_out, 7)

    def forward(self, images: Tensor, rng: torch.Generator | None = None, own: bool = False) -> Tensor:
        """Translate; `rng` draws the dropout, which is left out without it, `own` is that of `norms.normalised`."""
        drops = rng if self.shape.dropout else None
        x = F.relu(normalised(self.stem_norm, self.stem(F.pad(images, (3,) * 4, "reflect")), own))
        for conv, layer in zip(self.downs, self.down_norms, strict=True):
            x = F.relu(normalised(layer, conv(x), own))
        for block in self.blocks:
            x = block(x, drops, own)
        for conv, layer in zip(self.ups, self.up_norms, strict=True):
            x = F.relu(normalised(layer, conv(x), own))
        return self.head(F.pad(x, (3,) * 4, "reflect")).tanh()


def dropped(x: Tensor, rng: torch.Generator) -> Tensor:
    """Set half of the values to zero and double the others, as `rng` draws it."""
    kept = torch.rand(x.shape, generator=rng, device=rng.device).to(x.device) < 0.5
    return x * kept * 2

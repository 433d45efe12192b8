"""Patch discriminators: one logit for every patch of a picture, at one or several scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from limn.blocks.norms import Norm, norm, normalised


@dataclass(frozen=True)
class Patch:
    """Shape of a patch discriminator: a convolution per width, all but the last of stride 2, then one to the logit."""

    channels_in: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of each convolution: four of them see 70x70 pixels
    norm: Norm = "batch"  # of all but the first
    bias: bool = False  # of the normalised convolutions; the first and the last one always have one
    padding: int = 1  # of the 4x4 kernels: 1 in pix2pix, 2 in pix2pixHD and SPADE
    spectral: bool = False  # spectral norm of the normalised convolutions


def widths(width: int, layers: int, most: int = 8) -> tuple[int, ...]:
    """Double the width at every layer after the first, up to `most` times."""
    return tuple(width * min(2**layer, most) for layer in range(layers + 1))


class PatchDiscriminator(nn.Module):
    """Images (N, channels_in, H, W) -> logits (N, 1, h, w), large where a patch looks real (arXiv 1611.07004, section 3.2.2)."""

    def __init__(self, shape: Patch) -> None:
        super().__init__()
        self.shape = shape
        convs, norms, inputs, last = [], [], shape.channels_in, len(shape.widths) - 1
        for index, width in enumerate(shape.widths):
            middle = index > 0
            conv = nn.Conv2d(inputs, width, 4, 2 if index < last else 1, shape.padding, bias=shape.bias or not middle)
            convs.append(spectral_norm(conv) if middle and shape.spectral else conv)
            norms.append(norm(shape.norm if middle else "none", width))
            inputs = width
        convs.append(nn.Conv2d(inputs, 1, 4, 1, shape.padding))
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(norms)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the map after every layer; the last one holds the logits."""
        maps = [images]
        for conv, layer in zip(self.convs, self.norms, strict=False):
            maps.append(F.leaky_relu(normalised(layer, conv(maps[-1])), 0.2))
        return [*maps[1:], self.convs[-1](maps[-1])]

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)[-1]


class MultiScale(nn.Module):
    """Patch discriminators of one shape that look at a picture and at its halves: a list of features for each, the full size first."""

    def __init__(self, shape: Patch, scales: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(shape) for _ in range(scales))

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        found = []
        for scale in self.scales:
            assert isinstance(scale, PatchDiscriminator)
            found.append(scale.features(images))
            images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
        return found


def feature_matching(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of all features but the logits, summed over layers, averaged over scales (arXiv 1711.11585, eq. 4)."""
    pairs = [(x, y.detach()) for ours, theirs in zip(fake, real, strict=True) for x, y in zip(ours[:-1], theirs[:-1], strict=True)]
    return torch.stack([F.l1_loss(x, y) for x, y in pairs]).sum() / len(fake)

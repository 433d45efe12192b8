"""Going on at twice the resolution: StyleGAN2's new outermost blocks begin as if they were not there."""

from __future__ import annotations

import math
from typing import Any

import torch

from limn.models.records import State


@torch.no_grad()
def silence(generator: Any, discriminator: Any, smaller: State) -> None:
    """Make the outermost blocks of a skip generator and a residual discriminator do nothing, given the state at half the size.

    The generator's new ToRGB is silent. The discriminator's new block hands on what the smaller network read from the image:
    two leaky ReLUs of x and of -x subtract to 2.08 x, so that colour passes through it unchanged.
    """
    size, image_channels = generator.config.size, generator.config.image_channels
    generator.synthesis.blocks[-1].torgb.weight.zero_()
    block = getattr(discriminator, f"b{size}")
    if not hasattr(block, "skip") or len(block.conv0.weight) < 2 * image_channels:
        return  # another architecture, or too narrow to carry the colours: the block begins at random
    weight = smaller[f"discriminator.b{size // 2}.fromrgb.weight"] / math.sqrt(image_channels)
    bias, colours = smaller[f"discriminator.b{size // 2}.fromrgb.bias"], weight.shape[1]
    for channel in range(2 * colours):
        sign, colour = (1, channel) if channel < colours else (-1, channel - colours)
        for layer in (block.fromrgb, block.conv0):
            layer.weight[channel], layer.bias[channel] = 0.0, 0.0
        block.fromrgb.weight[channel, colour] = sign / block.fromrgb.scale
        block.conv0.weight[channel, channel, 1, 1] = 1 / block.conv0.scale
    block.skip.weight.zero_()
    block.conv1.weight.zero_()
    passed = math.sqrt(2) / 2.08 / block.conv1.scale * weight[:, :, 0, 0]
    block.conv1.weight[:, : 2 * colours, 1, 1] = torch.cat([passed, -passed], 1)
    block.conv1.bias.copy_(math.sqrt(2) * bias)

"""Minibatch standard deviation: how different the samples of a batch are, told to a discriminator.

Karras et al., Progressive Growing of GANs (arXiv 1710.10196), section 3.
"""

from __future__ import annotations

from torch import Tensor, cat

from limn.errors import InputError


def minibatch_std(x: Tensor, group: int, channels: int) -> Tensor:
    """Append `channels` maps that hold the mean deviation within groups of `group` samples ."""
    count, depth, height, width = x.shape
    group = min(group, count)
    if count % group:
        raise InputError(f"a batch of {count} cannot be split into groups of {group} for the minibatch deviation: choose a multiple of it")
    y = x.float().reshape(group, count // group, channels, depth // channels, height, width)
    y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((2, 3, 4))
    y = y[..., None, None].repeat(group, 1, height, width).to(x.dtype)
    return cat([x, y], 1)

"""Minibatch standard deviation: how different the samples of a batch are, told to a discriminator.

Karras et al., Progressive Growing of GANs (arXiv 1710.10196), section 3.
"""

from __future__ import annotations

from torch import Tensor, cat

from limn.errors import InputError


def minibatch_std(x: Tensor, group: int, channels: int, sets: int = 1) -> Tensor:
    """Append `channels` maps that hold the mean deviation within groups of `group` samples; no group mixes the `sets` that x stacks."""
    count, depth, height, width = len(x) // sets, *x.shape[1:]
    group = min(group, count)
    if count % group:
        raise InputError(f"a batch of {count} cannot be split into groups of {group} for the minibatch deviation: choose a multiple of it")
    y = x.float().reshape(sets, group, count // group, channels, depth // channels, height, width)
    y = (y.var(1, unbiased=False) + 1e-8).sqrt().mean((3, 4, 5))
    y = y[:, None, ..., None, None].expand(-1, group, -1, -1, height, width).reshape(len(x), channels, height, width)
    return cat([x, y.to(x.dtype)], 1)

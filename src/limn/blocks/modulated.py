"""Modulated convolution: the style scales the input channels, demodulation restores unit variance.

Karras et al., StyleGAN2 (arXiv 1912.04958), section 2.2, equations 1 to 3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limn.blocks.equalized import SLOPE, scaled
from limn.blocks.fir import fir


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Return the factor (N, outputs) that brings each output channel to unit variance (equation 3)."""
    energy: Tensor = _Energy.apply(weight) if torch.is_grad_enabled() and weight.requires_grad else _energy(weight)
    return torch.rsqrt(style.float().square() @ energy.T + 1e-8)


class _Energy(torch.autograd.Function):
    """Sum of squares of each kernel: (O, I, k, k) -> (O, I), with a gradient in one pass over the weights."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _energy(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return weight * (2 * grads[0])[:, :, None, None].to(weight.dtype)


def _energy(weight: Tensor) -> Tensor:
    return weight.float().square().sum((2, 3))


def modulated_conv(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    demodulate: bool = True,
    up: Tensor | None = None,
    gain: float = 1.0,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve (N, I, H, W) with `weight` (O, I, k, k) scaled by `style` (N, I); with the FIR kernel `up` the size doubles.

    Scales activations instead of weights: the same numbers without a weight per sample, so that any batch is one convolution.
    `bias` (O,) is added in the end; `gain` goes with demodulation and leaves it as it is.
    """
    scale = (demodulation(weight, style) * gain).to(x.dtype)[:, :, None, None] if demodulate else None
    x = x * style.to(x.dtype)[:, :, None, None]
    if up is None:
        x = F.conv2d(x, scaled(weight, 1, x), padding=weight.shape[-1] // 2)
    else:
        x = conv_up(x, scaled(weight, 1, x), up)
    added = None if bias is None else bias.to(x.dtype)[:, None, None]
    if scale is None:
        return x if added is None else x + added
    return x * scale.to(x.dtype) if added is None else torch.addcmul(added, x, scale.to(x.dtype))


def folded_layer(
    x: Tensor, weight: Tensor, style: Tensor, bias: Tensor, noise: Tensor | None, up: Tensor | None = None, gain: float = 1.0
) -> Tensor:
    """One whole layer on one sample without gradients: x (1, I, H, W), style (1, I), noise (..., H, W) -> activated (1, O, H, W).

    Style, demodulation, gain and bias go into the weights, the rest happens in place: on a CPU the convolution is then all that
    is left to pay for.
    """
    folded = weight * (style[0, :, None, None] * gain)
    folded *= demodulation(weight, style)[0, :, None, None, None]
    folded = folded.to(x.dtype, memory_format=torch.channels_last)
    bias = (bias * gain).to(x.dtype)
    if up is None:
        y = F.conv2d(x, folded, bias, padding=weight.shape[-1] // 2)
    else:
        y = conv_up(x, folded, up).add_(bias[:, None, None])
    if noise is not None:
        y.add_(noise.to(y.dtype))
    return F.leaky_relu_(y, SLOPE)


def conv_up(x: Tensor, weight: Tensor, taps: Tensor) -> Tensor:
    """Transposed convolution of stride 2, then the FIR filter with gain 4: (N, I, H, W) -> (N, O, 2H, 2W)."""
    length, size = len(taps), weight.shape[-1]
    pad = size // 2
    before = pad + (length + 1) // 2 - (size - 1)
    after = pad + (length - 2) // 2 - (size - 2)
    cut = max(min(-before, -after), 0)
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=cut)
    return fir(x, taps, (before + cut, after + cut), gain=4)

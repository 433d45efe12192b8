"""Layers with an equalised learning rate: weights are stored at unit variance and scaled when used.

Karras et al., Progressive Growing of GANs (arXiv 1710.10196), section 4.1; activation gain as in StyleGAN2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.fir import downsample, fir, upsample

SLOPE = 0.2


def activate(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU 0.2 in place, clamped to ±`clamp`. Its published gain √2 is folded into what comes before: it is homogeneous."""
    if torch.is_grad_enabled() and x.requires_grad:
        activated: Tensor = _Activate.apply(x, clamp)
        return activated
    x = F.leaky_relu_(x, SLOPE)
    return x if clamp is None else x.clamp_(-clamp, clamp)


class _Activate(torch.autograd.Function):
    """Only the result is kept for the gradient: PyTorch's own `clamp` keeps its input too and compares it again, slowly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clamp: float | None) -> Tensor:
        F.leaky_relu_(x, SLOPE)
        if clamp is not None:
            x.clamp_(-clamp, clamp)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.clamp = clamp
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Slope.apply(grads[0], ctx.saved_tensors[0], ctx.clamp), None


class _Slope(torch.autograd.Function):
    """Scale (N, ...) by the slope of the activation that gave `y`; linear, and its own transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, clamp: float | None) -> Tensor:
        ctx.save_for_backward(y)
        ctx.clamp = clamp
        x = torch.ops.aten.leaky_relu_backward(x, y, SLOPE, True)
        return x if clamp is None else torch.ops.aten.hardtanh_backward(x, y, -clamp, clamp)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Slope.apply(grads[0], ctx.saved_tensors[0], ctx.clamp), None, None


def scaled(weight: Tensor, factor: float, x: Tensor) -> Tensor:
    """Return weight * factor in the type that x is convolved in: its own, or that of autocast."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if torch.is_grad_enabled() and weight.requires_grad:
        prepared: Tensor = _Scaled.apply(weight, factor, dtype)
        return prepared
    return (weight if factor == 1 else weight * factor).to(dtype)


class _Scaled(torch.autograd.Function):
    """oneDNN hands gradients back in another memory layout than the weights': here they are brought to it and scaled once."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
        ctx.factor, ctx.dtype = factor, weight.dtype
        last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if last else torch.contiguous_format
        return (weight if factor == 1 else weight * factor).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        gradient = grads[0].to(ctx.dtype, memory_format=ctx.layout)
        return gradient if ctx.factor == 1 else gradient * ctx.factor, None, None


class EqualLinear(nn.Module):
    """(N, inputs) -> (N, outputs); `rate` multiplies the learning rate of weight and bias."""

    def __init__(self, inputs: int, outputs: int, activation: bool = False, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.activation, self.rate, self.scale = activation, rate, rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        gain = math.sqrt(2) if self.activation else 1.0
        x = F.linear(x, scaled(self.weight, self.scale * gain, x), scaled(self.bias, self.rate * gain, x))
        return activate(x) if self.activation else x


class EqualConv(nn.Module):
    """Convolution with an equalised learning rate, a filtered change of resolution and an activation.

    `taps` is the one-dimensional FIR kernel where `up` or `down` (2) changes the resolution.
    """

    taps: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        taps: Tensor,
        up: bool = False,
        down: bool = False,
        bias: bool = True,
        activation: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("taps", taps, persistent=False)
        self.up, self.down, self.activation, self.clamp = up, down, activation, clamp
        self.scale = 1 / math.sqrt(inputs * size * size)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        clamp = None if self.clamp is None else self.clamp * gain
        gain = gain * math.sqrt(2) if self.activation else gain
        bias = None if self.bias is None else scaled(self.bias, gain, x)
        x = self.convolve(x, scaled(self.weight, self.scale * gain, x), bias)
        if self.activation:
            return activate(x, clamp)
        return x if clamp is None else x.clamp(-clamp, clamp)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        size, length = weight.shape[-1], len(self.taps)
        if self.down and size == 1:
            return F.conv2d(downsample(x, self.taps), weight, bias)
        if self.down:
            pad = size // 2
            return F.conv2d(fir(x, self.taps, (pad + (length - 1) // 2, pad + (length - 2) // 2)), weight, bias, stride=2)
        if self.up:  # only 1×1 kernels without a bias are up-sampled here: the residual branch of the generator
            return upsample(F.conv2d(x, weight), self.taps)
        return F.conv2d(x, weight, bias, padding=size // 2)

"""Layers with an equalised learning rate: weights are stored at unit variance and scaled when used.

Karras et al., Progressive Growing of GANs (arXiv 1710.10196), section 4.1; activation gain as in StyleGAN2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.fir import downsample, fir, upsample

SLOPE = 0.2


def activate(x: Tensor, bias: Tensor | None, gain: float = math.sqrt(2), clamp: float | None = None) -> Tensor:
    """Add the bias along axis 1, apply leaky ReLU 0.2, multiply by `gain`, and clamp to ±`clamp`."""
    x = F.leaky_relu(add_bias(x, bias), SLOPE) * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def add_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias (C,) along axis 1 of x, in the dtype of x."""
    return x if bias is None else x + bias.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))


class EqualLinear(nn.Module):
    """(N, inputs) -> (N, outputs); `rate` multiplies the learning rate of weight and bias."""

    def __init__(self, inputs: int, outputs: int, activation: bool = False, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.activation, self.rate, self.scale = activation, rate, rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias * self.rate
        if self.activation:
            return activate(F.linear(x, self.weight * self.scale), bias)
        return F.linear(x, self.weight * self.scale, bias)


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
        x = self.convolve(x, self.weight * self.scale)
        clamp = None if self.clamp is None else self.clamp * gain
        if self.activation:
            return activate(x, self.bias, math.sqrt(2) * gain, clamp)
        x = add_bias(x, self.bias)
        x = x if gain == 1.0 else x * gain
        return x if clamp is None else x.clamp(-clamp, clamp)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        size, length = weight.shape[-1], len(self.taps)
        if self.down and size == 1:
            return F.conv2d(downsample(x, self.taps), weight)
        if self.down:
            pad = size // 2
            return F.conv2d(fir(x, self.taps, (pad + (length - 1) // 2, pad + (length - 2) // 2)), weight, stride=2)
        if self.up:  # only 1×1 kernels are up-sampled here: the residual branch of the generator
            return upsample(F.conv2d(x, weight), self.taps)
        return F.conv2d(x, weight, padding=size // 2)

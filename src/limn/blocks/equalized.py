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


def activate(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU 0.2 in place, clamped to ±`clamp`. Its published gain √2 is folded into what comes before: it is homogeneous."""
    x = F.leaky_relu(x, SLOPE, inplace=True)
    return x if clamp is None else x.clamp(-clamp, clamp)


class EqualLinear(nn.Module):
    """(N, inputs) -> (N, outputs); `rate` multiplies the learning rate of weight and bias."""

    def __init__(self, inputs: int, outputs: int, activation: bool = False, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.activation, self.rate, self.scale = activation, rate, rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        gain = math.sqrt(2) if self.activation else 1.0
        x = F.linear(x, self.weight * (self.scale * gain), self.bias * (self.rate * gain))
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
        x = self.convolve(x, self.weight * (self.scale * gain), None if self.bias is None else self.bias * gain)
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

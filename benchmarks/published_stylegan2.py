"""The training step of StyleGAN2-ADA in the order in which the published trainer computes it on a CPU, its reference path.

Float32 and NCHW: demodulation from one weight tensor per sample; zeros inserted and filtered for every change of resolution; bias,
activation, gain and clamp as separate steps; generated and real pictures judged one after the other; the whole augmentation pipe at
any probability; gradients cleaned of what is not finite; Adam and the average parameter by parameter. `published()` puts all of that in
the place of limn's own, so that both ways share objective, phases, random numbers and weights, and can be compared number by number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from synthesis import published_filter
from torch import Tensor, nn

from limn.blocks import augment
from limn.blocks.equalized import EqualConv, EqualLinear
from limn.losses.adversarial import logistic
from limn.models.generation import stylegan2
from limn.models.generation.stylegan2 import Layer, Objective, ToRGB
from limn.models.records import Losses
from limn.training import average, loop


def act(x: Tensor, bias: Tensor | None, active: bool, gain: float, clamp: float | None) -> Tensor:
    """Bias, activation, gain and clamp, one after the other."""
    if bias is not None:
        x = x + bias.reshape([1, -1] + [1] * (x.ndim - 2))
    if active:
        x = F.leaky_relu(x, 0.2)
    gain = gain * math.sqrt(2) if active else gain
    x = x * gain if gain != 1 else x
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def modulate(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool) -> tuple[Tensor, Tensor | None]:
    """Scale the input by its style; the factor of demodulation comes from one weight tensor per sample."""
    factor = None
    if demodulate:
        factor = ((weight[None] * style[:, None, :, None, None]).square().sum((2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None]
    return x.contiguous() * style[:, :, None, None], factor


def layer(self: Layer, x: Tensor, style: Tensor, noise: Any, rng: torch.Generator | None, gain: float = 1.0) -> Tensor:
    x, factor = modulate(x, self.weight, style, True)
    if self.up:
        x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
        x = published_filter(x, self.taps, 1, (1, 1), 4.0)
    else:
        x = F.conv2d(x, self.weight, padding=1)
    assert factor is not None
    x = torch.addcmul(self.plane(len(x), noise, rng) * self.noise_strength, x, factor)
    return act(x, self.bias, True, gain, self.clamp)


def rgb(self: ToRGB, x: Tensor, style: Tensor) -> Tensor:
    x, _ = modulate(x, self.weight, style / math.sqrt(self.weight.shape[1]), False)
    return act(F.conv2d(x, self.weight), self.bias, False, 1.0, self.clamp)


def conv(self: EqualConv, x: Tensor, gain: float = 1.0) -> Tensor:
    weight, pad = self.weight * self.scale, self.weight.shape[-1] // 2
    x = x.contiguous()
    if self.down:
        around = (pad + 1, pad + 1) if pad else (1, 1)
        x = published_filter(x, self.taps, 1, around, 1.0)
        x = F.conv2d(x, weight, stride=2) if pad else F.conv2d(x[:, :, ::2, ::2], weight)
    else:
        x = F.conv2d(x, weight, padding=pad)
    return act(x, self.bias, self.activation, gain, self.clamp)


def linear(self: EqualLinear, x: Tensor) -> Tensor:
    return act(F.linear(x, self.weight * self.scale), self.bias * self.rate, self.activation, 1.0, None)


def discriminator_loss(self: Objective, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
    images = batch["image"]
    with torch.no_grad():
        fake = self.generator.synthesis(self.styles(len(images), None, rng, self.mixing), "random", rng)
    on_fake, on_real = self.judge(fake, None, rng), self.judge(images, None, rng)
    return {"fake": logistic(on_fake, real=False).mean(), "real": logistic(on_real, real=True).mean()}


def pipe(self: augment.Augment, images: Tensor, generator: torch.Generator) -> Tensor:
    """Every step on every picture, also where nothing was drawn for it."""
    draws = augment._Draws(len(images), float(self.p), images.device, generator, None)
    inverse = augment.inverse_geometry(draws, self.config, *images.shape[2:])
    images = resample(images, inverse, self.Hz_geom, augment._margins(inverse, *images.shape[2:]))
    return augment.recolour(images, augment.colour_matrix(draws, self.config))


def along(x: Tensor, taps: Tensor, vertical: bool) -> Tensor:
    """Filter each channel with (K,) in one direction."""
    weight = (taps[:, None] if vertical else taps[None]).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(x, weight, groups=x.shape[1])


def resample(images: Tensor, inverse: Tensor, taps: Tensor, margins: tuple[int, int, int, int]) -> Tensor:
    """Mirror the border, insert zeros and filter, sample along a grid, filter and drop every second pixel."""
    (count, channels, height, width), (left, top, right, bottom) = images.shape, margins
    images = F.pad(images.contiguous(), [left, right, top, bottom], mode="reflect")
    rows, columns = images.shape[2:]
    x = F.pad(images.reshape(count, channels, rows, 1, columns, 1), (0, 1, 0, 0, 0, 1)).reshape(count, channels, 2 * rows, 2 * columns)
    x = F.pad(x, (6, 5, 6, 5))
    flipped = 2 * taps.flip(0)
    x = along(along(x, flipped, False), flipped, True)

    def about(x: float, y: float, move: bool) -> Tensor:
        a, b = (torch.full((count,), value) for value in (x, y))
        return augment._translate(a, b) if move else augment._scale(a, b)

    inverse = about((left - right) / 2, (top - bottom) / 2, True) @ inverse
    inverse = about(2, 2, False) @ inverse @ about(0.5, 0.5, False)
    inverse = about(-0.5, -0.5, True) @ inverse @ about(0.5, 0.5, True)
    shape = [count, channels, 2 * (height + 6), 2 * (width + 6)]
    inverse = about(2 / x.shape[3], 2 / x.shape[2], False) @ inverse @ about(shape[3] / 2, shape[2] / 2, False)
    grid = F.affine_grid(inverse[:, :2], shape, align_corners=False)
    moved: Tensor = augment._Bilinear.apply(x, grid)
    moved = moved[:, :, 1:-1, 1:-1]  # a padding of -6 in each direction, less the reach of the filter
    return along(along(moved, taps, False), taps, True)[:, :, ::2, ::2]


def optimiser(adam: Any, parameters: Any) -> torch.optim.Optimizer:
    """Adam, parameter by parameter, after cleaning the gradients."""
    found = torch.optim.Adam(list(parameters), lr=adam.lr, betas=adam.betas, eps=adam.eps, foreach=False)

    def clean(of: torch.optim.Optimizer, *_: Any) -> None:
        for group in of.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)

    found.register_step_pre_hook(clean)
    return found


@torch.no_grad()
def update(averages: nn.ModuleDict, networks: nn.ModuleDict, past: float) -> None:
    for name, shadow in averages.items():
        for ours, live in zip(shadow.parameters(), networks[name].parameters(), strict=True):
            ours.copy_(live.lerp(ours, past))
        for ours, live in zip(shadow.buffers(), networks[name].buffers(), strict=True):
            ours.copy_(live)


@contextmanager
def published() -> Iterator[None]:
    """Compute in the published order."""
    ways: list[tuple[Any, str, Any]] = [(kind, "forward", way) for kind, way in ((Layer, layer), (ToRGB, rgb), (EqualConv, conv))]
    ways += [(EqualLinear, "forward", linear), (augment.Augment, "forward", pipe), (Objective, "discriminator_loss", discriminator_loss)]
    ways += [(loop, "optimiser", optimiser), (average, "update", update)]
    ways += [(stylegan2, "upsample", lambda x, taps: published_filter(x, taps, 2, (2, 1), 4.0))]
    patches = [mock.patch.object(*way) for way in ways]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()

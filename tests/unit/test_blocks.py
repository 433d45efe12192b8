"""The blocks of StyleGAN2: their own gradients are those of the plain operations, of first and second order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from limn.blocks.deviation import minibatch_std
from limn.blocks.equalized import EqualConv, activate, scaled
from limn.blocks.fir import downsample, fir, kernel, upsample
from limn.blocks.modulated import demodulation
from limn.models.generation.stylegan2 import Config, Discriminator
from limn.models.records import seeded

WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fir": lambda x, taps: fir(x, taps, (1, 2), 4.0),
    "cut": lambda x, taps: fir(x, taps, (2, -1)),
    "up": upsample,
    "down": downsample,
}


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(0), dtype=dtype)


@pytest.mark.parametrize("taps", [(1.0, 3.0, 3.0, 1.0), (1.0, 1.0), (1.0, 2.0, 4.0, 3.0, 1.0)])
@pytest.mark.parametrize("way", WAYS)
def test_resampling_can_be_differentiated_twice(way: str, taps: tuple[float, ...]) -> None:
    x, weights = drawn(2, 2, 6, 8).requires_grad_(), kernel(taps).double()
    assert gradcheck(lambda x: WAYS[way](x, weights), x)
    assert gradgradcheck(lambda x: WAYS[way](x, weights), x)


@pytest.mark.parametrize("way", WAYS)
def test_resampling_in_bfloat16_is_that_of_float32_rounded(way: str) -> None:
    x = drawn(2, 3, 8, 6, dtype=torch.float32).bfloat16()
    found = []
    for each in (x, x.float()):
        each.requires_grad_()
        y = WAYS[way](each, kernel())
        y.float().square().sum().backward()
        assert each.grad is not None and y.dtype == each.dtype
        found.append((y.detach().float(), each.grad.float()))
    for low, high in zip(*found, strict=True):
        assert (low - high).abs().max() < 0.02 * high.abs().max()


def test_resampling_keeps_the_colours_of_an_image_under_autocast() -> None:
    image = drawn(1, 3, 8, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(upsample(image, kernel()), upsample(image.clone().requires_grad_(), kernel()))
        assert upsample(image, kernel()).dtype == torch.float32


@pytest.mark.parametrize("clamp", [None, 0.7])
def test_activation_has_the_gradients_of_its_steps(clamp: float | None) -> None:
    def steps(x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.2)
        return x if clamp is None else x.clamp(-clamp, clamp)

    x = drawn(3, 4, 5).requires_grad_()
    found = []
    for way in (steps, lambda x: activate(x, clamp)):
        y = way(x * 2)  # in place: a leaf cannot be changed
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append((y, first, *torch.autograd.grad(first.pow(3).sum(), x)))
    for ours, plain in zip(*found, strict=True):
        assert torch.allclose(ours, plain)
    with torch.no_grad():
        assert torch.equal(activate(x * 2, clamp), found[0][0])


def test_scaled_weights_bring_their_gradient_into_the_layout_of_the_weights() -> None:
    layer = EqualConv(3, 8, 3, kernel()).to(memory_format=torch.channels_last)
    x = drawn(2, 3, 6, 6, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert scaled(layer.weight, 0.5, x).dtype == torch.bfloat16
        layer(x).float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.is_contiguous(memory_format=torch.channels_last)
    assert scaled(layer.weight, 0.5, x).equal(layer.weight * 0.5)


def test_demodulation_has_the_gradient_of_its_formula() -> None:
    weight, style = drawn(4, 3, 3, 3).requires_grad_(), drawn(2, 3)
    plain = torch.rsqrt(style.float().square() @ weight.float().square().sum((2, 3)).T + 1e-8)
    ours = demodulation(weight, style)
    assert torch.allclose(ours, plain)
    gradients = [torch.autograd.grad(each.pow(3).sum(), weight)[0] for each in (ours, plain)]
    assert torch.allclose(*gradients)


def test_stacked_batches_are_judged_as_if_they_were_alone() -> None:
    discriminator = Discriminator(Config(size=16, channels=(8, 8, 6), group=2))
    first, second = drawn(4, 3, 16, 16, dtype=torch.float32), 3 * drawn(4, 3, 16, 16, dtype=torch.float32)
    both = discriminator(torch.cat([first, second]), sets=2)
    assert torch.allclose(both, torch.cat([discriminator(first), discriminator(second)]), atol=1e-5)
    deviations = minibatch_std(torch.cat([first, second]), 2, 1, sets=2)[:, 3, 0, 0]
    assert torch.allclose(deviations, torch.cat([minibatch_std(each, 2, 1)[:, 3, 0, 0] for each in (first, second)]))

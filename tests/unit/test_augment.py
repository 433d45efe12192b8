"""ADA's augmentation pipe beyond the parity case: draws, cost-saving shortcuts, gradients, precision."""

import pytest
import torch

from limn.blocks import augment
from limn.blocks.augment import PRESETS, Augment, AugmentConfig
from limn.errors import InputError


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=4, size=32, seed=1):
    return torch.rand(count, 3, size, size, generator=rng(seed)) * 2 - 1


def test_probability_zero_returns_the_images_untouched():
    x = images()
    assert Augment(PRESETS["bgc"], p=0.0)(x, rng()) is x


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_runs_repeats_by_seed_and_keeps_shape(preset):
    pipe, x = Augment(PRESETS[preset], p=0.8), images()
    first, again, other = pipe(x, rng(3)), pipe(x, rng(3)), pipe(x, rng(4))
    assert first.shape == x.shape and first.isfinite().all()
    assert torch.equal(first, again), "the same generator state must give the same augmentation"
    assert not torch.equal(first, other)


def test_global_random_state_is_not_touched():
    before = torch.get_rng_state()
    Augment(PRESETS["bgcfnc"], p=0.9)(images(), rng())
    assert torch.equal(before, torch.get_rng_state())


def test_a_generator_or_a_quantile_is_needed():
    with pytest.raises(InputError, match="generator"):
        Augment(p=0.5)(images())


def test_resampling_by_the_identity_changes_nothing():
    x, eye = images(2), torch.eye(3).repeat(2, 1, 1)
    taps = torch.tensor(augment.SYM6)
    moved = augment.resample(x, eye, taps, augment._margins(eye, 32, 32))
    assert (moved - x).abs().max() < 1e-4, "this is what lets unmoved samples skip it"


def test_samples_that_do_not_move_are_the_same_with_and_without_the_shortcut():
    pipe, x = Augment(PRESETS["bg"], p=0.15), images(16)
    inverse = augment.inverse_geometry(augment._Draws(16, 0.15, x.device, rng(5), None), pipe.config, 32, 32)
    still = (inverse == torch.eye(3)).flatten(1).all(1)
    assert 0 < still.sum() < 16, "the test needs both kinds of samples"
    whole = augment.resample(x, inverse, pipe.Hz_geom, augment._margins(inverse, 32, 32))
    ours = pipe._move(x, inverse)
    assert torch.equal(ours[still], x[still])
    assert (ours - whole).abs().max() < 1e-4


def test_gradients_can_be_taken_twice():
    pipe, x = Augment(PRESETS["bgcfnc"], p=1.0), images(2, 24).requires_grad_()
    weights, way = torch.randn(2, 3, 24, 24, generator=rng(7)), torch.randn(2, 3, 24, 24, generator=rng(8))

    def gradient(at):
        return torch.autograd.grad((pipe(at, rng(2)) ** 3 * weights).sum(), at, create_graph=True)[0]

    (second,) = torch.autograd.grad((gradient(x) * way).sum(), x)
    step = 1e-2
    low, high = ((x + sign * step * way).detach().requires_grad_() for sign in (-1, 1))
    wanted = (gradient(high) - gradient(low)) / (2 * step)
    assert (second - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_low_precision_images_come_back_in_their_type():
    pipe, x = Augment(PRESETS["bgc"], p=1.0), images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = pipe(x.bfloat16(), rng(1))
    assert low.dtype == torch.bfloat16
    assert (low.float() - pipe(x.bfloat16().float(), rng(1))).abs().max() < 0.1


def test_colour_needs_one_or_three_channels():
    assert Augment(PRESETS["color"], p=1.0)(images()[:, :1], rng()).shape[1] == 1
    with pytest.raises(InputError, match="4"):
        Augment(PRESETS["color"], p=1.0)(torch.zeros(1, 4, 32, 32), rng())


def test_the_probability_is_that_of_each_augmentation():
    config = AugmentConfig(cutout=1)
    x = torch.ones(2000, 1, 8, 8)
    cut = (Augment(config, p=0.3)(x, rng()) == 0).flatten(1).any(1).float().mean()
    assert abs(float(cut) - 0.3) < 0.05

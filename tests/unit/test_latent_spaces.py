"""The spaces Z, W, W+ and S: conversions, truncation, mixing, interpolation."""

import pytest
import torch

from limn.errors import InputError
from limn.latent import spaces
from limn.models.generation.stylegan2 import Config, Generator


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Generator(Config(size=16, z_dim=12, w_dim=8, mapping_layers=2, channels=(8, 8, 4))).eval().requires_grad_(False)
        made.mapping.w_avg.copy_(torch.randn(8))
    return made


def test_a_seed_gives_the_same_code_whoever_stands_beside_it(generator):
    assert torch.equal(spaces.sample_z(generator, [7])[0], spaces.sample_z(generator, [3, 7])[1])
    with pytest.raises(InputError, match="seed"):
        spaces.sample_z(generator, [])


def test_every_space_renders_the_same_picture(generator):
    z = spaces.sample_z(generator, [1, 2])
    w = spaces.z_to_w(generator, z)
    w_plus = spaces.w_to_w_plus(generator, w)
    s = spaces.w_plus_to_s(generator, w_plus)
    assert w.shape == (2, 8) and w_plus.shape == (2, generator.num_ws, 8)
    assert [style.shape[1] for style in s] == [8, 8, 8, 8, 8, 8, 4, 4], "two layers and a ToRGB per resolution, one layer at 4x4"
    wanted = generator(z)
    for space, code in (("z", z), ("w", w), ("w_plus", w_plus), ("s", s)):
        assert torch.allclose(spaces.render(generator, space, code), wanted, atol=1e-5), space


def test_codes_of_another_size_are_refused_with_both_sizes(generator):
    with pytest.raises(InputError, match=r"\(1, 512\).*8"):
        spaces.w_to_w_plus(generator, torch.zeros(1, 512))
    with pytest.raises(InputError, match="12"):
        spaces.z_to_w(generator, torch.zeros(1, 8))
    with pytest.raises(InputError, match="S cannot"):
        spaces.to_w_plus(generator, "s", torch.zeros(1, 8))


def test_truncation_goes_to_the_average(generator):
    w = spaces.z_to_w(generator, spaces.sample_z(generator, [5]))
    assert torch.allclose(spaces.truncate(generator, w, 0.0), generator.w_avg)
    assert torch.equal(spaces.truncate(generator, w, 1.0), w)
    partly = spaces.truncate(generator, w, 0.5, cutoff=2)
    assert torch.allclose(partly[:, 2:], w[:, None].expand(-1, 4, -1))
    assert torch.allclose(partly[:, 0], (w + generator.w_avg) / 2, atol=1e-6)


def test_mixing_takes_the_named_layers_only(generator):
    a, b = torch.zeros(1, 6, 8), torch.ones(1, 6, 8)
    mixed = spaces.mix(a, b, [1, 4])
    assert mixed[0, :, 0].tolist() == [0, 1, 0, 0, 1, 0]
    assert a.sum() == 0, "the base code is not changed"


@pytest.mark.parametrize(
    ("text", "layers"),
    [("0-2,5", [0, 1, 2, 5]), ("coarse", [0, 1, 2, 3]), ("middle", [4, 5]), ("all", [0, 1, 2, 3, 4, 5]), ("3", [3])],
)
def test_layers_are_read(text, layers):
    assert spaces.parse_layers(text, 6) == layers


@pytest.mark.parametrize("text", ["", "a-b", "1-", "-3", "0-9", "5-2", "0-99999999999"])
def test_layers_that_make_no_sense_are_refused(text):
    with pytest.raises(InputError, match="layers"):
        spaces.parse_layers(text, 6)


def test_spherical_interpolation_keeps_the_length():
    a, b = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    half = spaces.slerp(a, b, 0.5)
    assert torch.allclose(half.norm(dim=1), (a.norm(dim=1) + b.norm(dim=1)) / 2, rtol=1e-4)
    assert torch.allclose(spaces.slerp(a, b, 0.0), a, atol=1e-5) and torch.allclose(spaces.slerp(a, b, 1.0), b, atol=1e-5)
    assert torch.allclose(spaces.slerp(a, 2 * a, 0.5), 1.5 * a, atol=1e-4)


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_journey_passes_its_keys(space):
    keys = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    frames = torch.cat(list(spaces.journey(keys, 5, space, loop=True)))
    assert frames.shape == (15, 16)
    assert torch.allclose(frames[::5], keys, atol=1e-4)
    straight = torch.cat(list(spaces.journey(keys, 5, space, loop=False)))
    assert straight.shape == (11, 16) and torch.allclose(straight[-1], keys[-1])
    with pytest.raises(InputError, match="two keys"):
        next(spaces.journey(keys[:1], 5))

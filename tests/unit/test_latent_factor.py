"""SeFa and principal components."""

import pytest
import torch

from limn.errors import InputError
from limn.latent import factor
from limn.models.generation.stylegan2 import Config, Generator


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(Config(size=16, z_dim=8, w_dim=8, mapping_layers=2, channels=(12, 8, 4))).eval().requires_grad_(False)


def test_style_weights_are_those_that_read_the_layers(generator):
    blocks = generator.synthesis
    assert torch.equal(factor.style_weights(generator, [0]), blocks.b4.conv1.affine.weight)
    assert torch.equal(factor.style_weights(generator, [2]), blocks.b8.conv1.affine.weight)
    assert len(factor.style_weights(generator)) == 12 + 12 + 8 + 8 + 4
    with_rgb = factor.style_weights(generator, [1], to_rgb=True)
    assert len(with_rgb) == 24, "the ToRGB of 4x4 shares layer 1 with the first convolution of 8x8"
    with pytest.raises(InputError, match="0 to 5"):
        factor.style_weights(generator, [9])


def test_factorisation_is_sorted_and_orthogonal(generator):
    rows, values = factor.factorise(factor.style_weights(generator))
    assert torch.allclose(rows @ rows.T, torch.eye(8), atol=1e-5)
    assert (values.diff() <= 1e-5).all() and abs(float(values.sum()) - 44) < 1e-3, "unit columns: eigenvalues sum to their number"
    unit = factor.style_weights(generator)
    unit = unit / unit.norm(dim=1, keepdim=True)
    assert torch.allclose((unit @ rows[0]).square().sum(), values[0], rtol=1e-4), "the first direction changes the styles most"


def test_incremental_components_are_those_of_all_samples():
    rng = torch.Generator().manual_seed(0)
    samples = torch.randn(500, 10, generator=rng) * torch.arange(10, 0, -1) + 5
    whole, parts = factor.pca(samples, 10), factor.incremental_pca(samples.split(100), 10)
    assert torch.allclose(whole.components, parts.components, atol=1e-4)
    assert torch.allclose(whole.stdev * (500 / 499) ** 0.5, parts.stdev, rtol=1e-4)
    assert torch.allclose(whole.mean, parts.mean, atol=1e-4) and abs(float(parts.ratio.sum()) - 1) < 1e-4
    assert torch.allclose(factor.spread(whole.components, samples), whole.stdev, rtol=1e-4)
    with pytest.raises(InputError, match="too few"):
        factor.incremental_pca(samples[:4].split(2), 10)
    with pytest.raises(InputError, match="span"):
        factor.pca(samples, 11)


def test_setting_a_coordinate_sets_it():
    samples = torch.randn(300, 6, generator=torch.Generator().manual_seed(1)) @ torch.diag(torch.arange(6, 0, -1.0))
    basis = factor.pca(samples, 3)
    moved = factor.set_coordinate(samples[:2, None].expand(-1, 4, -1), basis, 1, 2.0, [0, 3])
    coordinate = (moved[:, 0] - basis.mean) @ basis.components[1] / basis.stdev[1]
    assert torch.allclose(coordinate, torch.full((2,), 2.0), atol=1e-4)
    assert torch.equal(moved[:, 1], samples[:2])

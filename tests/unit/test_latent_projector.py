"""Inversion by optimisation, and pivotal tuning, on a tiny generator."""

import pytest
import torch
import torch.nn.functional as F

from limn.errors import InputError
from limn.latent.projector import Locality, Schedule, near, project, statistics, tune
from limn.models.generation.stylegan2 import Config, Generator


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(Config(size=16, z_dim=8, w_dim=8, mapping_layers=2, channels=(8, 8, 8))).eval().requires_grad_(False)


def target_of(generator, seed=3):
    return generator(torch.randn(1, 8, generator=torch.Generator().manual_seed(seed)))


def test_a_generated_picture_is_found_again(generator):
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    target, seen = target_of(generator), []
    found = project(
        generator, target, F.mse_loss, schedule=Schedule(steps=120, regularise=0.0), progress=lambda step, loss: seen.append(step)
    )
    error = F.mse_loss(generator.synthesis(found.code[:, None].expand(-1, generator.num_ws, -1)), target)
    assert found.code.shape == (1, 8) and not found.noise
    assert error < 0.1 * found.distances[0], "the optimisation must come close to a picture that the generator can make"
    assert seen == list(range(120)) and found.path.shape == (120, 8)
    assert all(torch.equal(state[name], tensor) for name, tensor in generator.state_dict().items()), "the generator is not changed"


def test_the_same_seed_gives_the_same_code(generator):
    runs = [project(generator, target_of(generator), F.mse_loss, seed=5, schedule=Schedule(steps=5)).code for _ in range(2)]
    assert torch.equal(*runs)


def test_w_plus_is_searched_from_a_start_and_noise_stays_normal(generator):
    start = statistics(generator, torch.randn(50, 8, generator=torch.Generator().manual_seed(0)))[0][:, None].expand(
        -1, generator.num_ws, -1
    )
    found = project(generator, target_of(generator), F.mse_loss, start=start, schedule=Schedule(steps=20), pull=1e-3)
    assert found.code.shape == (1, generator.num_ws, 8)
    assert set(found.noise) == {name for name, _ in generator.synthesis.named_buffers() if name.endswith("noise_const")}
    for plane in found.noise.values():
        assert abs(float(plane.mean())) < 1e-5 and abs(float(plane.square().mean()) - 1) < 1e-4
    tight = project(generator, target_of(generator), F.mse_loss, start=start, schedule=Schedule(steps=20), pull=100.0)
    assert (tight.code - start).norm() < (found.code - start).norm(), "the pull keeps the code near its start"


def test_a_target_of_another_size_is_refused(generator):
    with pytest.raises(InputError, match=r"\(1, 3, 16, 16\)"):
        project(generator, torch.zeros(1, 3, 32, 32), F.mse_loss)


def test_tuning_fits_the_picture_and_leaves_the_original(generator):
    target = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pivot = generator.mapping(torch.randn(1, 8, generator=torch.Generator().manual_seed(2)))
    before = generator.synthesis(pivot)
    tuned = tune(generator, pivot, target, F.mse_loss, steps=60, lr=3e-3)
    assert torch.equal(generator.synthesis(pivot), before), "the original generator is not touched"
    assert F.mse_loss(tuned.generator.synthesis(pivot), target) < 0.5 * tuned.distances[0]
    assert all(not p.requires_grad for p in tuned.generator.parameters())
    early = tune(generator, pivot, target, F.mse_loss, steps=60, lr=3e-3, stop=0.9 * tuned.distances[0])
    assert len(early.distances) < 60 and early.distances[-1] <= 0.9 * tuned.distances[0]


def test_locality_keeps_the_rest_of_the_space(generator):
    target = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pivot = generator.mapping(torch.randn(1, 8, generator=torch.Generator().manual_seed(2)))
    far = near(generator, pivot, torch.randn(8, 8, generator=torch.Generator().manual_seed(9)), Locality(radius=2.0))
    assert torch.allclose((far - pivot).flatten(1).norm(dim=1), torch.full((8,), 2.0), atol=1e-4)
    free = tune(generator, pivot, target, F.mse_loss, steps=40, lr=3e-3).generator
    held = tune(generator, pivot, target, F.mse_loss, steps=40, lr=3e-3, locality=Locality(radius=2.0, weight=10.0, samples=2)).generator
    wanted = generator.synthesis(far, "none")
    assert F.mse_loss(held.synthesis(far, "none"), wanted) < F.mse_loss(free.synthesis(far, "none"), wanted)

"""Encoders into W+: shapes, progressive offsets, recognition from shapes, objectives that learn and resume."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limn.blocks import irse
from limn.errors import TrainingError
from limn.models.generation import stylegan2
from limn.models.inversion import e4e, psp
from limn.models.perception import arcface
from limn.models.records import seeded

SMALL = e4e.Config(size=32, stem=8, widths=(8, 12, 16, 24), units=(1, 1, 2, 1), style_width=16, w_dim=16, num_ws=6, hidden=16)


@pytest.fixture(scope="module")
def generator() -> stylegan2.Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = stylegan2.Generator(stylegan2.Config(size=16, z_dim=16, w_dim=16, mapping_layers=2, channels=(16, 16, 16)))
    return made.eval().requires_grad_(False)


def small(**changes: Any) -> e4e.Objective:
    settings = {"weights": e4e.Weights(supervised=1.0), "rates": (3e-3, 1e-3), "progress": (2, 1), "pool": 8, **changes}
    return e4e.objective(SMALL, 0, **settings)


def images(count: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed)) * 2 - 1


def run(objective: e4e.Objective, steps: range) -> list[float]:
    """Take steps as a training loop does; all chance comes from the step and the phase."""
    optimisers = {p.name: torch.optim.Adam(p.parameters(), p.optimiser.lr) for p in objective.phases() if not p.shares}
    history = []
    for step in steps:
        for index, phase in enumerate(objective.phases()):
            if step % phase.every:
                continue
            losses = phase.loss({"image": images(seed=step % 3)}, seeded(step * 10 + index))
            of = optimisers[phase.shares or phase.name]
            of.zero_grad()
            sum(losses.values(), torch.zeros(())).backward()
            of.step()
            if phase.name == "encoder":
                history.append(float(losses["supervised"].detach()))
        objective.after_step(step + 1, 4)
    return history


def test_encoder_gives_one_code_for_each_layer_of_images_of_any_size():
    encoder = e4e.Encoder(SMALL).eval()
    assert encoder.encode(images(2)).shape == (2, 6, 16)
    assert encoder.encode(images(1, 80)).shape == (1, 6, 16)


def test_a_stage_leaves_later_layers_at_the_first_code():
    encoder = e4e.Encoder(SMALL).eval()
    encoder.stage = 2
    codes = encoder.codes(images(2))
    assert torch.equal(codes[:, 3:], codes[:, :1].expand(-1, 3, -1)), "layers beyond the stage must repeat w"
    assert not torch.allclose(codes[:, 1], codes[:, 0]), "layers up to the stage must have their offset"


def test_average_code_is_added():
    encoder = psp.Encoder(psp.Config(**{name: value for name, value in vars(SMALL).items() if name not in ("depth", "hidden")})).eval()
    offsets = encoder.codes(images(1))
    encoder.latent_avg += 3.0
    torch.testing.assert_close(encoder.encode(images(1)), offsets + 3.0)


@pytest.mark.parametrize(
    "config",
    [
        psp.Config(
            channels_in=1, stem=8, widths=(8, 12, 16, 24), units=(1, 2, 1, 1), style_width=24, w_dim=16, num_ws=8, size=64, middle=7
        ),
        psp.Config(stem=8, widths=(8, 12, 16, 24), units=(1, 1, 1, 2), style_width=24, w_dim=16, num_ws=18, head="w"),
        psp.Config(stem=8, widths=(8, 12, 16, 24), units=(1, 1, 1, 1), style_width=20, w_dim=512, num_ws=4, head="w_plus"),
    ],
    ids=lambda config: config.head,
)
def test_configuration_is_inferred_from_shapes(config: psp.Config):
    state = psp.build(config).state_dict()
    rows = [row for row in psp.PUBLISHED if row.recognise(state)]
    assert len(rows) == 1, "exactly one layout must know these names"
    assert rows[0].infer(state) == config


def test_published_state_without_average_gets_zero():
    state = psp.Encoder(psp.Config(stem=8, widths=(8, 12, 16, 24), units=(1, 1, 1, 1), w_dim=16, num_ws=4, style_width=8)).state_dict()
    del state["latent_avg"]
    assert psp.with_average(state)["latent_avg"].shape == (4, 16)
    assert torch.equal(psp.with_average({**state, "latent_avg": torch.ones(16)})["latent_avg"], torch.ones(4, 16))


@pytest.mark.parametrize(
    "config",
    [
        arcface.Config("iresnet", (8, 12, 16, 24), (1, 2, 1, 1), False, 32),
        arcface.Config("ir", (8, 12, 16, 24), (2, 1, 1, 1), True, 32),
        arcface.Config("mobile", (128, 128, 256, 256), (2, 1, 1, 1), False, 32),
        arcface.Config("mobile", (64, 64, 128, 128), (1, 1, 1, 1), False, 32),
    ],
    ids=lambda config: f"{config.family}-{config.units[0]}",
)
def test_arcface_families_are_inferred_from_shapes(config: arcface.Config):
    network = arcface.build(config).eval()
    rows = [row for row in arcface.PUBLISHED if row.recognise(network.state_dict())]
    assert len(rows) == 1, "exactly one layout must know these names"
    assert rows[0].infer(network.state_dict()) == config
    assert network(images(2, 112)).shape == (2, 32)


def test_margin_moves_only_the_own_person():
    cosine, label = torch.tensor([[0.5, 0.2], [0.1, 0.9]]), torch.tensor([0, 1])
    logits = arcface.combined_margin(cosine, label, 10.0, angle=0.0, offset=0.4)
    torch.testing.assert_close(logits, torch.tensor([[1.0, 2.0], [1.0, 5.0]]))
    exact = arcface.additive_angle(cosine, label, 1.0, 0.5)
    torch.testing.assert_close(exact[0, 0], torch.cos(torch.tensor(0.5).acos() + 0.5))


def test_units_reduce_the_resolution_once_per_stage():
    trunk = irse.Trunk(stem=4, widths=(4, 6, 8, 10), units=(1, 2, 1, 1))
    body = irse.body(trunk).eval()
    maps = irse.stages(trunk, body, torch.zeros(1, 4, 32, 32))
    assert [tuple(x.shape[1:]) for x in maps] == [(4, 16, 16), (6, 8, 8), (8, 4, 4), (10, 2, 2)]
    assert trunk.ends == (0, 2, 3, 4)


def test_pool_returns_new_codes_until_full_and_old_ones_later():
    pool, draws = e4e.LatentPool(3), Random(0)
    first = torch.arange(3.0)[:, None].expand(-1, 4)
    assert torch.equal(pool.query(first, draws), first)
    later = torch.cat([pool.query(torch.full((4, 4), 10.0 + n), draws) for n in range(6)])
    assert set(later[:, 0].tolist()) & {0.0, 1.0, 2.0}, "codes of the first batch must come back"


def test_objective_takes_the_shape_of_the_generator_and_learns_its_codes(generator: stylegan2.Generator):
    objective = small(generator=generator)
    assert objective.config.num_ws == generator.num_ws == 6
    history = run(objective, range(40))
    assert sum(history[-5:]) < 0.8 * sum(history[:5]), f"known codes must be learnt: {history[:5]} to {history[-5:]}"
    assert objective.encoder.stage == 5


def test_offsets_come_in_one_after_the_other(generator: stylegan2.Generator):
    objective = small(generator=generator, progress=(3, 2))
    stages = []
    for step in range(9):
        objective.after_step(step, 4)
        stages.append(objective.encoder.stage)
    assert stages == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_every_term_is_there_where_its_network_is(generator: stylegan2.Generator):
    look = SimpleNamespace(features=lambda x: [x, nn.functional.avg_pool2d(x, 2)], embed=lambda x: x.flatten(1))
    objective = small(generator=generator, features=look, identity=look)
    losses = objective.encoder_loss({"image": images()}, seeded(0))
    assert set(losses) == {"l2", "perceptual", "identity", "offsets", "adversarial", "supervised"}
    assert all(torch.isfinite(value) for value in losses.values())
    assert objective.samples(objective.networks).shape == (8, 3, 16, 16)


def test_resumed_objective_goes_on_as_if_never_stopped(generator: stylegan2.Generator):
    whole, first, second = (small(generator=generator, rates=(0.0, 0.0)) for _ in range(3))
    run(whole, range(12))
    run(first, range(6))
    second.networks.load_state_dict(first.networks.state_dict())
    second.load_state_dict(first.state_dict())
    assert (second.step, second.encoder.stage) == (6, first.encoder.stage)
    run(second, range(6, 12))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), f"{name} must be the same after a resume"


def test_psp_objective_translates_where_a_target_is_given(generator: stylegan2.Generator):
    config = replace(psp.Config(), size=32, stem=8, widths=(8, 12, 16, 24), units=(1, 1, 1, 1), style_width=16, channels_in=1)
    objective = psp.objective(config, generator=generator, weights=psp.Weights(norm=0.005))
    losses = objective.encoder_loss({"image": images()[:, :1], "target": images()}, seeded(0))
    assert set(losses) == {"l2", "norm"}


def test_an_encoder_needs_a_generator():
    for system in (psp, e4e):
        with pytest.raises(TrainingError, match="generator"):
            system.objective(system.Config())


def test_recipe_of_the_box_stays_small():
    config = replace(e4e.PRESETS["portraits64"].config, w_dim=256, num_ws=10)
    with torch.device("meta"):
        encoder = e4e.Encoder(config)
    assert 2 * sum(parameter.numel() for parameter in encoder.parameters()) < 12e6, "bytes in half precision"

"""The recipes that carry a published setting's name have its hyper-parameters: rates, betas, intervals, batch, weights of the losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limn.models import system

TORCH, GAN, HALF = (0.9, 0.999), (0.5, 0.999), (0.9, 0.99)
LAZY16, LAZY4 = 16 / 17, 4 / 5  # StyleGAN2's correction of rate and betas for phases that share an optimiser

# system, preset -> batch, course of the rate, {phase: (rate, betas, every)}, attributes of the objective or of its weights
Row = tuple[int, str, dict[str, tuple[float, tuple[float, float], int]], dict[str, Any]]
ROWS: dict[tuple[str, str], Row] = {
    ("pix2pix", "facades"): (1, "half", {"generator": (2e-4, GAN, 1), "discriminator": (2e-4, GAN, 1)}, {}),
    ("cyclegan", "horse2zebra"): (
        1,
        "half",
        {"generators": (2e-4, GAN, 1), "discriminators": (2e-4, GAN, 1)},
        {"cycle": 10.0, "identity": 0.5},
    ),
    ("spade", "cityscapes"): (
        32,
        "half",
        {"generator": (1e-4, (0.0, 0.9), 1), "discriminator": (4e-4, (0.0, 0.9), 1)},
        {"matching": 10.0, "perceptual": 10.0, "divergence": 0.05},
    ),
    ("esrgan", "x4"): (
        16,
        "none",
        {"generator": (1e-4, HALF, 1), "discriminator": (1e-4, HALF, 1)},
        {"pixel": 1e-2, "perceptual": 1.0, "adversarial": 5e-3},
    ),
    ("real-esrgan", "x4plus"): (
        48,
        "none",
        {"generator": (1e-4, HALF, 1), "discriminator": (1e-4, HALF, 1)},
        {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.1},
    ),
    ("real-esrgan", "x4plus-psnr"): (48, "none", {"generator": (2e-4, HALF, 1)}, {"pixel": 1.0}),
    ("gpen", "ffhq-512"): (
        4,
        "none",
        {
            "discriminator": (2e-3 * LAZY16, (0.0, 0.99**LAZY16), 1),
            "r1": (2e-3 * LAZY16, (0.0, 0.99**LAZY16), 16),
            "generator": (2e-3 * LAZY4, (0.0, 0.99**LAZY4), 1),
            "path": (2e-3 * LAZY4, (0.0, 0.99**LAZY4), 4),
        },
        {"pixel": 1.0, "identical": 1.0, "gamma": 10.0, "path_weight": 2.0},
    ),
    ("gfpgan", "ffhq-512"): (
        12,
        "none",
        {"generator": (2e-3, (0.0, 0.99), 1), "components": (2e-3, (0.0, 0.99), 1), "r1": (2e-3 * LAZY16, (0.0, 0.99**LAZY16), 16)},
        {"pixel": 0.1, "pyramid": 1.0, "style": 50.0, "adversarial": 0.1, "component": 1.0, "component_style": 200.0, "gamma": 10.0},
    ),
    ("deepfill-v2", "celebahq-256"): (
        16,
        "none",
        {"generator": (1e-4, GAN, 1), "discriminator": (1e-4, GAN, 1)},
        {"l1": 1.0, "adversarial": 1.0},
    ),
    ("raft", "chairs"): (10, "linear", {"flow": (4e-4, TORCH, 1)}, {"gamma": 0.8}),
    ("fomm", "vox-256"): (
        40,
        "none",
        {"generator": (2e-4, GAN, 1), "discriminator": (2e-4, GAN, 1)},
        {"perceptual": 10.0, "gan": 0.0, "matching": 10.0, "value": 10.0, "jacobian": 10.0},
    ),
    ("fomm", "vox-adv-256"): (36, "none", {"generator": (2e-4, GAN, 1)}, {"gan": 1.0}),
    ("face-vid2vid", "vox-256"): (
        32,
        "none",
        {"generator": (2e-4, GAN, 1), "discriminator": (2e-4, GAN, 1)},
        {"perceptual": 10.0, "gan": 1.0, "matching": 10.0, "prior": 10.0, "pose": 20.0, "expression": 5.0},
    ),
}
FROZEN = ("generator", "features", "identity")


@pytest.mark.parametrize(("name", "preset"), ROWS)
def test_a_preset_is_the_published_setting(name: str, preset: str) -> None:
    batch, decay, phases, facts = ROWS[name, preset]
    module = system(name)
    recipe = module.PRESETS[preset]
    assert (recipe.batch, recipe.decay) == (batch, decay)
    options = {key: value for key, value in recipe.objective.items() if key not in FROZEN}
    with torch.device("meta"):  # nothing is computed, and networks of hundreds of megabytes take none
        objective = module.objective(recipe.config, **options)
    made = {phase.name: phase for phase in objective.phases()}
    for phase, (rate, betas, every) in phases.items():
        found = made[phase]
        assert (found.optimiser.lr, found.every) == (pytest.approx(rate), every), phase
        assert found.optimiser.betas == pytest.approx(betas), phase
    for fact, value in facts.items():
        holder = objective.weights if hasattr(getattr(objective, "weights", None), fact) else objective
        assert getattr(holder, fact) == value, fact

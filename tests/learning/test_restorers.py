"""Tiny restorers learn to undo what is done to their pictures, with all their judges, through the command's own function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limn.models.records import Preset, drawing, seeded
from limn.models.restoration import esrgan, gfpgan, gpen, real_esrgan
from limn.tasks.train import train
from limn.training.datasets import open_dataset
from limn.weights import load

GFPGAN_WEIGHTS = {"pixel": 1.0, "pyramid": 1.0, "component_style": 1.0}
TINY: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gpen": (
        gpen,
        gpen.Config(32, 16, 2, (16, 16, 16, 8), concat=False, residual=True),
        {"degradation": "portraits64", "adversarial": 0.01, "path_weight": 0.1, "smooth": False, "pixel": 10.0, "lr": 4e-3},
    ),
    "gfpgan": (
        gfpgan,
        gfpgan.Config("clean", 32, 16, 2, (16, 16, 16, 8), (8, 8, 8, 8), component_width=4),
        {"degradation": "portraits64", "tune": True, "weights": GFPGAN_WEIGHTS, "lr": 4e-3},
    ),
    "esrgan": (
        esrgan,
        esrgan.Config(features=8, blocks=1, growth=4, size=128, judge_width=2),
        {"pixel": 1.0, "perceptual": 0.0, "lr": 4e-3},
    ),
    "real-esrgan": (
        real_esrgan,
        real_esrgan.Config("compact", features=8, convs=2, size=64, judge_width=4),
        {"perceptual": 0.0, "adversarial": 0.001, "lr": 4e-3},
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_a_restorer_comes_nearer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, rng = tmp_path / "pictures", np.random.default_rng(0)
    pictures.mkdir()
    for index in range(20):
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(pictures / f"{index:03}.png")
    module, config, options = TINY[name]
    monkeypatch.setitem(module.PRESETS, "tiny", Preset(config, "images", 4, 40, options, ema_kimg=0.02))
    done = train(name, pictures, out=tmp_path / "run", preset="tiny", device="cpu", precision="float32")
    batch = open_dataset("images", pictures, config, True).batch(0, 16, 1)
    with drawing(0):
        objective = module.objective(config, **options)
    before = objective.generator_loss(batch, seeded(1))["pixel"]
    objective.networks["generator"].load_state_dict(load(done.model, part="generator").model.state_dict())
    after = objective.generator_loss(batch, seeded(1))["pixel"]
    assert done.finished and after < 0.9 * before, f"{name}: {float(before):.3f} to {float(after):.3f}"

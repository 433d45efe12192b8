"""A tiny run of deepfill-v2 learns to continue what surrounds a hole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from limn.blocks import holes
from limn.models.inpainting import deepfill_v2
from limn.models.records import Adam, Preset, seeded
from limn.tasks.train import train
from limn.weights import load


def plain(folder: Path, count: int) -> Tensor:
    """Write pictures of one colour each, and return as many others."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (16, 16), tuple(int(v) for v in rng.integers(0, 256, 3))).save(folder / f"{index:03}.png")
    return torch.tensor(rng.uniform(-1, 1, (16, 3, 1, 1)), dtype=torch.float32).expand(-1, -1, 16, 16)


def missed(model: Path, images: Tensor, mask: Tensor) -> float:
    """Mean absolute error inside the holes."""
    with torch.no_grad():
        filled = load(model).model.inpaint(images, mask)
    return float(((filled - images).abs() * mask).sum() / (3 * mask.sum()))


def test_a_hole_takes_on_the_colour_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = plain(tmp_path / "pictures", 48)
    mask = holes.draw(len(images), (16, 16), seeded(7))
    preset = Preset(
        deepfill_v2.Config(width=8, judge_width=4, padding="symmetric", size=16),
        "images",
        8,
        60,
        {"adam": Adam(4e-3, (0.5, 0.99)), "weights": deepfill_v2.Weights(adversarial=0.01)},
    )
    monkeypatch.setitem(deepfill_v2.PRESETS, "tiny", preset)
    errors, run = [], tmp_path / "run"
    for steps in (1, 60):
        done = train("deepfill-v2", tmp_path / "pictures", out=run, preset="tiny", steps=steps, device="cpu", precision="float32")
        errors.append(missed(done.model, images, mask))
    assert errors[1] < 0.85 * errors[0], f"the colour of the hole is off by {errors[1]:.2f}, before training by {errors[0]:.2f}"

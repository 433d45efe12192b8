"""A tiny run of partial-conv learns to continue what surrounds a hole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from limn.blocks import holes
from limn.models.inpainting import partial_conv
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
        partial_conv.Config(width=8, depth=3, size=16),
        "images",
        8,
        60,
        {"adam": Adam(1e-2), "weights": partial_conv.Weights(perceptual=0, style=0)},
    )
    monkeypatch.setitem(partial_conv.PRESETS, "tiny", preset)
    errors, run = [], tmp_path / "run"
    for steps in (1, 60):
        done = train("partial-conv", tmp_path / "pictures", out=run, preset="tiny", steps=steps, device="cpu", precision="float32")
        errors.append(missed(done.model, images, mask))
    assert errors[1] < 0.5 * errors[0], f"the colour of the hole is off by {errors[1]:.2f}, before training by {errors[0]:.2f}"

"""A tiny StyleGAN2 learns what its pictures look like, through the command's own function."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limn.models.generation import stylegan2
from limn.models.records import Adam, Preset
from limn.tasks.train import train
from limn.training import page
from limn.weights import load

COLOUR = (220, 120, 40)


def test_a_generator_takes_on_the_colour_of_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, rng = tmp_path / "pictures", np.random.default_rng(0)
    pictures.mkdir()
    for index in range(40):
        shade = np.clip(np.array(COLOUR) + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
        Image.fromarray(np.broadcast_to(shade, (8, 8, 3)).copy()).save(pictures / f"{index:03}.png")
    config = stylegan2.Config(size=8, z_dim=8, w_dim=8, mapping_layers=2, channels=(16, 16))
    options = {"adam": Adam(1e-2, (0.0, 0.99)), "gamma": 0.1, "path_weight": 0.0, "augment": ""}
    monkeypatch.setitem(stylegan2.PRESETS, "tiny", Preset(config, "images", 8, 150, options, ema_kimg=0.1))
    monkeypatch.setattr(page, "interval", lambda: 0.0)
    done = train("stylegan2", pictures, out=tmp_path / "run", preset="tiny", device="cpu", precision="float32")
    assert done.finished and done.steps == 150
    target = torch.tensor(COLOUR) / 127.5 - 1
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        off = (load(done.model).model(z).mean((0, 2, 3)) - target).abs().mean()
    begun = target.abs().mean()  # a new generator paints grey
    assert off < 0.5 * begun, f"the mean colour is off by {float(off):.2f}, that of grey by {float(begun):.2f}"
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert not [line for line in lines if "warning" in line], "a healthy run is not warned about"

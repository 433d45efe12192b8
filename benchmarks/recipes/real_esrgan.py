"""Four times larger, after blur, noise and compression twice over: PSNR of portraits of people held out, against bicubic enlargement."""

from __future__ import annotations

from pathlib import Path

import torch

from limn.blocks.degradation import degraded_twice
from limn.models.records import seeded
from limn.training.datasets import open_dataset
from limn.weights import load
from recipes.esrgan import bicubic, inner

DATA = "portraits128.zip"
PRESET = "portraits128"
OPTIONS = ("--where", "era=modern")


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return PSNR in dB over all channels, four pixels cut off at the border."""
    loaded = load(model, part="generator")
    held = open_dataset("images", data, loaded.config, False, where=["era=modern"])
    images = torch.cat([held.batch(step, 1, 0)["image"] for step in range(len(held))])
    parts = [degraded_twice((part + 1) / 2, loaded.model.scale, seeded(seed)) * 2 - 1 for seed, part in enumerate(images.split(8))]
    small = torch.cat(parts)
    made = torch.cat([loaded.model.restore(part) for part in parts])
    return {"psnr": inner(made, images), "psnr_bicubic": inner(bicubic(small, images), images), "pictures": float(len(images))}

"""Facades from label maps: 128 pixels, 208 pairs to learn from."""

from __future__ import annotations

from pathlib import Path

import torch

from limn.training.datasets import open_dataset
from limn.weights import load
from recipes.frechet_limn import crops, frechet_limn

DATA = "facades.zip"
PRESET = "facades-128"
OPTIONS: list[str] = []


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return the mean difference to the photographs that were held out (levels of 255), and the Fréchet distance of 64-pixel crops."""
    loaded = load(model)
    held = open_dataset("paired", data, loaded.config, False, swapped=True)
    batch = held.batch(0, len(held), 0)
    translated = torch.cat([loaded.model.translate(source[None]) for source in batch["source"]])
    distance = frechet_limn(crops(translated, 64, 16), crops(batch["target"], 64, 16))
    return {"l1": float((translated - batch["target"]).abs().mean()) * 127.5, "fd_limn_crops": distance, "pairs": len(held)}

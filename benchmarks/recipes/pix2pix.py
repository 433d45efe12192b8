"""Facades from label maps: 128 pixels, the 176 pairs of square pictures that are not held out."""

from __future__ import annotations

from pathlib import Path

import torch

from limn.training.datasets import open_dataset
from limn.weights import load
from recipes.frechets import crops, frechet_limn

DATA = "facades.zip"
PRESET = "facades-128"
OPTIONS = ["--read", "skip_bad=true"]  # a tenth of the pairs is not square


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return the mean difference to the photographs that were held out (levels of 255), and the Fréchet distance of 64-pixel crops."""
    loaded = load(model)
    held = open_dataset("paired", data, loaded.config, False, swapped=True, skip_bad=True)
    batch = held.batch(0, len(held), 0)
    translated = torch.cat([loaded.model.translate(source[None]) for source in batch["source"]])
    distance = frechet_limn(crops(translated, 64, 16), crops(batch["target"], 64, 16))
    return {"l1": float((translated - batch["target"]).abs().mean()) * 127.5, "fd_limn_crops": distance, "pairs": len(held)}

"""RAFT on portraits: end-point error on pairs made by warping people who were held out."""

from __future__ import annotations

from pathlib import Path

import torch

from limn.models.perception.raft import end_point_errors, pairs
from limn.models.records import seeded
from limn.training.datasets.images import open as images
from limn.weights import load

DATA = "portraits128.zip"
PRESET = "portraits64"
OPTIONS = ["--where", "era=modern"]
PAIRS, BATCH = 160, 16
REACH = 14.0  # pixels: as the preset's


def measure(model: Path, data: Path) -> dict[str, float]:
    """Return the end-point error in pixels of 64, the share below one pixel, and the length of the flows: the error of seeing none."""
    network = load(model)
    held = images(data, network.config, train=False, where=("era=modern",))
    found: dict[str, list[float]] = {"epe": [], "1px": [], "length": []}
    for step in range(PAIRS // BATCH):
        first, second, flow = pairs(held.batch(step, BATCH, 0)["image"], seeded(step), REACH)
        with torch.inference_mode():
            errors = end_point_errors(network.model.flow(first, second, 12), flow)
        found["epe"].append(float(errors["epe"]))
        found["1px"].append(float(errors["1px"]))
        found["length"].append(float(flow.norm(dim=1).mean()))
    return {name: sum(values) / len(values) for name, values in found.items()}

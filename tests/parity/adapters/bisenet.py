"""BiSeNet and ParseNet, the two published face parsers, and BiSeNet's loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from limn.models.perception import bisenet, parsenet
from limn.weights import adopt

if TYPE_CHECKING:
    from parity import Case

Arrays = dict[str, np.ndarray]


def strided(found: torch.Tensor, expected: np.ndarray) -> np.ndarray:
    """Return every n-th row and column from 0 and 1, as many as the case kept."""
    n = max(1, round(found.shape[-1] / expected.shape[-1]))
    kept = found if n == 1 else found[:, :, ::n, 1::n]
    return kept.numpy()


def state_of(case: Case) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in case.weights().items()}


@torch.inference_mode()
def parser(case: Case) -> Arrays:
    model = adopt(state_of(case), "bisenet").model
    found = dict(zip(("out", "out16", "out32"), model(torch.from_numpy(case.inputs["x"])), strict=True))
    return {name: strided(found[name], expected) for name, expected in case.outputs.items()}


@torch.inference_mode()
def residual(case: Case) -> Arrays:
    model = adopt(state_of(case), "parsenet").model
    if str(case.spec["kwargs"].get("relu_type", "")).lower() == "relu":  # its weights look like those of the leaky one
        plain = parsenet.ParseNet(replace(model.config, activation="relu")).eval()
        plain.load_state_dict(model.state_dict())
        model = plain
    found = dict(zip(("mask", "image"), model(torch.from_numpy(case.inputs["x"])), strict=True))
    return {name: strided(found[name], expected) for name, expected in case.outputs.items()}


def loss(case: Case) -> Arrays:
    logits, labels = (torch.from_numpy(case.inputs[name]) for name in ("logits", "labels"))
    settings = case.spec["kwargs"]
    found = bisenet.hard_cross_entropy(logits, labels.long(), settings["thresh"], settings["n_min"], settings.get("ignore_lb", 255))
    return {"loss": found.numpy()}


MODULES = {"model.BiSeNet": parser, "facexlib.parsing.parsenet.ParseNet": residual, "loss.OhemCELoss": loss}

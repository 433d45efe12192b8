"""How the cases of RAFT call our network, its parts and its loss."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.models.perception import raft
from limn.weights.recognise import adopt


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


def stepped(found: Tensor, wanted: np.ndarray) -> np.ndarray:
    """Take every n-th channel, row or column where the case stores fewer."""
    for axis in range(1, found.ndim):
        step = -(-found.shape[axis] // wanted.shape[axis])
        found = found.index_select(axis, torch.arange(0, found.shape[axis], max(step, 1)))
    return found.numpy()


def strided(call: str, full: Tensor, wanted: np.ndarray) -> np.ndarray:
    """The call says from which row and column on every n-th one is stored."""
    found = re.search(r"rows (\d+)::(\d+) and columns (\d+)::(\d+)", call)
    y, dy, x, dx = (int(number) for number in found.groups()) if found else (0, 1, 0, 1)
    return full[..., y::dy, x::dx].numpy() if full.shape != wanted.shape else full.numpy()


def crop(call: str, full: Tensor) -> np.ndarray:
    found = re.search(r"rows (\d+):(\d+), columns (\d+):(\d+)", call)
    top, bottom, left, right = (int(number) for number in found.groups()) if found else (0, None, 0, None)
    return full[..., top:bottom, left:right].numpy()


@torch.no_grad()
def whole(case: Any) -> dict[str, np.ndarray]:
    network: Any = adopt(tensors(case.weights()), "raft").model
    inputs, call = tensors(case.inputs), case.spec["call"]
    first, second = (inputs[name].float() / 127.5 - 1 for name in ("image1", "image2"))
    iterations = int(found[1]) if (found := re.search(r"iters\s*=\s*(\d+)", call)) else 12
    start = inputs.get("flow_init")
    low, made = network.refine(first, second, iterations, start)
    wanted = case.outputs
    out: dict[str, Any] = {"flow_low": low.numpy(), "flow_up_crop": crop(call, made[-1])}
    if "flow_low_alternate" in wanted:
        out["flow_low_alternate"] = network.refine(first, second, iterations, start, frugal=True)[0].numpy()
    full = {"fmap1": network.fnet(first), "context": network.cnet(first)}
    out |= {name: stepped(value, wanted[name]) for name, value in full.items() if name in wanted}
    for name in wanted:
        if name.startswith("flow_up.") and (number := name.removeprefix("flow_up.")).isdigit():
            out[name] = strided(call, made[int(number)], wanted[name])
        elif name == "flow_up":
            out[name] = strided(call, made[-1], wanted[name])
    return out


def parts(case: Any) -> dict[str, np.ndarray]:
    given, kwargs = tensors(case.inputs), case.spec["kwargs"]
    levels, radius = kwargs.get("num_levels", 4), kwargs.get("radius", 4)
    seen = raft.Correlation(given["fmap1"], given["fmap2"], levels, radius)(given["coords"])
    step = int(found[1]) if (found := re.search(r"every (\d+)(?:st|nd|rd|th) feature", case.spec["call"])) else 1
    pad = raft.padding(given["image"].shape[2:], bottom=kwargs.get("padder_mode") == "kitti")
    padded = raft.padded(given["image"], pad)
    predictions = [given[name] for name in sorted(given) if name.startswith("pred")]
    target, valid = given["target"], given["valid"]
    errors = raft.end_point_errors(predictions[-1], target, valid)
    out: dict[str, Tensor] = {
        "lookup": seen[:, ::step],
        "upsample": raft.combined(given["flow"], 0.25 * given["mask"]),
        "upflow8": raft.enlarged(given["flow"]),
        "padded": padded,
        "pad": torch.tensor(pad),
        "unpadded": raft.cropped(padded, pad),
        "warm_start": raft.carried_on(given["warm"]),
        "loss": raft.sequence_loss(predictions, target, valid, kwargs.get("gamma", 0.8)).reshape(1),
        "metrics": torch.stack(list(errors.values())),
    }
    return {name: value.numpy() for name, value in out.items()}


PARTS = "corr.py CorrBlock / AlternateCorrBlock, raft.py upsample_flow, "
PARTS += "utils.py InputPadder upflow8 forward_interpolate, train.py sequence_loss"
MODULES = {"core/raft.py RAFT": whole, PARTS: parts}

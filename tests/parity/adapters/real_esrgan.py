"""How the cases of Real-ESRGAN call our networks, and its tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.models.restoration import real_esrgan
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()).float() for name, array in arrays.items()}


@torch.no_grad()
def generator(case: Any) -> dict[str, Any]:
    """Activations without weights cannot be told apart by the state: the case's arguments tell."""
    loaded = adopt(tensors(case.weights()), "real-esrgan", "generator")
    network, kind = loaded.model, case.spec["kwargs"].get("act_type", "prelu")
    if kind != "prelu":
        state, network = network.state_dict(), real_esrgan.generator(replace(loaded.config, activation=kind)).eval()
        network.load_state_dict(state)
    return {"image": network(tensors(case.inputs)["x"])}


@torch.no_grad()
def tiles(case: Any) -> dict[str, Any]:
    """The published tiles, of a padded picture with a few pixels of context, are run through our network."""
    kwargs, x = case.spec["kwargs"], torch.from_numpy(case.inputs["x"].copy()).float().permute(2, 0, 1)[None]
    network = adopt(tensors(case.weights()), "real-esrgan", "generator").model
    scale, tile, context, pre = kwargs["scale"], kwargs["tile"], kwargs["tile_pad"], kwargs["pre_pad"]
    height, width = x.shape[2:]
    padded = F.pad(x, (0, pre, 0, pre), mode="reflect") if pre else x
    multiple = {2: 2, 1: 4}.get(scale, 1)
    padded = F.pad(padded, (0, -padded.shape[3] % multiple, 0, -padded.shape[2] % multiple), mode="reflect")
    made = torch.zeros(1, 3, padded.shape[2] * scale, padded.shape[3] * scale)
    for y in range(0, padded.shape[2], tile or padded.shape[2]):
        for left in range(0, padded.shape[3], tile or padded.shape[3]):
            bottom, right = (min(at + (tile or limit), limit) for at, limit in zip((y, left), padded.shape[2:], strict=True))
            top_, left_ = max(y - context, 0), max(left - context, 0)
            part = padded[:, :, top_ : min(bottom + context, padded.shape[2]), left_ : min(right + context, padded.shape[3])]
            shown = network(part)[:, :, (y - top_) * scale : (bottom - top_) * scale, (left - left_) * scale : (right - left_) * scale]
            made[:, :, y * scale : bottom * scale, left * scale : right * scale] = shown
    return {"padded": padded, "image": made[:, :, : height * scale, : width * scale]}


@torch.no_grad()
def discriminator(case: Any) -> dict[str, Any]:
    loaded = adopt(tensors(case.weights()), "real-esrgan", "discriminator")
    loaded.model.skips = case.spec["kwargs"].get("skip_connection", True)
    return {"score": loaded.model(tensors(case.inputs)["x"])}


MODULES = {
    "basicsr.archs.rrdbnet_arch.RRDBNet": generator,
    "realesrgan.archs.srvgg_arch.SRVGGNetCompact": generator,
    "realesrgan.utils.RealESRGANer (pre_process, tile_process, post_process) around basicsr RRDBNet": tiles,
    "basicsr.archs.discriminator_arch.UNetDiscriminatorSN": discriminator,
}

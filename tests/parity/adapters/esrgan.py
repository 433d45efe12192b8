"""How the cases of ESRGAN call our networks and losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.losses.games import relativistic_discriminator, relativistic_generator, vanilla
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()).float() for name, array in arrays.items()}


@torch.no_grad()
def generator(case: Any) -> dict[str, Any]:
    """A single enlargement by 3 has the names and shapes of one by 2: the case's arguments tell."""
    network: Any = adopt(tensors(case.weights()), "esrgan", "generator").model
    if case.spec["kwargs"].get("upscale") == 3:
        network.config = replace(network.config, stages=(3,))
        network.scale = 3
    return {"image": network(tensors(case.inputs)["x"])}


@torch.no_grad()
def discriminator(case: Any) -> dict[str, Any]:
    network = adopt(tensors(case.weights()), "esrgan", "discriminator").model
    inputs, side = tensors(case.inputs), case.spec["kwargs"].get("input_size", 128)
    times = side // inputs["real"].shape[-1]
    real, fake = (network(inputs[name].repeat_interleave(times, 2).repeat_interleave(times, 3)) for name in ("real", "fake"))
    return {
        "score_real": real,
        "score_fake": fake,
        "generator_loss": 5e-3 * relativistic_generator(vanilla, real, fake),
        "discriminator_loss": relativistic_discriminator(vanilla, real, fake),
    }


MODULES = {
    "architecture.RRDB_Net": generator,
    "RRDBNet_arch.RRDBNet": generator,
    "basicsr.archs.discriminator_arch.VGGStyleDiscriminator": discriminator,
}

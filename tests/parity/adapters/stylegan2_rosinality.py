"""How the cases of rosinality's StyleGAN2 call our networks: the same ones, from the other layout."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from adapters.stylegan2_parts import FACTOR
from torch import Tensor

from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


@torch.no_grad()
def generator(case: Any) -> dict[str, Any]:
    inputs, call = tensors(case.inputs), case.spec["call"]
    beside = {"latent_avg": inputs["mean"]} if "mean" in inputs else {}
    network: Any = adopt(tensors(case.weights()), "stylegan2", "generator", beside).model
    w_plus = network.mapping(inputs["z"])
    psi, inject = re.search(r"truncation=([\d.]+)", call), re.search(r"inject_index=(\d+)", call)
    found = {"w": w_plus[:, 0], "image": network.synthesis(w_plus)}
    if "wplus" in inputs:
        found["image_wplus"] = network.synthesis(inputs["wplus"])
    found["image_truncated"] = network(inputs["z"], truncation=float(psi[1]) if psi else 1.0)
    if "z2" in inputs:
        split = int(inject[1]) if inject else network.num_ws // 2
        found["image_mixed"] = network.synthesis(torch.cat([w_plus[:, :split], network.mapping(inputs["z2"])[:, split:]], 1))
    if "noise_0" in inputs:
        planes = [layer for block in network.synthesis.blocks for layer in block.modulated() if hasattr(layer, "noise_const")]
        for index, layer in enumerate(planes):
            layer.noise_const.copy_(inputs[f"noise_{index}"])
        found["image_noise"] = network.synthesis(inputs["wplus"][:1])
    return found


@torch.no_grad()
def discriminator(case: Any) -> dict[str, Any]:
    network: Any = adopt(tensors(case.weights()), "stylegan2", "discriminator").model
    image = tensors(case.inputs)["image"]
    stride = re.search(r"every (\d+)(?:st|nd|rd|th) channel", case.spec["call"])
    return {"logits": network(image), "features4": network.features(image)[0][:, :: int(stride[1]) if stride else 1]}


MODULES = {"model.Generator": generator, "model.Discriminator": discriminator, **FACTOR}

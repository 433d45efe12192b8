"""How the cases of GPEN call our networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


@torch.no_grad()
def generator(case: Any) -> dict[str, Any]:
    network: Any = adopt(tensors(case.weights()), "gpen", "generator").model
    w, maps = network.encode(tensors(case.inputs)["x"])
    latent = w[:, None].expand(-1, network.num_ws, -1)
    return {"image": network.synthesis(latent, maps), "latent": latent}


@torch.no_grad()
def discriminator(case: Any) -> dict[str, Any]:
    network = adopt(tensors(case.weights()), "gpen", "discriminator").model
    return {"score": network(tensors(case.inputs)["x"])}


MODULES = {"face_model.gpen_model.FullGenerator": generator, "face_model.gpen_model.Discriminator": discriminator}

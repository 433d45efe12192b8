"""LPIPS: distance, layers and two feature maps, from a state dict of the published module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from limn.models.perception.lpips import Lpips
from limn.weights import adopt


@torch.inference_mode()
def lpips(case: Any) -> dict[str, np.ndarray]:
    """Load the case's state and compute what its kwargs and its call ask for."""
    kwargs = case.spec["kwargs"]
    loaded = adopt({name: torch.from_numpy(value) for name, value in case.weights().items()}, "lpips")
    model = Lpips(replace(loaded.config, version=kwargs.get("version", "0.1"))).eval()
    model.load_state_dict(loaded.model.state_dict())
    pair = [torch.from_numpy(case.inputs[name]).float() for name in ("a", "b")]
    if "normalize=True" in case.spec["call"]:
        pair = [2 * picture - 1 for picture in pair]
    if kwargs.get("spatial"):
        size = pair[0].shape[-2:]
        layers = [F.interpolate(layer, size=size, mode="bilinear", align_corners=False) for layer in model.maps(*pair)]
        distance = model.spatial(*pair)
    else:
        layers = [layer.mean((2, 3), keepdim=True) for layer in model.maps(*pair)]
        distance = model(*pair).view(-1, 1, 1, 1)
    features = model.features(pair[0])
    ours = {"distance": distance, "feature_0": features[0][:1, ::16, ::4, ::4], "feature_last": features[-1][:1, ::8]}
    ours |= {f"layer{index}": layer for index, layer in enumerate(layers)}
    return {name: ours[name].numpy() for name in case.outputs}


MODULES = {"lpips.LPIPS": lpips}

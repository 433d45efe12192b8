"""How the cases of GFPGAN call our networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.blocks.fir import BINOMIAL
from limn.models.restoration import gfpgan
from limn.models.restoration.gfpgan_judges import gram
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


@torch.no_grad()
def generator(case: Any, **known: Any) -> dict[str, Any]:
    """The resampling filter, and whether styles pass the mapping, no state dict shows."""
    kwargs, loaded = case.spec["kwargs"], adopt(tensors(case.weights()), "gfpgan", "generator")
    taps = tuple(float(tap) for tap in kwargs.get("resample_kernel", BINOMIAL))
    network = gfpgan.Generator(replace(loaded.config, latent=kwargs.get("input_is_latent", False), taps=taps, **known)).eval()
    network.load_state_dict(loaded.model.state_dict())
    image, pictures = network.pyramid(tensors(case.inputs)["x"])
    return {"image": image, **{f"rgb{index}": picture for index, picture in enumerate(pictures)}}


def bilinear(case: Any) -> dict[str, Any]:
    return generator(case, kind="bilinear")


@torch.no_grad()
def component(case: Any) -> dict[str, Any]:
    network: Any = adopt(tensors(case.weights()), "gfpgan", "component").model
    score, (fine, coarse) = network.judged(tensors(case.inputs)["x"])
    return {
        "score": score,
        "feat0": fine[:, ::8, ::4, ::4],
        "feat1": coarse[:, ::8, ::2, ::2],
        "gram0": gram(fine)[:, ::4, ::4],
        "gram1": gram(coarse)[:, ::8, ::8],
    }


@torch.no_grad()
def identity(case: Any) -> dict[str, Any]:
    return {"embedding": adopt(tensors(case.weights()), "gfpgan", "identity").model(tensors(case.inputs)["x"])}


MODULES = {
    "gfpgan.archs.gfpganv1_clean_arch.GFPGANv1Clean": generator,
    "gfpgan.archs.gfpganv1_arch.GFPGANv1": generator,
    "gfpgan.archs.gfpgan_bilinear_arch.GFPGANBilinear": bilinear,
    "gfpgan.archs.gfpganv1_arch.FacialComponentDiscriminator": component,
    "gfpgan.archs.arcface_arch.ResNetArcFace": identity,
}

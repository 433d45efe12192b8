"""How the cases of ArcFace call our networks and margins."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.models.perception import arcface
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


@torch.no_grad()
def backbone(case: Any) -> dict[str, np.ndarray]:
    """Compare the embedding and the inner outputs that the case's call lists with their strides."""
    network = adopt(tensors(case.weights()), "arcface").model
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if name in case.outputs:
            module.register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: output}))
    found = {"embedding": network(torch.from_numpy(case.inputs["image"]).float()).numpy()}
    for name, output in seen.items():
        steps = re.search(rf"\.{re.escape(name)}: channels ::(\d+), rows/columns ::(\d+)", case.spec["call"])
        channels, rows = (int(steps[1]), int(steps[2])) if steps else (1, 1)
        found[name] = output[:, ::channels, ::rows, ::rows].numpy()
    return found


def margin_softmax(case: Any) -> dict[str, np.ndarray]:
    inputs, kwargs = tensors(case.inputs), case.spec["kwargs"]
    variants = next(value for name, value in kwargs.items() if name.startswith("variants"))
    found: dict[str, Tensor] = {}
    for name, (factor, angle, offset, ceiling) in variants.items():
        embedding, weight = inputs["embedding"].clone().requires_grad_(), inputs["weight"].clone().requires_grad_()
        cosine = arcface.cosines(embedding, weight)
        logits = arcface.combined_margin(cosine, inputs["label"], kwargs["s"], angle=angle, offset=offset, ceiling=ceiling, factor=factor)
        loss = arcface.cross_entropy(logits, inputs["label"])
        loss.backward()
        found |= {f"{name}.logits": logits, f"{name}.loss": loss}
        found |= {f"{name}.grad_embedding": embedding.grad, f"{name}.grad_weight": weight.grad}
    return {name: value.detach().numpy() for name, value in found.items()}


def heads(case: Any) -> dict[str, np.ndarray]:
    inputs, kwargs = tensors(case.inputs), case.spec["kwargs"]
    embedding = inputs["embedding"].clone().requires_grad_()
    kernel = inputs["kernel"].T
    cosine = (embedding @ F.normalize(kernel).T).clamp(-1, 1)
    logits = arcface.additive_angle(cosine, inputs["label"], kwargs["s"], kwargs["m"])
    loss = F.cross_entropy(logits, inputs["label"])
    loss.backward()
    found = {
        "arcface": logits,
        "arcface_loss": loss,
        "arcface_grad_embedding": embedding.grad,
        "am_softmax": arcface.additive_cosine(cosine, inputs["label"], kwargs["am_s"], kwargs["am_m"]),
    }
    return {name: value.detach().numpy() for name, value in found.items()}


MODULES = {
    "model.Backbone": backbone,
    **{f"recognition/arcface_torch backbones.iresnet{depth}": backbone for depth in (18, 34, 50, 100, 200)},
    "recognition/arcface_torch backbones.get_mbf": backbone,
    "recognition/arcface_torch backbones.get_mbf_large": backbone,
    "recognition/arcface_torch backbones.mobilefacenet.get_mbf_large": backbone,
    "losses.CombinedMarginLoss + partial_fc_v2.PartialFC_V2 (sample_rate 1, one process)": margin_softmax,
    "model.Arcface, model.Am_softmax": heads,
}

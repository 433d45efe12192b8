"""DeepFill v2: generators of both layouts, contextual attention, SN-PatchGAN with its losses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.losses.games import hinge
from limn.models.inpainting import deepfill_v2
from limn.models.inpainting.deepfill_v2 import Config
from limn.weights import adopt

Outputs = dict[str, Tensor]


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


def sketch_of(given: Outputs) -> Tensor | None:
    return next((given[name].float() for name in ("edge", "sketch", "edges") if name in given), None)


@torch.inference_mode()
def generator(case: Any) -> Outputs:
    given = tensors(case.inputs)
    network = adopt(tensors(case.weights()), "deepfill-v2", "generator").model
    if "fuse" in case.spec["kwargs"]:
        network.config = replace(network.config, fuse=case.spec["kwargs"]["fuse"])
    image, mask = given["image"].float(), given["mask"].float()
    sketch = sketch_of(given)
    stage1, stage2 = network(image, mask, sketch, attended=mask[:1])  # the published code attends by the first mask of a batch
    return {"stage1": stage1, "stage2": stage2, "complete": stage2 * mask + image * (1 - mask)}


def attention(layout: str) -> Callable[[Any], Outputs]:
    @torch.inference_mode()
    def called(case: Any) -> Outputs:
        given, kwargs = tensors(case.inputs), case.spec["kwargs"]
        config = Config(padding=layout, fuse=bool(kwargs.get("fuse")))  # type: ignore[arg-type]
        features, background = given["f"].float(), given["b"].float()
        mask = given["mask"].float()[:1] if "mask" in given else torch.zeros_like(background[:1, :1])
        return {"y": deepfill_v2.attention(features, background, mask, config, float(kwargs.get("softmax_scale", deepfill_v2.SCALE)))}

    return called


def judge(layout: str) -> Callable[[Any], Outputs]:
    @torch.inference_mode()
    def called(case: Any) -> Outputs:
        given = tensors(case.inputs)
        loaded = adopt(tensors(case.weights()), "deepfill-v2", "discriminator")
        network = deepfill_v2.Discriminator(replace(loaded.config, padding=layout)).eval()
        network.load_state_dict(loaded.model.state_dict())
        mask, sketch = (None if x is None else torch.cat([x.float()] * 2) for x in (given["mask"], sketch_of(given)))
        scores = network(torch.cat([given["real"].float(), given["fake"].float()]), mask, sketch)
        real, fake = scores.chunk(2)
        ours = {"scores": scores, "discriminator_loss": 0.5 * (hinge(real, True) + hinge(fake, False))}
        ours["generator_loss"] = hinge(fake, True, generator=True)
        for index, conv in enumerate(network.convs, 1):
            if re.search(rf"conv{index}\.conv_sn\.weight", case.spec["call"]):
                ours |= {"weight_after": conv.weight[::4, ::4], "u_after": conv.parametrizations.weight[0]._u[:, None]}
        return ours

    return called


MODULES = {
    "model.networks_tf.Generator": generator,
    "model.networks.Generator": generator,
    "model.networks_tf.ContextualAttention": attention("tensorflow"),
    "model.networks.ContextualAttention": attention("symmetric"),
    "model.networks_tf.Discriminator and model.losses": judge("tensorflow"),
    "model.networks.Discriminator and model.losses": judge("symmetric"),
}

"""How the cases of SPADE call our generators, encoder, discriminators and losses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from adapters.pix2pix import tensors
from torch import Tensor

from limn.blocks.patch import feature_matching
from limn.losses.games import GAMES, over_scales
from limn.models.translation import spade
from limn.weights.recognise import adopt

UPS = {"normal": 5, "more": 6, "most": 7}
NAMES = {"ls": "least_squares", "original": "vanilla", "w": "wasserstein", "hinge": "hinge"}


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Class numbers (N, 1, H, W) or (N, H, W) as (N, classes, H, W)."""
    label = label[:, 0] if label.ndim == 4 else label
    return F.one_hot(label.long(), classes).movedim(-1, 1).float()


@torch.no_grad()
def generator(case: Any) -> dict[str, np.ndarray]:
    kwargs, inputs = case.spec["kwargs"], tensors(case.inputs)
    network = adopt(tensors(case.weights()), "spade").model
    options = {"ups": UPS[kwargs["num_upsampling_layers"]], "size": kwargs["crop_size"], "aspect": kwargs["aspect_ratio"]}
    network.config = replace(network.config, **options)  # what a state dict does not say
    labels, z, grid = one_hot(inputs["label"], kwargs["semantic_nc"]), inputs.get("z"), network.config.grid
    kept: list[Tensor] = []
    handle = network.blocks[4].register_forward_hook(lambda module, given, made: kept.append(made))
    thinned = re.search(r"every (\d+)\w\w row", case.spec["call"])
    step = int(thinned[1]) if thinned else 1
    found = {"image": network(labels, z, grid)[..., ::step, ::step], "up_1": kept[0][:1, :4]}
    handle.remove()
    if "image_train" in case.outputs:
        network.train()
        found["image_train"] = network(labels, z, grid)[:1, :, ::step, ::step]
        found["u_after"] = network.state_dict()["blocks.0.conv_0.parametrizations.weight.0._u"]
    return {name: value.numpy() for name, value in found.items() if name in case.outputs}


@torch.no_grad()
def layer(case: Any) -> dict[str, np.ndarray]:
    kwargs, inputs, state = case.spec["kwargs"], tensors(case.inputs), tensors(case.weights())
    kernel = state["mlp_gamma.weight"].shape[-1]
    kind = "batch" if "batch" in kwargs["config_text"] else "instance"
    ours = spade.Spade(kwargs["norm_nc"], kwargs["label_nc"], kind, kernel).eval()
    ours.load_state_dict(state, strict=True)
    return {"y": ours(inputs["x"], one_hot(inputs["label"], kwargs["label_nc"])).numpy()}


@torch.no_grad()
def discriminator(case: Any) -> dict[str, np.ndarray]:
    inputs = tensors(case.inputs)
    loaded = adopt(tensors(case.weights()), "spade")
    ours = spade.objective(spade.Config(classes=loaded.config.classes, width=1, size=32))
    ours.networks["discriminator"] = loaded.model
    fake, real = ours.judged(one_hot(inputs["label"], loaded.config.classes), inputs["fake"], inputs["real"])
    found = {f"scale{index}.last": scale[-1] for index, scale in enumerate(fake)}
    for published, name in NAMES.items():
        scores = {"D_Fake": (fake, False, False), "D_real": (real, True, False), "GAN": (fake, True, True)}
        found |= {f"{published}.{key}": over_scales(GAMES[name], *score).reshape(1) for key, score in scores.items()}
    found["GAN_Feat"] = 10.0 * feature_matching(fake, real).reshape(1)
    return {name: value.numpy() for name, value in found.items() if name in case.outputs}


@torch.no_grad()
def encoder(case: Any) -> dict[str, np.ndarray]:
    mean, log_variance = adopt(tensors(case.weights()), "spade").model(tensors(case.inputs)["image"])
    divergence = spade.divergence(mean, log_variance).reshape(1)
    return {"mu": mean.numpy(), "logvar": log_variance.numpy(), "kld": divergence.numpy()}


MODULES = {
    "models.networks.generator.SPADEGenerator": generator,
    "models.networks.normalization.SPADE": layer,
    "models.networks.discriminator.MultiscaleDiscriminator, models.networks.loss.GANLoss, models.pix2pix_model": discriminator,
    "models.networks.encoder.ConvEncoder, models.networks.loss.KLDLoss": encoder,
}

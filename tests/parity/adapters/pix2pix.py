"""How the cases of pix2pix call our generators, discriminators and losses; CycleGAN's adapter uses the same calls."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.losses.games import GAMES, gradient_penalty
from limn.models import system
from limn.models.translation import pix2pix
from limn.weights.native import Loaded
from limn.weights.recognise import adopt, rename

NAMES = {"lsgan": "least_squares", "vanilla": "vanilla", "wgangp": "wasserstein", "hinge": "hinge"}


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


def under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


@torch.no_grad()
def generator(case: Any) -> dict[str, np.ndarray]:
    network = adopt(tensors(case.weights())).model
    x = tensors(case.inputs)["x"]
    tiled = re.search(r"tiled (\d+)x\1", case.spec["call"])
    x = x.repeat(1, 1, int(tiled[1]), int(tiled[1])) if tiled else x
    found = {"eval": network(x)}
    network.train()
    found["train"] = network(x)
    means = [value for name, value in network.state_dict().items() if name.endswith("running_mean")]
    found |= {"running_mean_after": means[0]} if means else {}
    thinned = re.search(r"every (\d+)\w\w row", case.spec["call"])
    step = int(thinned[1]) if thinned else 1
    return {name: (value[..., ::step, ::step] if value.ndim == 4 else value).numpy() for name, value in found.items()}


def discriminator(case: Any) -> dict[str, np.ndarray]:
    network = adopt(tensors(case.weights())).model
    inputs = tensors(case.inputs)
    with torch.no_grad():
        logits = network(inputs["x"])
    found = {"map": logits}
    for published, ours in NAMES.items():
        for kind in ("real", "fake"):
            found[f"{published}.{kind}"] = GAMES[ours](logits, kind == "real")
    if "fake" in inputs:
        for kind, share in (("fake", 0.0), ("real", 1.0)):
            penalty = gradient_penalty(network, inputs["x"], inputs["fake"], torch.full((1, 1, 1, 1), share))
            found[f"penalty.{kind}"] = 10 * penalty
    return {name: value.detach().reshape(case.outputs[name].shape).numpy() for name, value in found.items() if name in case.outputs}


def parameter(loaded: Loaded, published: str) -> Tensor:
    """The parameter of ours that a published name becomes."""
    rows = [row for row in system(loaded.system).PUBLISHED if (row.part, row.layout) == (loaded.part, loaded.meta["layout"])]
    names = rows[0].names(loaded.config) if callable(rows[0].names) else rows[0].names
    (ours,) = rename({published: torch.zeros(1)}, names)
    return dict(loaded.model.named_parameters())[ours]


def draws(case: Any) -> torch.Generator | None:
    """What dropout is drawn from, none where the case has none."""
    return None if case.spec["kwargs"]["no_dropout"] else torch.Generator().manual_seed(0)


def gradients(case: Any) -> list[tuple[str, str]]:
    """The networks and published names whose gradients the case asks for."""
    return re.findall(r"\b(G(?:_[AB])?|D(?:_[AB])?)\.((?:model|net)[\w.]*\.(?:weight|bias))", case.spec["call"].split("gradients of")[-1])


def objective(case: Any) -> dict[str, np.ndarray]:
    kwargs, state, inputs = case.spec["kwargs"], tensors(case.weights()), tensors(case.inputs)
    whole = {name: adopt(under(state, f"{name}.")) for name in ("G", "D")}
    ours = pix2pix.objective(pix2pix.Config(width=4), game=NAMES[kwargs["gan_mode"]], l1=kwargs["lambda_L1"])
    ours.generator, ours.discriminator = (whole[name].model.train().requires_grad_(True) for name in ("G", "D"))
    batch, rng = {"source": inputs["A"], "target": inputs["B"]}, draws(case)
    losses = ours.generator_loss(batch, rng)
    sum(losses.values()).backward()
    ours.discriminator.zero_grad()
    judged = ours.discriminator_loss(batch, rng)
    sum(judged.values()).backward()
    found = {"G_GAN": losses["gan"], "G_L1": losses["l1"], "G": sum(losses.values())}
    found |= {"D_fake": 2 * judged["fake"], "D_real": 2 * judged["real"], "D": sum(judged.values())}
    for index, (network, name) in enumerate(gradients(case)):
        found[f"gradient_norm.{index}"] = parameter(whole[network], name).grad.norm()
    return {name: value.detach().reshape(1).numpy() for name, value in found.items()}


MODULES = {
    "models.networks.define_G -> UnetGenerator": generator,
    "models.networks.UnetGenerator": generator,
    "models.networks.define_D, GANLoss": discriminator,
    "models.networks.define_D, GANLoss, cal_gradient_penalty": discriminator,
    "models.pix2pix_model.Pix2PixModel": objective,
}

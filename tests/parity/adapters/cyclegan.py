"""How the cases of CycleGAN call our generators, discriminators, losses and pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from adapters.pix2pix import NAMES, discriminator, draws, generator, gradients, parameter, tensors, under

from limn.models.translation import cyclegan
from limn.weights.recognise import adopt

OURS = {"G_A": "a_to_b", "G_B": "b_to_a", "D_A": "discriminator_b", "D_B": "discriminator_a"}


def objective(case: Any) -> dict[str, np.ndarray]:
    kwargs, state, inputs = case.spec["kwargs"], tensors(case.weights()), tensors(case.inputs)
    whole = {name: adopt(under(state, f"{name}.")) for name in OURS}
    share = kwargs["lambda_identity"]
    ours = cyclegan.objective(cyclegan.Config(width=4), game=NAMES[kwargs["gan_mode"]], cycle=kwargs["lambda_A"], identity_share=share)
    for name, part in OURS.items():
        ours.networks[part] = whole[name].model.train().requires_grad_(True)
    batch, rng = {"source": inputs["A"], "target": inputs["B"]}, draws(case)
    losses = ours.generator_loss(batch, rng)
    sum(losses.values()).backward()
    for name in ("D_A", "D_B"):
        whole[name].model.zero_grad()
    judged = ours.discriminator_loss(batch, rng)
    sum(judged.values()).backward()
    found = {"G_A": losses["gan_b"], "G_B": losses["gan_a"], "cycle_A": losses["cycle_a"], "cycle_B": losses["cycle_b"]}
    found |= {"idt_A": losses["identity_b"], "idt_B": losses["identity_a"], "G": sum(losses.values())}
    found |= {"D_A": judged["b"], "D_B": judged["a"]}
    for index, (network, name) in enumerate(gradients(case)):
        found[f"gradient_norm.{index}"] = parameter(whole[network], name).grad.norm()
    return {name: value.detach().reshape(1).numpy() for name, value in found.items()}


def pool(case: Any) -> dict[str, np.ndarray]:
    """Play back the draws that the case recorded; a whole number is shown to the pool as the uniform number that leads to it."""
    size = case.spec["kwargs"]["pool_size"]
    recorded = iter(case.inputs["draws"])

    def uniform() -> float:
        kind, value = next(recorded)
        return (float(value) + 0.5) / size if kind else float(value)

    ours, returned = cyclegan.ImagePool(size), []
    queries, each = case.outputs["returned"].shape
    for query in range(queries):
        images = torch.arange(query * each, (query + 1) * each).float().reshape(-1, 1, 1, 1)
        returned.append(ours.exchange(images, uniform).flatten().numpy())
    return {"returned": np.stack(returned)}


MODULES = {
    "models.networks.define_G -> ResnetGenerator": generator,
    "models.networks.ResnetGenerator": generator,
    "models.networks.define_D, GANLoss": discriminator,
    "models.cycle_gan_model.CycleGANModel": objective,
    "util.image_pool.ImagePool": pool,
}

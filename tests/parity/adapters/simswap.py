"""How the cases of SimSwap call our networks and losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.faces.blending import soft_erosion
from limn.losses import games
from limn.models.swapping import simswap
from limn.models.swapping.simswap_identity import to_imagenet
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(a, np.float32 if a.dtype == np.float16 else a.dtype).copy()) for name, a in arrays.items()}


def state_of(case: Any) -> dict[str, Tensor]:
    return tensors(case.weights())


def put(network: nn.Module, config: Any) -> Any:
    """The same weights under another configuration: what the state dict does not say comes from the module's name and arguments."""
    made = type(network)(config).eval()
    made.load_state_dict(network.state_dict())
    return made


@torch.no_grad()
def generator(case: Any) -> dict[str, np.ndarray]:
    network = adopt(state_of(case), "simswap", "generator").model
    domain = "imagenet" if "fix" in case.spec["source"]["module"] else "unit"
    network = put(network, replace(network.config, domain=domain))
    x, latent = (tensors(case.inputs)[name] for name in ("image", "latent"))
    third = network.first(x)
    for step in network.down[: len(network.down) - (1 if case.spec["kwargs"].get("deep") else 0)]:
        third = step(third)
    maps = [network.encode(x)]
    for block in network.blocks:
        maps.append(block(maps[-1], latent))
    found = {"image": network(x, latent), "down3": third, "block0": maps[1], "bottleneck": maps[-1]}
    return {name: (value if name == "image" else value[:, ::8]).numpy() for name, value in found.items()}


@torch.no_grad()
def patch(case: Any) -> dict[str, np.ndarray]:
    maps = patches(state_of(case), bool(case.spec["kwargs"].get("use_sigmoid")))(tensors(case.inputs)["image"])
    steps = [8, *[16] * (len(maps) - 2), 1]
    return {f"feature{index}": value[:, :: steps[index]].numpy() for index, value in enumerate(maps)}


def patches(state: dict[str, Tensor], sigmoid: bool = False) -> Callable[[Tensor], list[Tensor]]:
    """Return features and logits; the published option turns the logits into probabilities."""
    network = adopt(state, "simswap", "discriminator").model

    def judged(image: Tensor) -> list[Tensor]:
        *maps, logits = network.features(image)
        return [*maps, logits.sigmoid() if sigmoid else logits]

    return judged


@torch.no_grad()
def projected(case: Any) -> dict[str, np.ndarray]:
    network = adopt(state_of(case), "simswap", "discriminator").model
    logits, maps = network(tensors(case.inputs)["image"])
    found = {"logits": logits}
    for index, (value, step) in enumerate(zip(maps, (4, 2, 1, 1), strict=True)):
        found[f"backbone{index}"] = value[:, ::4, ::step, ::step]
    return {name: value.numpy() for name, value in found.items()}


@torch.no_grad()
def identity(case: Any) -> dict[str, np.ndarray]:
    network = adopt(state_of(case), "simswap", "identity").model
    image = tensors(case.inputs)["image"]
    maps = network.stages(image)
    return {"embedding": network(image).numpy(), "layer1": maps[0][:, ::16, ::4, ::4].numpy(), "layer4": maps[-1][:, ::8].numpy()}


def released(case: Any) -> dict[str, np.ndarray]:
    given, kwargs = tensors(case.inputs), case.spec["kwargs"]
    found = {
        "G_main": games.hinge(given["logits_fake"], True, True),
        "G_id": simswap.identity_distance(given["embed_fake"], given["embed_id"]).mean(),
        "G_feat": simswap.matching([given["feat3_fake"]], [given["feat3_real"]]),
        "G_rec": kwargs["lambda_rec"] * F.l1_loss(given["fake"], given["target"]),
        "D_real": games.hinge(given["logits_real"], True),
        "D_fake": games.hinge(given["logits_fake"], False),
    }
    found["G_odd"] = found["G_main"] + kwargs["lambda_id"] * found["G_id"] + kwargs["lambda_feat"] * found["G_feat"]
    found["G_even"] = found["G_odd"] + found["G_rec"]
    return {name: value.numpy() for name, value in found.items()}


def multiscale(case: Any) -> dict[str, np.ndarray]:
    state, given, kwargs = state_of(case), tensors(case.inputs), case.spec["kwargs"]
    judges = [
        patches({k.removeprefix(p): v for k, v in state.items() if k.startswith(p)}, bool(kwargs.get("use_sigmoid")))
        for p in ("netD1.", "netD2.")
    ]

    def seen(image: Tensor) -> list[list[Tensor]]:
        return [judges[0](image), judges[1](simswap.halved(image))]

    game = games.GAMES[
        {"ls": "least_squares", "lsgan": "least_squares", "original": "vanilla", "w": "wasserstein"}.get(
            kwargs["gan_mode"], kwargs["gan_mode"]
        )
    ]
    target, fake = given["target"], given["fake"].requires_grad_()
    real, made = seen(target), seen(fake)
    features = kwargs["lambda_feat"] * simswap.matching_over_scales(made, real)
    view = F.interpolate(to_imagenet(2 * fake - 1), size=112) if "normalised" in case.spec["call"] else F.interpolate(fake, size=112)
    stub = F.avg_pool2d(view, 14) if "14x14" in case.spec["call"] else F.avg_pool2d(view, 8)
    distance = simswap.identity_distance(stub.flatten(1), given["latent"])
    found = {
        "G_GAN": games.over_scales(game, made, True, True).reshape(1),
        "G_GAN_Feat": features,
        "G_Rec": kwargs["lambda_rec"] * F.l1_loss(fake, target),
        "G_ID": distance,
        "id_input": view[:, :, ::4, ::4],
        "grad_feat": 100 * torch.autograd.grad(features, fake, retain_graph=True)[0][:, :, ::4, ::4],
        "grad_id": 1000 * torch.autograd.grad(distance.sum(), fake, retain_graph=True)[0][:, :, ::4, ::4],
        "D_real": games.over_scales(game, real, True).reshape(1),
        "D_fake": games.over_scales(game, made, False).reshape(1),
        "D_GP": games.gradient_penalty(lambda x: judges[0](x)[-1], target, fake, given["alpha"]),
    }
    return {name: value.detach().numpy() for name, value in found.items()}


def erosion(case: Any) -> dict[str, np.ndarray]:
    kwargs = case.spec["kwargs"]
    soft, hard, kernel = soft_erosion(case.inputs["mask"][:, 0], kwargs["kernel_size"], kwargs["threshold"], kwargs["iterations"])
    return {"soft": soft[:, None], "hard": hard[:, None], "kernel": kernel[None, None]}


MODULES = {
    "models.fs_networks.Generator_Adain_Upsample": generator,
    "models.fs_networks_512.Generator_Adain_Upsample": generator,
    "models.fs_networks_fix.Generator_Adain_Upsample": generator,
    "models.fs_networks.Discriminator": patch,
    "pg_modules.projected_discriminator.ProjectedDiscriminator": projected,
    "models.arcface_models.ResNet(IRBlock, layers, use_se)": identity,
    "models.fs_model.fsModel.forward + models.networks.GANLoss": multiscale,
    "train.py training loop": released,
    "util.reverse2original.SoftErosion": erosion,
}

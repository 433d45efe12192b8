"""Adversarial losses and regularisers: values and the gradients of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.losses.adversarial import path_lengths, r1
from limn.losses.games import (
    GAMES,
    Game,
    Remembered,
    gradient_penalty,
    hinge,
    least_squares,
    over_scales,
    relativistic_discriminator,
    relativistic_generator,
    vanilla,
    wasserstein,
)

GRADIENTS = 100  # the case stores this many times the gradients
PLAIN: dict[str, tuple[Game, float]] = {  # kind -> our game, weight of the generator's score
    "logistic": (vanilla, 1),
    "spade_original": (vanilla, 1),
    "spade_ls": (least_squares, 1),
    "spade_hinge": (hinge, 1),
    "spade_w": (wasserstein, 1),
    "deblurgan_gan": (vanilla, 1),
    "basicsr_vanilla": (vanilla, 0.1),
    "basicsr_lsgan": (least_squares, 0.1),
    "basicsr_hinge": (hinge, 0.1),
    "basicsr_wgan": (wasserstein, 0.1),
    "basicsr_wgan_softplus": (vanilla, 0.1),
}
RELATIVISTIC = {"ragan_vanilla": "vanilla", "ragan_lsgan": "least_squares"}
POOLED = {"deblurgan_ragan": "vanilla", "deblurgan_ragan_ls": "signed_squares"}


def losses(case: Any) -> dict[str, np.ndarray]:
    """Score the case's logits in every game that its outputs name."""
    inputs = {name: torch.from_numpy(value) for name, value in case.inputs.items()}
    kinds = {name.split(".")[0] for name in case.outputs if "." in name}
    ours: dict[str, np.ndarray] = {}
    for kind in kinds:
        ours |= _scores(kind, inputs["real"], inputs["fake"])
    scales = [[inputs["fake"], inputs["fake"]], [inputs["fake_half"]]]
    ours |= {
        "multiscale_spade_hinge_G": over_scales(hinge, scales, True, True).numpy().reshape(1),
        "multiscale_spade_hinge_fake": over_scales(hinge, scales, False).numpy().reshape(1),
        "multiscale_basicsr_hinge_fake": over_scales(hinge, scales, False).numpy(),
    }
    return {name: ours[name] for name in case.outputs}


def _scores(kind: str, real: Tensor, fake: Tensor) -> dict[str, np.ndarray]:
    """Both players' scores of one kind, with gradients for real and fake logits."""
    real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    return {
        f"{kind}.{player}{suffix}": value
        for player, score in zip("DG", _both(kind, real, fake), strict=True)
        for suffix, value in _with_gradients(score, real, fake).items()
    }


def _both(kind: str, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    if kind in RELATIVISTIC:
        game = GAMES[RELATIVISTIC[kind]]
        return relativistic_discriminator(game, real, fake), relativistic_generator(game, real, fake)
    if kind in POOLED:
        game, reals, fakes = GAMES[POOLED[kind]], Remembered(), Remembered()
        mean_fake, mean_real = fakes.add(fake), reals.add(real)
        discriminator = 0.5 * (game(real - mean_fake, True) + game(fake - mean_real, False))
        return discriminator, 0.5 * (game(real - mean_fake, False) + game(fake - mean_real, True))
    game, weight = PLAIN[kind]
    scale = 0.5 if kind == "deblurgan_gan" else 1.0
    return scale * (game(real, True) + game(fake, False)), weight * game(fake, True, True)


def _with_gradients(score: Tensor, *logits: Tensor) -> dict[str, np.ndarray]:
    """The score and 100 times its gradients for real and fake."""
    gradients = torch.autograd.grad(score, logits, retain_graph=True, allow_unused=True)
    values = {"": score.detach().numpy()}
    for name, gradient, each in zip(("real", "fake"), gradients, logits, strict=True):
        values[f"_grad_{name}"] = (torch.zeros_like(each) if gradient is None else GRADIENTS * gradient).numpy()
    return values


def regularisers(case: Any) -> dict[str, np.ndarray]:
    """The penalties of toy networks made of the case's matrices."""
    kwargs = case.spec["kwargs"]
    t = {name: torch.from_numpy(value) for name, value in case.inputs.items()}
    w1, w2 = (t[name].requires_grad_() for name in ("W1", "W2"))
    a, b = (t[name].requires_grad_() for name in ("A", "B"))
    shape, layers = t["real"].shape[1:], kwargs["ws layers"]

    def critic(images: Tensor) -> Tensor:
        return torch.tanh(images.flatten(1) @ w1) @ w2

    def make(z: Tensor) -> tuple[Tensor, Tensor]:
        ws = torch.tanh(z @ a)[:, None].expand(-1, layers, -1)
        return torch.tanh(ws.flatten(1) @ b).view(-1, *shape), ws

    real = t["real"].requires_grad_()
    fake, ws = make(t["z"])
    penalty = r1(critic(real), real).mean()
    ours: dict[str, Tensor] = {"fake": fake, "r1": penalty}
    ours |= _grads("r1", penalty, {"W1": w1, "W2": w2})
    for name, channels in (("gp_flat", False), ("gp_basicsr", True)):
        value = gradient_penalty(critic, t["real"], fake.detach(), t["alpha"], channels=channels)
        ours |= {name: value} | _grads(name, value, {"W1": w1})
    lengths = path_lengths(fake, ws, t["pl_noise"])
    mean = t["mean_path_length"].lerp(lengths.mean(), kwargs["pl_decay"])
    path = (lengths - mean).square().mean()
    ours |= {"path.lengths": lengths, "path.mean": mean, "path.penalty": path} | _grads("path", path, {"A": a, "B": b})
    return {name: value.detach().numpy() for name, value in (ours | _nvlabs(t, kwargs, make, critic)).items() if name in case.outputs}


def _nvlabs(t: dict[str, Tensor], kwargs: dict[str, Any], make: Callable, critic: Callable) -> dict[str, Tensor]:
    """The phases of NVIDIA's StyleGAN2Loss, each with its gain."""
    gain, gamma = kwargs["gain"], kwargs["r1_gamma"]
    images, _ = make(t["z"])
    few = len(t["z"]) // kwargs["pl_batch_shrink"]
    short, ws = make(t["z"][:few])
    lengths = path_lengths(short, ws, t["pl_noise"][:few])
    mean = t["mean_path_length"].lerp(lengths.mean(), kwargs["pl_decay"])
    real = t["real"].detach().requires_grad_()
    main = vanilla(critic(images.detach()), False) + vanilla(critic(real), True)
    lazy = gamma / 2 * r1(critic(real), real).mean()
    critics, makers = {"W1": t["W1"], "W2": t["W2"]}, {"A": t["A"], "B": t["B"]}
    return (
        _grads("nvlabs_Gmain", gain * vanilla(critic(images), True), makers)
        | _grads("nvlabs_Greg", gain * kwargs["pl_weight"] * (lengths - mean).square().mean(), makers)
        | {"nvlabs_Greg.pl_mean": mean}
        | _grads("nvlabs_Dmain", gain * main, critics)
        | _grads("nvlabs_Dreg", gain * lazy, critics)
        | _grads("nvlabs_Dboth", gain * (main + lazy), critics)
    )


def _grads(name: str, value: Tensor, of: dict[str, Tensor]) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(value, list(of.values()), retain_graph=True)
    return {f"{name}.grad_{key}": gradient for key, gradient in zip(of, gradients, strict=True)}


MODULES = {
    "train.py losses; models.networks.loss.GANLoss; basicsr.losses.gan_loss; models.losses": losses,
    "d_r1_loss, g_path_regularize; gradient_penalty_loss; training.loss.StyleGAN2Loss": regularisers,
}

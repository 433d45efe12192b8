"""Pivotal tuning: five steps of it, with and without the locality term."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.latent.projector import Locality, near, tune
from limn.weights.recognise import adopt


def reduced(images: Tensor, target: Tensor) -> Tensor:
    """The case's stand-in for LPIPS."""
    return 3 * (F.avg_pool2d(images, 4) - F.avg_pool2d(target, 4)).square().mean()


def tuning(case: Any) -> dict[str, np.ndarray]:
    kwargs = case.spec["kwargs"]
    state = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    generator: Any = adopt(state, "stylegan2", "generator").model
    image, pivot, z = (torch.from_numpy(case.inputs[name]) for name in ("image", "w_pivot", "z"))
    local = Locality(kwargs["regulizer_alpha"], kwargs["regulizer_l2_lambda"], kwargs["latent_ball_num_of_samples"])
    squares: list[float] = []
    perceptual: list[float] = []

    def distance(images: Tensor, target: Tensor) -> Tensor:
        l2, features = F.mse_loss(images, target), reduced(images, target)
        if target is image:
            squares.append(float(l2.detach()))
            perceptual.append(float(features.detach()))
        return kwargs["pt_l2_lambda"] * l2 + kwargs["pt_lpips_lambda"] * features

    used = local if kwargs["use_locality_regularization"] else None
    tuned = tune(generator, pivot, image, distance, steps=kwargs["steps"], lr=kwargs["learning_rate"], locality=used, draws=z)
    with torch.no_grad():
        found = {
            "image_before": generator.synthesis(pivot),
            "image_after": tuned.generator.synthesis(pivot),
            "w_morphed": near(generator, pivot, z[0][:1], local),
            "tuned.synthesis.b4.const": tuned.generator.synthesis.b4.const,
        }
    arrays = {name: value.detach().numpy() for name, value in found.items()}
    return arrays | {"loss": np.float32(tuned.losses), "l2": np.float32(squares), "perceptual": np.float32(perceptual)}


MODULES = {"criteria.localitly_regulizer.Space_Regulizer and training.coaches.base_coach.calc_loss": tuning}

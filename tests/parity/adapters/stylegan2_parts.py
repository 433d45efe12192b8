"""StyleGAN2's augmentation pipe, its projector, and the factorisation of rosinality's repository."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.blocks import augment
from limn.latent.factor import singular
from limn.latent.projector import Schedule, project, statistics
from limn.weights.recognise import adopt


def pipe(case: Any) -> dict[str, np.ndarray]:
    image, found = torch.from_numpy(case.inputs["image"]), {}
    height, width = image.shape[2:]
    for output in case.outputs:
        name, quantile, what = re.fullmatch(r"(\w+)@([\d.]+?)(\.G_inv|\.C)?", output).groups()  # type: ignore[union-attr]
        config = augment.AugmentConfig(**case.spec["kwargs"]["one pipe per output"][name])
        module = augment.Augment(config)
        module.load_state_dict({key: torch.from_numpy(array) for key, array in case.weights().items()})
        draws = augment._Draws(len(image), 1.0, image.device, None, float(quantile))
        if what == ".G_inv":
            found[output] = augment.inverse_geometry(draws, config, height, width)[0]
        elif what == ".C":
            found[output] = augment.colour_matrix(draws, config)[0]
        else:
            found[output] = module(image, quantile=float(quantile))
    return {name: value.numpy() for name, value in found.items()}


def projector(case: Any) -> dict[str, np.ndarray]:
    kwargs, inputs = case.spec["kwargs"], {name: torch.from_numpy(array) for name, array in case.inputs.items()}
    generator: Any = adopt({name: torch.from_numpy(array) for name, array in case.weights().items()}, "stylegan2", "generator").model

    def features(images: Tensor) -> Tensor:
        return 0.5 * F.avg_pool2d(images, 2).flatten(1)

    z = np.random.RandomState(123).randn(kwargs["w_avg_samples"], generator.config.z_dim)
    schedule = Schedule(
        steps=kwargs["num_steps"],
        lr=kwargs["initial_learning_rate"],
        noise_factor=kwargs["initial_noise_factor"],
        ramp_down=kwargs["lr_rampdown_length"],
        ramp_up=kwargs["lr_rampup_length"],
        noise_ramp=kwargs["noise_ramp_length"],
        regularise=kwargs["regularize_noise_weight"],
    )
    target = inputs["target"].float().reshape(1, 3, generator.config.size, generator.config.size) / 127.5 - 1
    planes = {name.removeprefix("noise."): plane for name, plane in inputs.items() if name.startswith("noise.")}
    planes = {name.removeprefix("synthesis."): plane for name, plane in planes.items()}
    statistic = statistics(generator, torch.from_numpy(z).float())
    found = project(
        generator,
        target,
        lambda images, wanted: (features(images) - features(wanted)).square().sum(),
        schedule=schedule,
        noise=planes,
        jitters=inputs["w_noise"],
        statistic=statistic,
    )
    mean, deviation = statistic
    arrays = {
        "w_avg": mean.reshape(case.outputs["w_avg"].shape).numpy(),
        "w_std": np.float32(deviation),
        "w": found.path.reshape(case.outputs["w"].shape).numpy(),
    }
    for name in case.outputs:
        if name.startswith("noise."):
            arrays[name] = found.noise[name.removeprefix("noise.").removeprefix("synthesis.")].numpy()
    return arrays


def factor(case: Any) -> dict[str, np.ndarray]:
    """Columns are directions, by falling singular value; each is turned the way that the published one points."""
    chosen = [torch.from_numpy(array) for name, array in case.weights().items() if "modulation" in name and "to_rgbs" not in name]
    rows, values = singular(torch.cat(chosen))
    columns = rows.T.numpy()
    return {"eigvec": columns * np.sign((columns * case.outputs["eigvec"]).sum(0)), "singular": values.numpy()}


MODULES = {"training.augment.AugmentPipe": pipe, "projector.project": projector}
FACTOR = {"closed_form_factorization": factor}

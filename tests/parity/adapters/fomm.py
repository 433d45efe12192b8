"""How the cases of the First Order Motion Model call our networks and losses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limn.blocks.warp import ThinPlate
from limn.models.animation import fomm
from limn.models.animation.judges import name_of
from limn.models.perception.vgg import Config as VggConfig
from limn.models.perception.vgg import Vgg
from limn.weights.recognise import adopt

WEIGHT = "parametrizations.weight.original"  # of a layer with spectral norm


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


def signed(image: Tensor) -> Tensor:
    """The cases' pictures are bytes."""
    return image.float() / 127.5 - 1


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def settings(case: Any) -> dict[str, Any]:
    """What the state does not tell: padding, temperature, variance."""
    kwargs = case.spec["kwargs"]
    detector = kwargs.get("kp_detector_params", {})
    variance = kwargs.get("generator_params", {}).get("dense_motion_params", {}).get("kp_variance", 0.01)
    return {"padding": detector.get("pad", 0), "temperature": detector.get("temperature", 0.1), "variance": variance}


def network(state: Mapping[str, Tensor], part: str, **changes: Any) -> nn.Module:
    """Load a part strictly, then build it with the settings that a state does not hold."""
    loaded = adopt(under(state, f"{part}."), "fomm", part)
    made = fomm.NETWORKS[part](replace(loaded.config, **changes))
    made.load_state_dict(loaded.model.state_dict(), strict=True)
    return made.eval()


def sub(array: np.ndarray, full: Tensor) -> np.ndarray:
    """Take every n-th row and column, as the case stores a picture."""
    step = next((n for n in range(1, 9) if full[..., ::n, ::n].shape == array.shape), 1)
    return full[..., ::step, ::step].numpy()


@torch.no_grad()
def animate(case: Any) -> dict[str, np.ndarray]:
    state, inputs = tensors(case.weights()), {name: signed(image) for name, image in tensors(case.inputs).items()}
    detector = network(state, "kp_detector", **settings(case))
    points = {name: detector(inputs[name]) for name in ("source", "driving", "initial")}
    points["relative"] = fomm.relative(points["source"], points["driving"], points["initial"], adapt=True)
    found = {f"kp_{who}.{what}": value.numpy() for who, both in points.items() for what, value in both.items()}
    for suffix, corners in (("", False), ("_corners", True)):
        generator = network(state, "generator", corners=corners, **settings(case))
        made = generator(inputs["source"], points["source"], points["driving"])
        related = generator(inputs["source"], points["source"], points["relative"])
        full = {"prediction": (made.image + 1) / 2, "deformed": (made.warped + 1) / 2, "prediction_relative": (related.image + 1) / 2}
        full |= {"mask": made.mask, "occlusion_map": made.occlusion, "sparse_deformed": made.sparse[:, 1:3]}
        found[f"deformation{suffix}"] = made.flow.numpy()
        for name, value in full.items():
            if value is not None and f"{name}{suffix}" in case.outputs:
                found[f"{name}{suffix}"] = sub(case.outputs[f"{name}{suffix}"], value)
    return found


def vgg_of(state: Mapping[str, Tensor]) -> Vgg:
    """The cases' own VGG, whose layers bear torchvision's numbers."""
    made = Vgg(VggConfig("vgg19"))
    given = {re.sub(r"slice\d\.", "", name): tensor for name, tensor in under(state, "vgg.").items() if "slice" in name}
    made.load_state_dict({**made.state_dict(), **given}, strict=True)
    return made


def objective_of(case: Any, state: Mapping[str, Tensor]) -> fomm.Objective:
    """Our objective with the case's networks and factors."""
    training = case.spec["kwargs"]["train_params"]
    factors = training["loss_weights"]
    judge = adopt(under(state, "discriminator."), "fomm", "discriminator")
    parts = {name: network(state, name, corners=False, **settings(case)) for name in ("generator", "kp_detector")}
    config = replace(parts["kp_detector"].config, judge=judge.config.judge)
    made = fomm.objective(
        config,
        features=vgg_of(state),
        scales=training["scales"],
        perceptual=factors["perceptual"][0],
        gan=factors["generator_gan"],
        matching=factors["feature_matching"][0],
        value=factors["equivariance_value"],
        jacobian=factors["equivariance_jacobian"],
    )
    made.networks.update({**parts, "discriminator": judge.model})
    made.networks.eval().requires_grad_(True)
    made.compare.features.requires_grad_(False)
    return made


def losses(case: Any) -> dict[str, np.ndarray]:
    state, given = tensors(case.weights()), tensors(case.inputs)
    objective = objective_of(case, state)
    source, target = signed(given["source"]), signed(given["driving"])
    transform = ThinPlate(given["theta"], given.get("control_params"))
    made, wanted = objective.rebuilt(source, target)
    judge, compare = objective.networks["discriminator"], objective.compare
    parts = compare.resemblance(made.image, target) | compare.opinion(judge, made.image, target, wanted["value"].detach())
    parts |= objective.equivariance(target, wanted, transform)
    torch.stack(list(parts.values())).sum().backward()
    published = {"perceptual": "perceptual", "matching": "feature_matching", "gan": "gen_gan"}
    published |= {"value": "equivariance_value", "jacobian": "equivariance_jacobian"}
    found = {f"loss.{published[name]}": value.detach().reshape(1) for name, value in parts.items()}
    found |= gradients(case, objective)
    objective.networks.zero_grad()
    verdict = compare.verdict(judge, made.image, target, wanted["value"].detach())
    verdict.backward()
    found["loss.disc_gan"] = verdict.detach().reshape(1)
    last = judge.discs[name_of(judge.judge.scales[0])].conv
    found["grad.discriminator.conv"] = dict(last.named_parameters())[WEIGHT if spectral(objective) else "weight"].grad
    found |= seen(objective, made, target, wanted, transform)
    return {name: matched(case, name, value.detach()) for name, value in found.items()}


def spectral(objective: fomm.Objective) -> bool:
    return objective.config.judge.spectral


def gradients(case: Any, objective: fomm.Objective) -> dict[str, Tensor]:
    """Gradients that the case stores; of the keypoint convolution the middle row of its kernel."""
    parameters = dict(objective.networks.named_parameters())
    found = {}
    for name in case.outputs:
        key = name.removeprefix("grad.")
        if name.startswith("grad.") and key in parameters:
            gradient = parameters[key].grad
            found[name] = gradient[:, :, 3] if key == "kp_detector.kp.weight" else gradient
    return found


@torch.no_grad()
def seen(objective: fomm.Objective, made: fomm.Moved, target: Tensor, wanted: fomm.Points, transform: ThinPlate) -> dict[str, Tensor]:
    """What the discriminator makes of the generated picture, the transformed frame, and the pyramid."""
    found = {}
    maps = objective.networks["discriminator"](objective.compare.unit(made.image), wanted["value"])
    for scale, (features, logits) in maps.items():
        name = name_of(scale)
        found |= {f"discriminator.map_{name}": logits, f"discriminator.feature0_{name}": features[0]}
        found[f"discriminator.feature3_{name}"] = features[3][:, ::4]
    found["transformed_frame"] = transform.images((target + 1) / 2, align_corners=False)
    found["transformed_kp"] = objective.networks["kp_detector"](2 * found["transformed_frame"] - 1)["value"]
    return found | {f"pyramid_{scale:g}": image for scale, image in objective.compare.unit(target).items()}


def matched(case: Any, name: str, value: Tensor) -> np.ndarray:
    """Take every n-th row and column, as the case stores it."""
    wanted = case.outputs.get(name)
    if wanted is not None and value.ndim == 4 and value.shape != wanted.shape:
        return sub(wanted, value)
    return value.numpy()


PREDICT = "modules.keypoint_detector.KPDetector, modules.generator.OcclusionAwareGenerator, animate.normalize_kp"
LOSSES = "modules.model.GeneratorFullModel, DiscriminatorFullModel; modules.discriminator.MultiScaleDiscriminator"
MODULES = {PREDICT: animate, LOSSES: losses}

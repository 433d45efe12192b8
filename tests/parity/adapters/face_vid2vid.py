"""How the cases of face-vid2vid (the port) call our networks and losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from adapters.fomm import matched, signed, sub, tensors, under, vgg_of
from torch import Tensor, nn

from limn.blocks.warp import ThinPlate
from limn.models.animation import face_vid2vid as talking
from limn.models.animation.fomm import relative
from limn.models.animation.judges import name_of
from limn.weights.recognise import adopt

PARTS = ("kp_detector", "he_estimator", "generator")


def network(case: Any, state: Mapping[str, Tensor], part: str) -> nn.Module:
    """Load a part strictly, then build it with the settings that a state does not hold."""
    detector = case.spec["kwargs"]["kp_detector_params"]
    loaded = adopt(under(state, f"{part}."), "face-vid2vid", part)
    made = talking.NETWORKS[part](replace(loaded.config, temperature=detector.get("temperature", 0.1)))
    made.load_state_dict(loaded.model.state_dict(), strict=True)
    return made.eval()


@torch.no_grad()
def animate(case: Any) -> dict[str, np.ndarray]:
    state, given = tensors(case.weights()), tensors(case.inputs)
    detector, estimator, generator = (network(case, state, part) for part in PARTS)
    images = {name: signed(given[name]) for name in ("source", "driving", "initial")}
    canonical, poses = detector(images["source"]), {name: estimator(image) for name, image in images.items()}
    placed = {name: talking.turned(canonical, pose) for name, pose in poses.items()}
    placed["relative"] = relative(placed["source"], placed["driving"], placed["initial"], adapt=True)
    found = {f"canonical.{name}": value for name, value in canonical.items()}
    found |= {f"kp_{who}.{what}": value for who, both in placed.items() for what, value in both.items()}
    found |= {f"he_{who}.{what}": value for who, pose in poses.items() for what, value in pose.items()}
    angles = tuple(talking.degrees(poses["driving"][name]) for name in ("yaw", "pitch", "roll"))
    found |= {"driving_degrees": torch.stack(angles, 1), "driving_rotation": talking.rotation(*angles)}
    view = tuple(torch.tensor([float(angle)]) for angle in case.spec["kwargs"].get("free_view_degrees", (0, 0, 0)))
    found["kp_view"] = talking.turned(canonical, poses["driving"], view)["value"]
    own, wanted = (points(given, name) for name in ("kp_source", "kp_driving"))
    made = generator(images["source"], own, wanted)
    related = generator(images["source"], placed["source"], placed["relative"])
    found |= {"prediction": (made.image + 1) / 2, "prediction_relative": (related.image + 1) / 2, "deformation": made.flow}
    found |= {"mask": made.mask, "feature_3d": generator.volume(images["source"])}
    found |= {} if made.occlusion is None else {"occlusion_map": made.occlusion}
    return {name: thinned(value, case.outputs[name]) for name, value in found.items() if name in case.outputs}


def points(given: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The generator's keypoints are inputs, with Jacobians where the case has such."""
    found = {"value": given[name] if name in given else given[f"{name}.value"]}
    for key in (f"{name}.jacobian", f"{name}_jacobian", name.replace("kp_", "jacobian_")):
        if key in given:
            found["jacobian"] = given[key]
    return found


def thinned(value: Tensor, wanted: np.ndarray) -> np.ndarray:
    """Take every n-th of each axis, as the case stores it."""
    if value.shape == wanted.shape:
        return value.numpy()
    if value.ndim == 4 and value.shape[1] == wanted.shape[1]:
        return sub(wanted, value)
    for axis in range(value.ndim):
        step = -(-value.shape[axis] // wanted.shape[axis])
        value = value.index_select(axis, torch.arange(0, value.shape[axis], step))
    return value.numpy()


def objective_of(case: Any, state: Mapping[str, Tensor]) -> talking.Objective:
    """Our objective with the case's networks and factors."""
    training = case.spec["kwargs"]["train_params"]
    factors, judge = training["loss_weights"], adopt(under(state, "discriminator."), "fomm", "discriminator")
    parts = {name: network(case, state, name) for name in PARTS}
    config = replace(parts["kp_detector"].config, judge=judge.config.judge)
    made = talking.Objective(
        config,
        vgg_of(state),
        adopt(under(state, "hopenet."), "hopenet").model,
        talking.Weights(
            perceptual=factors["perceptual"][0],
            gan=factors["generator_gan"],
            matching=factors["feature_matching"][0],
            value=factors["equivariance_value"],
            jacobian=factors["equivariance_jacobian"],
            prior=factors["keypoint"],
            pose=factors["headpose"],
            expression=factors["expression"],
            game={"hinge": "hinge", "ls": "least_squares"}[training.get("gan_mode", "hinge")],
        ),
        training["scales"],
        2e-4,
    )
    made.networks.update({**parts, "discriminator": judge.model})
    made.networks.eval().requires_grad_(True)
    return made


PUBLISHED = {"perceptual": "perceptual", "matching": "feature_matching", "gan": "gen_gan", "value": "equivariance_value"}
PUBLISHED |= {"jacobian": "equivariance_jacobian", "prior": "keypoint", "pose": "headpose", "expression": "expression"}


def losses(case: Any) -> dict[str, np.ndarray]:
    state, given = tensors(case.weights()), tensors(case.inputs)
    objective = objective_of(case, state)
    judge, compare = objective.networks["discriminator"], objective.compare
    source, target = signed(given["source"]), signed(given["driving"])
    made, canonical, wanted, pose = objective.rebuilt(source, target)
    parts = compare.resemblance(made.image, target) | compare.opinion(judge, made.image, target)
    parts |= objective.equivariance(target, canonical, wanted, ThinPlate(given["theta"], given.get("control_params")))
    parts |= objective.priors(target, wanted, pose)
    torch.stack(list(parts.values())).sum().backward()
    found = {f"loss.{PUBLISHED[name]}": value.detach().reshape(1) for name, value in parts.items()}
    found |= gradients(case, objective)
    found["loss.disc_gan"] = compare.verdict(judge, made.image, target).reshape(1)
    with torch.no_grad():
        maps = judge(compare.unit(made.image))
        found |= {f"discriminator.map_{name_of(scale)}": logits for scale, (_, logits) in maps.items()}
        found |= {"hopenet": objective.pose(target), "hopenet_degrees": objective.pose.degrees(target)}
    return {name: matched(case, name, value.detach()) for name, value in found.items() if name in case.outputs}


def gradients(case: Any, objective: talking.Objective) -> dict[str, Tensor]:
    """Gradients that the case stores; of the keypoint convolution the middle layer of its kernel."""
    parameters = dict(objective.networks.named_parameters())
    found = {}
    for name in case.outputs:
        key = name.removeprefix("grad.")
        gradient = parameters[key].grad if name.startswith("grad.") and key in parameters else None
        if gradient is not None:
            found[name] = gradient[:, :, gradient.shape[2] // 2] if gradient.ndim == 5 and case.outputs[name].ndim == 4 else gradient
    return found


PREDICT = "modules.keypoint_detector KPDetector HEEstimator, modules.generator OcclusionAwareGenerator"
LOSSES = "modules.model GeneratorFullModel, DiscriminatorFullModel; modules.hopenet.Hopenet"
MODULES = {PREDICT: animate, LOSSES: losses}

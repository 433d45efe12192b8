"""How the cases of NVIDIA's StyleGAN2-ADA call our networks and losses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from adapters.stylegan2_parts import MODULES as PARTS
from torch import Tensor

from limn.losses.adversarial import logistic, path_lengths, r1
from limn.models.generation import stylegan2
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray], prefix: str = "") -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items() if name.startswith(prefix)
    }


def settled(loaded: Any, kwargs: dict[str, Any]) -> Any:
    """Build the network again with the two settings that no state dict shows: clamping, and the groups of the minibatch deviation."""
    inner = {**kwargs, **kwargs.get("synthesis_kwargs", {}), **kwargs.get("epilogue_kwargs", {}), **kwargs.get("block_kwargs", {})}
    group = inner.get("mbstd_group_size", 4)
    config = replace(loaded.config, clamp=inner.get("conv_clamp"), group=1 << 30 if group is None else group)
    network = type(loaded.model)(config)
    network.load_state_dict(loaded.model.state_dict())
    return network.eval()


@torch.no_grad()
def generator(case: Any) -> dict[str, Any]:
    network = settled(adopt(tensors(case.weights()), "stylegan2", "generator"), case.spec["kwargs"])
    z, label, call = tensors(case.inputs)["z"], tensors(case.inputs).get("c"), case.spec["call"]
    w_plus = network.mapping(z, label)
    psi = re.search(r"truncation_psi=([\d.]+)", call)
    cutoff = re.search(r"truncation_cutoff=(\d+)", call)
    first = re.search(r"first (\d+) layers come from sample 0", call)
    split = int(first[1]) if first else 4
    mixed = torch.cat([w_plus[:1, :split], w_plus[1:2, split:]], 1)
    features: dict[int, Tensor] = {}
    image = network.synthesis.render(network.synthesis.styles(w_plus), "const", features=features)
    truncated = network(z, label, float(psi[1]) if psi else 0.7, int(cutoff[1]) if cutoff else None)
    images = {"image": image, "image_no_noise": network.synthesis(w_plus, "none"), "image_truncated": truncated}
    blocks = {f"block{size}": x for size, x in features.items()}
    return {"ws": w_plus[:, 0], **images, "image_mixed": network.synthesis(mixed), **blocks}


@torch.no_grad()
def discriminator(case: Any) -> dict[str, Any]:
    network = settled(adopt(tensors(case.weights()), "stylegan2", "discriminator"), case.spec["kwargs"])
    inputs = tensors(case.inputs)
    return {"logits": network(inputs["image"], inputs.get("c")), "features4": network.features(inputs["image"])[0]}


def losses(case: Any) -> dict[str, Any]:
    """Each phase by itself from the same state: what it reports, and the gradients of its mean over the batch."""
    kwargs, state = case.spec["kwargs"], case.weights()
    z, real, label = (tensors(case.inputs).get(name) for name in ("z", "real", "c"))
    assert z is not None and real is not None, "the case holds latents and real images"
    g = settled(adopt(tensors(state, "G."), "stylegan2", "generator"), kwargs["G"])
    d = settled(adopt(tensors(state, "D."), "stylegan2", "discriminator"), kwargs["D"])
    found: dict[str, Any] = {}

    def report(phase: str, total: Tensor, **values: Tensor) -> None:
        for network in (g, d):
            network.zero_grad()
        total.mean().backward()
        gradients = {f"{phase}:grad.{side}.{name}": p.grad for side, net in (("G", g), ("D", d)) for name, p in net.named_parameters()}
        found.update({name: gradient.clone() for name, gradient in gradients.items() if gradient is not None})
        found.update({f"{phase}:{name.replace('__', '/')}": value.detach() for name, value in values.items()})

    w_plus = g.mapping(z, label)
    fake = d(g.synthesis(w_plus), label)
    report("Gmain", logistic(fake, real=True), scores__fake=fake, G__loss=logistic(fake, real=True))
    path(case, g, report)
    fake, true = d(g.synthesis(g.mapping(z, label)).detach(), label), d(real, label)
    both = logistic(fake, real=False) + logistic(true, real=True)
    report("Dmain", both, scores__fake=fake, scores__real=true, D__loss=both)
    real.requires_grad_()
    logits = d(real, label)
    penalty = r1(logits, real)
    weighed = penalty * (kwargs.get("r1_gamma", 10) / 2)
    report("Dreg", weighed, scores__real=logits, r1_penalty=penalty, D__reg=weighed)
    g.mapping.track(w_plus)
    found["Gmain:w_avg"] = g.w_avg
    return {name: found[name].reshape(wanted.shape) for name, wanted in case.outputs.items() if name in found}


def path(case: Any, g: Any, report: Any) -> None:
    """The path-length phase, through the penalty and running mean of our objective."""
    kwargs, inputs = case.spec["kwargs"], tensors(case.inputs)
    count, label = len(inputs["z"]) // kwargs.get("pl_batch_shrink", 2), inputs.get("c")
    started = re.search(r"pl_mean starts at ([\d.]+)", case.spec["call"])
    objective = stylegan2.objective(g.config)
    objective.path_mean = torch.tensor(float(started[1].rstrip(".")) if started else 0.0)
    w_plus = g.mapping(inputs["z"][:count], None if label is None else label[:count])
    lengths = path_lengths(g.synthesis(w_plus), w_plus, inputs["pl_noise"])
    penalty = objective.path_penalty(lengths, kwargs.get("pl_decay", 0.01))
    weighed = penalty * kwargs.get("pl_weight", 2)
    report("Greg", weighed, pl_penalty=penalty, pl_mean=objective.path_mean, G__reg=weighed)


MODULES = {
    "training.networks.Generator": generator,
    "training.networks.Discriminator": discriminator,
    "training.loss.StyleGAN2Loss": losses,
    **PARTS,
}

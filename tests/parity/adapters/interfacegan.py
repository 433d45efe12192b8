"""InterFaceGAN: the boundary, conditional projection, and interpolation."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.latent.supervised import project_out, separate, slide


def boundary(case: Any) -> dict[str, np.ndarray]:
    inputs = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
    kwargs, call = case.spec["kwargs"], case.spec["call"]
    ours: dict[str, Tensor] = {}
    for name in case.outputs:
        if name == "boundary":
            chosen = kwargs.get("chosen_num_or_ratio", 0.02)
            share = chosen if chosen <= 1 else chosen / len(inputs["latents"])
            ours[name] = separate(inputs["latents"], inputs["scores"], share).normal[None]
        elif match := re.fullmatch(r"project(\d+)", name):
            primary = re.search(r"project_boundary\((\w+)", call)
            conditions = [inputs[f"condition_{index}"][0] for index in range(int(match[1]))]
            ours[name] = project_out(inputs[primary[1] if primary else "condition_3"][0], *conditions)[None]
        elif name.startswith("interp_"):
            source = "latents" if name == "interp_z" else "wplus"
            numbers = re.search(source + r"(?:\[:1\])?, condition_0, (-?[\d.]+), (-?[\d.]+), (\d+)", call)
            assert numbers, f"the case does not say the range of {name}"
            distances = torch.linspace(float(numbers[1]), float(numbers[2]), int(numbers[3]))
            ours[name] = slide(inputs[source][:1], inputs["condition_0"], distances)
    return {name: value.numpy() for name, value in ours.items()}


MODULES = {"utils.manipulator": boundary}

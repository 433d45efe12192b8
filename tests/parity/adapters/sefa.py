"""SeFa: the factorisation, and the StyleGAN2 of its repository under its own names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.latent.factor import factorise
from limn.weights.recognise import adopt

NAMES = [
    (r"mapping\.dense(\d+)\.", r"mapping.fc\1."),
    (r"truncation\.w_avg", "mapping.w_avg"),
    (r"synthesis\.early_layer\.const", "synthesis.b4.const"),
    (r"\.style\.", ".affine."),
    (r"\.noise$", ".noise_const"),
]


def place(name: str) -> str:
    """Where a layer of the genforce layout sits in NVIDIA's."""
    name = re.sub(r"synthesis\.output(\d+)", lambda m: f"synthesis.b{4 << int(m[1])}.torgb", name)
    return re.sub(
        r"synthesis\.layer(\d+)",
        lambda m: f"synthesis.b{4 << (int(m[1]) + 1) // 2}.conv{1 if m[1] == '0' else (int(m[1]) + 1) % 2}",
        name,
    )


def nvidia(state: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The state of a genforce generator under NVIDIA's names: up-sampling kernels lie turned by half, style biases lack their 1."""
    renamed = {}
    for name, array in state.items():
        if name.endswith("kernel"):
            continue
        new = place(name)
        for pattern, replacement in NAMES:
            new = re.sub(pattern, replacement, new)
        lead = (0, 0) if name.endswith(".noise") else (0,) if name.endswith("const") else ()
        turned = array[..., ::-1, ::-1] if re.fullmatch(r"synthesis\.layer\d*[13579]\.weight", name) else array
        renamed[new] = torch.from_numpy(np.array(turned[lead])) + (1.0 if name.endswith("style.bias") else 0.0)
    return renamed


def ordered(rows: Tensor, values: Tensor, case: Any) -> dict[str, np.ndarray]:
    """Put sorted rows in the published order (that of numpy's eig), each turned the way that the published one points."""
    theirs, order = case.outputs["vectors"], case.outputs["order"]
    vectors, numbers = np.empty_like(theirs), np.empty_like(case.outputs["values"])
    vectors[order], numbers[order] = rows.numpy(), values.numpy()
    vectors *= np.sign((vectors * theirs).sum(1, keepdims=True))
    return {"vectors": vectors, "values": numbers, "order": np.argsort(-numbers)}


def indices(text: str, count: int) -> list[int]:
    """Layers such as "all", "0-3" or "2,5-7"."""
    if text == "all":
        return list(range(count))
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    return [index for pair in ends for index in range(pair[0], pair[-1] + 1)]


@torch.no_grad()
def stylegan2(case: Any) -> dict[str, np.ndarray]:
    state = case.weights()
    model: Any = adopt(nvidia(state), "stylegan2", "generator").model
    z = torch.from_numpy(case.inputs["z"])
    psi, layers = (re.search(name + r"=([\d.]+)", case.spec["call"]) for name in ("trunc_psi", "trunc_layers"))
    whole = model.mapping(z)
    cut = model.mapping.truncate(whole, float(psi[1]) if psi else 1.0, int(layers[1]) if layers else None)
    last = max(int(match[1]) for name in state if (match := re.fullmatch(r"synthesis\.layer(\d+)\.weight", name)))
    which = re.search(r"factorize_weight\(G, '([^']+)'\)", case.spec["call"])
    chosen = indices(which[1] if which else "all", last + 2)
    names = [f"synthesis.layer{i}" if i <= last else f"synthesis.output{i // 2}" for i in chosen]
    weights = torch.cat([torch.from_numpy(state[f"{name}.style.weight"]) for name in names])
    found = {"w": whole[:, 0], "latent": whole[:, 0], "image": model.synthesis(cut), "image_full": model.synthesis(whole)}
    found = {name: value.numpy() for name, value in found.items()}
    return found | ordered(*factorise(weights), case) | {"layers": np.array(chosen)}


MODULES = {"models.stylegan2_generator.StyleGAN2Generator and utils.factorize_weight": stylegan2}

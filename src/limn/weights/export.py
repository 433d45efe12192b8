"""Write a native model in a published layout again, so that other programs read it: StyleGAN2 as NVIDIA's or rosinality's, or as ONNX."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limn.blocks.fir import kernel
from limn.errors import WeightsError
from limn.media.files import atomic
from limn.weights.native import Loaded

State = dict[str, Tensor]


def export(parts: dict[str, Loaded], out: Path, layout: str) -> tuple[str, ...]:
    """Write networks of one model in a published layout and return their parts: to .pt all, to .safetensors or .onnx one of them.

    Raises WeightsError where the model has no counterpart in that layout.
    """
    system = next(iter(parts.values())).system
    if layout == "onnx":
        export_onnx(parts, out)
        return ("generator",)
    if (system, layout) not in LAYOUTS:
        known = sorted({"native", *(name for of, name in LAYOUTS if of == system), *(["onnx"] if system == "stylegan2" else [])})
        raise WeightsError(f"{system} cannot be written as {layout!r}: there are {', '.join(known)}")
    write, keys = LAYOUTS[system, layout]
    states = {part: write(part, loaded.model.state_dict(), loaded.config) for part, loaded in parts.items() if part in keys}
    if not states:
        raise WeightsError(f"none of the parts {', '.join(parts)} has a counterpart in the {layout} layout")
    if out.suffix == ".safetensors":
        _write_one(states, out)
    elif out.suffix in (".pt", ".pth"):
        content: dict[str, Any] = {keys[part]: state for part, state in states.items()}
        if layout == "rosinality" and "generator" in parts:
            content["latent_avg"] = parts["generator"].model.state_dict()["mapping.w_avg"]
        with atomic(out) as temporary:
            torch.save(content, temporary)
    else:
        raise WeightsError(f"{out.name}: the {layout} layout is written as .pt, .pth or .safetensors")
    return tuple(states)


def _write_one(states: dict[str, State], out: Path) -> None:
    if len(states) > 1:
        raise WeightsError(f"{out.name} can hold one network, not {', '.join(states)}: choose one with --part, or write a .pt file")
    with atomic(out) as temporary:
        save_file({name: tensor.contiguous().clone() for name, tensor in next(iter(states.values())).items()}, temporary)


def nvidia(part: str, state: State, config: Any) -> State:
    """StyleGAN2 as NVlabs/stylegan2-ada-pytorch names it: ours, with a filter in every block and every convolution."""
    taps = _filter(config.taps)
    blocks = {name[: at.end()] for name in state if (at := re.match(r"(synthesis\.)?b\d+(?=\.)", name))}
    if part == "discriminator":
        blocks.discard("b4")  # the epilogue has none of its own
    convs = {
        name.removesuffix(".weight")
        for name, tensor in state.items()
        if name.endswith(".weight") and tensor.ndim == 4 and ".torgb." not in name
    }
    return dict(state) | {f"{place}.resample_filter": taps for place in sorted(blocks | convs)}


def rosinality(part: str, state: State, config: Any) -> State:
    """StyleGAN2 as rosinality/stylegan2-pytorch names it."""
    if config.c_dim or config.architecture != "skip" or config.discriminator != "resnet":
        raise WeightsError("only unconditional networks, generators with skips and residual discriminators have a rosinality layout")
    return _rosinality_generator(state, config) if part == "generator" else _rosinality_discriminator(state, config)


def _rosinality_generator(state: State, config: Any) -> State:
    places = {"b4.conv1": "conv1", "b4.torgb": "to_rgb1"}
    for index in range(len(config.channels) - 1):
        size = 8 << index
        places |= {f"b{size}.conv{k}": f"convs.{2 * index + k}" for k in (0, 1)} | {f"b{size}.torgb": f"to_rgbs.{index}"}
    taps = _filter(config.taps) * 4
    theirs: State = {"input.input": state["synthesis.b4.const"][None]}
    for layer in range(config.mapping_layers):
        theirs |= {f"style.{layer + 1}.{kind}": state[f"mapping.fc{layer}.{kind}"] for kind in ("weight", "bias")}
    for noise, (ours, place) in enumerate((ours, place) for ours, place in places.items() if "conv" in ours):
        theirs[f"noises.noise_{noise}"] = state[f"synthesis.{ours}.noise_const"][None, None]
        theirs[f"{place}.noise.weight"] = state[f"synthesis.{ours}.noise_strength"].reshape(1)
        theirs[f"{place}.activate.bias"] = state[f"synthesis.{ours}.bias"]
        if ours.endswith("conv0"):
            theirs[f"{place}.conv.blur.kernel"] = taps
    for ours, place in places.items():
        theirs[f"{place}.conv.weight"] = state[f"synthesis.{ours}.weight"][None]
        theirs |= {f"{place}.conv.modulation.{kind}": state[f"synthesis.{ours}.affine.{kind}"] for kind in ("weight", "bias")}
        if ours.endswith("torgb"):
            theirs[f"{place}.bias"] = state[f"synthesis.{ours}.bias"].reshape(1, -1, 1, 1)
        if place.startswith("to_rgbs"):
            theirs[f"{place}.upsample.kernel"] = taps
    return theirs


def _rosinality_discriminator(state: State, config: Any) -> State:
    taps = _filter(config.taps)
    theirs: State = {"convs.0.0.weight": state[f"b{config.size}.fromrgb.weight"], "convs.0.1.bias": state[f"b{config.size}.fromrgb.bias"]}
    for index in range(1, len(config.channels)):
        block, place = f"b{config.size >> (index - 1)}", f"convs.{index}"
        theirs |= {f"{place}.conv1.0.weight": state[f"{block}.conv0.weight"], f"{place}.conv1.1.bias": state[f"{block}.conv0.bias"]}
        theirs |= {f"{place}.conv2.1.weight": state[f"{block}.conv1.weight"], f"{place}.conv2.2.bias": state[f"{block}.conv1.bias"]}
        theirs |= {f"{place}.skip.1.weight": state[f"{block}.skip.weight"]}
        theirs |= {f"{place}.conv2.0.kernel": taps, f"{place}.skip.0.kernel": taps}
    theirs |= {"final_conv.0.weight": state["b4.conv.weight"], "final_conv.1.bias": state["b4.conv.bias"]}
    theirs |= {f"final_linear.0.{kind}": state[f"b4.fc.{kind}"] for kind in ("weight", "bias")}
    return theirs | {f"final_linear.1.{kind}": state[f"b4.out.{kind}"] for kind in ("weight", "bias")}


def export_onnx(parts: dict[str, Loaded], out: Path) -> Path:
    """Write a StyleGAN2 generator as ONNX: `z` (1, z_dim) and `truncation` () -> `image` (1, 3, size, size) in [-1, 1]."""
    loaded = parts.get("generator")
    if loaded is None or loaded.system != "stylegan2" or loaded.config.c_dim or out.suffix != ".onnx":
        raise WeightsError(f"{out.name}: ONNX is written of unconditional stylegan2 generators, to a file that ends in .onnx")
    if find_spec("onnx") is None:
        raise WeightsError(f"{out.name}: writing ONNX needs the onnx package: pip install 'limn[onnx]'")
    example = (torch.zeros(1, loaded.config.z_dim), torch.tensor(0.7))
    with atomic(out) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is the one that needs no further package; it says that it is the older one
        torch.onnx.export(
            Sampler(loaded.model), example, str(temporary), input_names=["z", "truncation"], output_names=["image"], dynamo=False
        )
    return out


class Sampler(nn.Module):
    """A generator as one graph, with its constant noise."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, truncation: Tensor) -> Tensor:
        w_plus = self.generator.mapping(z)
        average = self.generator.mapping.w_avg
        return self.generator.synthesis(average + (w_plus - average) * truncation)


def _filter(taps: tuple[float, ...]) -> Tensor:
    row = kernel(taps)
    return torch.outer(row, row)


# (system, layout): what writes the state of a part, and under which key of a .pt file each part is found
LAYOUTS: dict[tuple[str, str], tuple[Callable[[str, State, Any], State], dict[str, str]]] = {
    ("stylegan2", "nvidia"): (nvidia, {"generator": "G_ema", "discriminator": "D"}),
    ("stylegan2", "rosinality"): (rosinality, {"generator": "g_ema", "discriminator": "d"}),
}

"""The two layouts in which StyleGAN2 is published: what their names and shapes say of the configuration.

NVIDIA's PyTorch layout (stylegan2-ada-pytorch) is ours but for the resampling buffers; rosinality's holds the same numbers under
other names, with singleton axes. Every function takes a state dict and returns the fields of `stylegan2.Config` it determines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from limn.blocks.fir import BINOMIAL, kernel
from limn.models.records import Names, State

Fields = dict[str, Any]


def found(state: State, pattern: str) -> list[int]:
    """The numbers that `pattern` captures in the names of a state, each once, in order."""
    return sorted({int(match[1]) for name in state if (match := re.fullmatch(pattern, name))})


def holds(*names: str) -> Callable[[State], bool]:
    """What knows a layout by names that only it has."""
    return lambda state: all(name in state for name in names)


NVIDIA_G = holds("synthesis.b4.const", "mapping.fc0.weight", "mapping.w_avg")
NVIDIA_D = holds("b4.fc.weight", "b4.conv.weight", "b4.out.weight")
ROSINALITY_G = holds("input.input", "conv1.conv.modulation.weight", "style.1.weight")
ROSINALITY_D = holds("convs.1.conv1.0.weight", "final_linear.1.weight", "final_conv.0.weight")


def filter_taps(state: State) -> tuple[float, ...]:
    """The resampling kernel that the state holds as a buffer (rosinality's up-sampling copies are four times as large)."""
    buffer = next((t for name, t in state.items() if name.endswith(("resample_filter", ".kernel"))), None)
    if buffer is None:
        return BINOMIAL
    taps = buffer.float().sum(0) / buffer.float().sum()
    same = len(taps) == len(BINOMIAL) and torch.allclose(taps, kernel(), atol=1e-5)
    return BINOMIAL if same else tuple(taps.tolist())


def nvidia_generator(state: State) -> Fields:
    """What NVIDIA's generator layout says."""
    sizes = found(state, r"synthesis\.b(\d+)\.conv1\.weight")
    c_dim = state["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in state else 0
    w_dim = state["synthesis.b4.conv1.affine.weight"].shape[1]
    layers = len(found(state, r"mapping\.fc(\d+)\.weight"))
    residual = any(re.fullmatch(r"synthesis\.b\d+\.skip\.weight", name) for name in state)
    return Fields(
        size=sizes[-1],
        z_dim=state["mapping.fc0.weight"].shape[1] - (state["mapping.embed.weight"].shape[0] if c_dim else 0),
        w_dim=w_dim,
        c_dim=c_dim,
        image_channels=state[f"synthesis.b{sizes[-1]}.torgb.weight"].shape[0],
        mapping_layers=layers,
        **mapping_sizes(state, layers, w_dim),
        channels=tuple(state[f"synthesis.b{size}.conv1.weight"].shape[0] for size in sizes),
        architecture="resnet" if residual else "skip" if "synthesis.b4.torgb.weight" in state else "orig",
        noise="synthesis.b4.conv1.noise_const" in state,
        taps=filter_taps(state),
    )


def mapping_sizes(state: State, layers: int, w_dim: int) -> Fields:
    """Widths of a mapping network where they are not those of w: of its hidden layers, and of the embedded label."""
    width = state["mapping.fc0.weight"].shape[0] if layers > 1 else w_dim
    embed = state["mapping.embed.weight"].shape[0] if "mapping.embed.weight" in state else w_dim
    return Fields(mapping_width=0 if width == w_dim else width, embed_dim=0 if embed == w_dim else embed)


def nvidia_discriminator(state: State) -> Fields:
    """What NVIDIA's discriminator layout says; the group size is not in it (published: 4)."""
    sizes = [4, *found(state, r"b(\d+)\.conv0\.weight")]
    channels = (state["b4.conv.weight"].shape[0], *(state[f"b{size}.conv0.weight"].shape[0] for size in sizes[1:]))
    label = state.get("mapping.embed.weight")
    layers = len(found(state, r"mapping\.fc(\d+)\.weight"))
    label_dim = 0 if label is None else state[f"mapping.fc{layers - 1}.weight"].shape[0]
    return Fields(
        size=sizes[-1],
        c_dim=0 if label is None else label.shape[1],
        image_channels=state[f"b{sizes[-1]}.fromrgb.weight"].shape[1],
        channels=channels,
        discriminator="resnet" if f"b{sizes[-1]}.skip.weight" in state else "skip" if "b4.fromrgb.weight" in state else "orig",
        taps=filter_taps(state),
        label_dim=label_dim,
        label_layers=layers or 8,
        **(mapping_sizes(state, layers, label_dim) if layers else {}),
        std_channels=state["b4.conv.weight"].shape[1] - channels[0],
    )


NVIDIA: Names = [(r".*resample_filter", None)]

LAYER = [("conv.weight", "weight"), ("conv.modulation.weight", "affine.weight"), ("conv.modulation.bias", "affine.bias")]
LAYER += [("noise.weight", "noise_strength"), ("activate.bias", "bias"), ("bias", "bias")]
PLACES = [("conv1", "b4.conv1"), ("to_rgb1", "b4.torgb")]
PLACES += [(f"convs.{2 * j + k}", f"b{8 << j}.conv{k}") for j in range(8) for k in (0, 1)]
PLACES += [(f"to_rgbs.{j}", f"b{8 << j}.torgb") for j in range(8)]
ROSINALITY: list[tuple[str, str | None]] = [(re.escape(f"{a}.{s}"), f"synthesis.{b}.{t}") for a, b in PLACES for s, t in LAYER]
ROSINALITY += [("noises.noise_0", "synthesis.b4.conv1.noise_const")]
ROSINALITY += [(rf"noises\.noise_{2 * j + k + 1}", f"synthesis.b{8 << j}.conv{k}.noise_const") for j in range(8) for k in (0, 1)]
ROSINALITY += [(rf"style\.{n + 1}\.(weight|bias)", rf"mapping.fc{n}.\1") for n in range(16)]
ROSINALITY += [("input.input", "synthesis.b4.const"), ("latent_avg", "mapping.w_avg"), (r".*\.kernel", None)]


def blocks_of(config: Any) -> list[tuple[str, str | None]]:
    """Rows for rosinality's discriminator of `config.size` pixels; its blocks are counted from the full resolution."""
    size = config.size
    rows: list[tuple[str, str | None]] = [(r"convs\.0\.0\.weight", f"b{size}.fromrgb.weight")]
    rows += [(r"convs\.0\.1\.bias", f"b{size}.fromrgb.bias")]
    sizes = [size >> level for level in range(size.bit_length() - 3)]
    for index, at in enumerate(sizes, 1):
        rows += [(rf"convs\.{index}\.conv1\.\d\.(weight|bias)", rf"b{at}.conv0.\1")]
        rows += [(rf"convs\.{index}\.conv2\.[12]\.(weight|bias)", rf"b{at}.conv1.\1")]
        rows += [(rf"convs\.{index}\.skip\.1\.weight", f"b{at}.skip.weight")]
    rows += [(r"final_conv\.\d\.(weight|bias)", r"b4.conv.\1"), (r"final_linear\.0\.(weight|bias)", r"b4.fc.\1")]
    return [*rows, (r"final_linear\.1\.(weight|bias)", r"b4.out.\1"), (r".*\.kernel", None)]


def rosinality_generator(state: State) -> Fields:
    """What rosinality's generator layout says."""
    ups = 1 + max(found(state, r"to_rgbs\.(\d+)\.bias"), default=-1)
    convs = [state["conv1.conv.weight"], *(state[f"convs.{2 * j + 1}.conv.weight"] for j in range(ups))]
    return Fields(
        size=4 << ups,
        z_dim=state["style.1.weight"].shape[1],
        w_dim=state["conv1.conv.modulation.weight"].shape[1],
        image_channels=state["to_rgb1.bias"].shape[1],
        mapping_layers=len(found(state, r"style\.(\d+)\.weight")),
        channels=tuple(weight.shape[1] for weight in convs),
        taps=filter_taps(state),
    )


def rosinality_discriminator(state: State) -> Fields:
    """What rosinality's discriminator layout says."""
    last = max(found(state, r"convs\.(\d+)\.conv1\.0\.weight"))
    inputs = [state[f"convs.{index}.conv1.0.weight"].shape[0] for index in range(last, 0, -1)]
    deepest = state["final_conv.0.weight"]
    return Fields(
        size=4 << last,
        image_channels=state["convs.0.0.weight"].shape[1],
        channels=(deepest.shape[0], *inputs),
        taps=filter_taps(state),
        std_channels=deepest.shape[1] - deepest.shape[0],
    )

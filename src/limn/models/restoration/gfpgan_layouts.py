"""What published GFPGAN files hold: their configuration by shapes, and their names in ours."""

from __future__ import annotations

import re
from typing import Any

from limn.models.records import State


def fields(state: State, plain: bool) -> dict[str, Any]:
    """Infer the fields of the configuration from shapes; `plain` is the dialect `clean`."""
    d = "stylegan_decoder."
    sizes = [int(found[1]) for name in state if (found := re.fullmatch(r"stylegan_decoder\.to_rgbs\.(\d+)\.bias", name))]
    levels = 1 + max(sizes)
    convs = [state[f"{d}style_conv1.modulated_conv.weight"]]
    convs += [state[f"{d}style_convs.{2 * index + 1}.modulated_conv.weight"] for index in range(levels)]
    channels, w_dim = tuple(weight.shape[1] for weight in convs), state[f"{d}style_conv1.modulated_conv.modulation.weight"].shape[1]
    dot = "" if plain else ".0"
    ups = [state[f"conv_body_up.{index}.skip.weight"].shape[0] for index in range(levels)]
    return dict[str, Any](
        size=4 << levels,
        w_dim=w_dim,
        mapping_layers=sum(re.fullmatch(r"stylegan_decoder\.style_mlp\.\d+\.weight", name) is not None for name in state),
        channels=channels,
        unet=(state[f"final_conv{dot}.weight"].shape[0], *ups),
        half=state["condition_scale.0.2.weight"].shape[0] < channels[1],
        different_w=state["final_linear.weight"].shape[0] > w_dim,
    )


def names_of(config: Any) -> list[tuple[str, str | None]]:
    """Rows from published names to ours."""
    d, step = r"stylegan_decoder\.", 2 if config.kind == "clean" else 1
    rows: list[tuple[str, str | None]] = [
        (r"conv_body_first(?:\.\d)?\.(weight|bias)", r"first.\1"),
        (r"final_conv(?:\.\d)?\.(weight|bias)", r"last.\1"),
        (r"final_linear\.(weight|bias)", r"final.\1"),
        (r"conv_body_(down|up)\.(\d+)\.(conv1|conv2|skip)(?:\.\d|\.activation)?\.(weight|bias)", r"\1.\2.\3.\4"),
        (r"toRGB\.(\d+)\.(weight|bias)", r"rgb.\1.\2"),
        (r"condition_(scale|shift)\.(\d+)\.0\.(weight|bias)", r"condition_\1.\2.0.\3"),
        (r"condition_(scale|shift)\.(\d+)\.2\.(weight|bias)", r"condition_\1.\2.1.\3"),
        (rf"{d}constant_input\.weight", "decoder.b4.const"),
        (rf"{d}noises\.noise0", "decoder.b4.conv1.noise_const"),
    ]
    rows += [(rf"{d}style_mlp\.{1 + step * n}\.(weight|bias)", rf"decoder.mapping.fc{n}.\1") for n in range(config.mapping_layers)]
    places = [("style_conv1", "b4.conv1"), ("to_rgb1", "b4.torgb")]
    for index in range(len(config.channels) - 1):
        size = 8 << index
        places += [(rf"style_convs\.{2 * index + k}", f"b{size}.conv{k}") for k in (0, 1)] + [(rf"to_rgbs\.{index}", f"b{size}.torgb")]
        rows += [(rf"{d}noises\.noise{2 * index + k + 1}", f"decoder.b{size}.conv{k}.noise_const") for k in (0, 1)]
    for theirs, ours in places:
        rows += [
            (rf"{d}{theirs}\.modulated_conv\.modulation\.(weight|bias)", rf"decoder.{ours}.affine.\1"),
            (rf"{d}{theirs}\.modulated_conv\.weight", f"decoder.{ours}.weight"),
            (rf"{d}{theirs}\.weight", f"decoder.{ours}.noise_strength"),
            (rf"{d}{theirs}(?:\.activate)?\.bias", f"decoder.{ours}.bias"),
        ]
    return rows

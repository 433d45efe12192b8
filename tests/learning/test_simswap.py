"""A tiny SimSwap learns from portraits to make a face more like another, through the command's own function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limn.models.records import Preset
from limn.models.swapping.simswap import Config, Judge, Weights

TINY = Preset(
    Config(32, 128, 11.3, (8, 16), 1, template="ffhq", residual=True, judge=Judge("patch", 8, depth=2)),
    "identities",
    16,
    90,
    {"identity": "limn-identity", "weights": Weights(10.0, 1.0, 1.0), "lr": 5e-4, "same": 0.25, "views": 1},
    reading={"distorted": False, "where": ("era=modern",)},
)


def test_identity_is_taken_over(
    learn: Callable[..., list[dict[str, float]]], fell: Callable[[list[dict[str, float]], str], float], portraits: Path
) -> None:
    lines = learn("simswap", portraits / "portraits128.zip", TINY)
    assert fell(lines, "generator/identity") < 0.92
    assert not [line for line in lines if "warning" in line], "a healthy run is not warned about"

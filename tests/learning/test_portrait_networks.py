"""The recipes of encoders, detectors, landmarks and identity learn from portraits, each in a run of seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limn.models.inversion import e4e, psp
from limn.models.perception import arcface, limn_detector, limn_identity, limn_mesh, retinaface, yunet
from limn.models.records import Preset
from limn.weights import load

TRUNK: dict[str, Any] = {
    "size": 64,
    "stem": 8,
    "widths": (8, 12, 16, 24),
    "units": (1, 1, 1, 1),
    "style_width": 16,
    "coarse": 3,
    "middle": 6,
}
FROZEN = {"generator": "limn-portraits64", "features": "limn-identity"}
DETECTOR = limn_detector.Config(stem=8, widths=(12, 16, 24, 24), depths=(0, 1, 1, 1), head=16, size=96)

# system, recipe, data within the folder of portraits, and the figures that must fall, each to a share of what it was
RECIPES: dict[str, tuple[str, Preset, str, dict[str, float]]] = {
    "psp": ("psp", Preset(psp.Config(**TRUNK), "images", 8, 20, FROZEN | {"lr": 3e-3}), "portraits128.zip", {"encoder/l2": 0.75}),
    "e4e": (
        "e4e",
        Preset(e4e.Config(**TRUNK, hidden=16), "images", 8, 20, FROZEN | {"weights": e4e.Weights(supervised=1.0), "rates": (3e-3, 1e-4)}),
        "portraits128.zip",
        {"encoder/l2": 0.85},
    ),
    "limn-detector": ("limn-detector", Preset(DETECTOR, "scenes", 4, 120), "", {"faces/score": 0.7}),
    "limn-detector, points": (
        "limn-detector",
        Preset(DETECTOR, "points", 16, 60, {"part": "points"}),
        "",
        {"points/points": 0.6},
    ),
    "limn-mesh": (
        "limn-mesh",
        Preset(limn_mesh.Config(stem=8, widths=(12, 16, 24), depths=(1, 1, 1), kept=8, shapes=24), "mesh", 8, 40),
        "",
        {"mesh/points": 0.6},
    ),
    "limn-identity": (
        "limn-identity",
        Preset(limn_identity.Config(size=32, widths=(8, 12, 16, 24), depths=(1, 1, 1, 1), embedding=16), "identities", 16, 100),
        "portraits128.zip",
        {"identity/margin": 0.9},
    ),
    "arcface": (
        "arcface",
        Preset(arcface.Config(widths=(4, 4, 8, 8), units=(1, 1, 1, 1), embedding=16, size=32), "identities", 16, 100),
        "portraits128.zip",
        {"backbone/arcface": 0.9},
    ),
    "retinaface": (
        "retinaface",
        Preset(retinaface.Config(channels=16), "scenes", 4, 120, reading={"size": 96}),
        "",
        {"detector/class": 0.9},
    ),
    "yunet": (
        "yunet",
        Preset(replace(yunet.SMALL, channels=16), "scenes", 4, 120, reading={"size": 96}),
        "",
        {"detector/object": 0.3, "detector/box": 0.95},
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_learns(name: str, portraits: Path, learn: Callable[..., Any], fell: Callable[..., float]) -> None:
    system, recipe, data, figures = RECIPES[name]
    lines = learn(system, portraits / data if data else portraits, recipe)
    for figure, least in figures.items():
        share = fell(lines, figure)
        assert share < least, f"{name}: {figure} is at {share:.2f} of what it was, {least} at most was expected"


def test_a_model_tells_which_frozen_models_it_was_trained_beside(portraits: Path, learn: Callable[..., Any], tmp_path: Path) -> None:
    learn("psp", portraits / "portraits128.zip", Preset(psp.Config(**TRUNK), "images", 2, 1, FROZEN))
    told = load(tmp_path / "run" / "model.safetensors").meta["training"]
    assert told["generator"] == f"limn-portraits64 {load('limn-portraits64').hash}"

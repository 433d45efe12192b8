"""The recipes of the two parsers learn from portraits that nobody labelled, each in a run of seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limn.models.perception import bisenet, limn_parser
from limn.models.records import Preset
from limn.training.datasets import parsing
from limn.weights import load

OURS = limn_parser.Config(stem=8, widths=(12, 16, 24), depths=(0, 1, 1), pyramid=16)
PUBLISHED = replace(bisenet.SMALL, widths=(8, 12, 16, 24), context=16, fused=24, side=8)
RECIPES = {
    "limn-parser": (Preset(OURS, "parsing", 4, 40, {"lr": 1e-2}), "parser/classes", 0.8),
    "bisenet": (Preset(PUBLISHED, "parsing", 4, 40, {"lr": 1e-2}), "parser/eighth", 0.9),
}


@pytest.mark.parametrize("system", RECIPES)
def test_it_tells_the_face_from_what_is_about_it(
    system: str,
    portraits: Path,
    learn: Callable[..., Any],
    fell: Callable[..., float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "home"))
    recipe, figure, share = RECIPES[system]
    lines = learn(system, portraits, recipe)
    assert fell(lines, figure) < share, f"{figure} fell to {fell(lines, figure):.2f} of what it was"
    data = parsing.open(portraits, recipe.config)
    assert len(list((tmp_path / "home").rglob("*.npz"))) == 1, "the guesses are remembered"
    rows = torch.from_numpy(data.store.take(np.arange(8)))
    answer = load(tmp_path / "run" / "model.safetensors").model.parse(rows[..., :3].permute(0, 3, 1, 2) / 127.5 - 1).argmax(1)
    behind, found = rows[..., 3] == 0, answer == 0
    assert (behind & found).sum() / (behind | found).sum() > 0.5, "IoU of the background"

"""Tiny translators learn what their pictures ask for, through the command's own function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from limn.models.records import Adam, Preset
from limn.models.translation import cyclegan, pix2pix, spade
from limn.tasks.train import train
from limn.training import page
from limn.weights import load

COLOURS = ((30, 60, 200), (230, 200, 40))  # of the two kinds, or classes
SIDE = 32


def plain(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A picture of one colour with a little noise."""
    return np.clip(np.array(colour) + rng.normal(0, 10, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def trained(system: str, data: Path, out: Path, preset: Preset, module: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(module.PRESETS, "tiny", preset)
    monkeypatch.setattr(page, "interval", lambda: 0.0)
    done = train(system, data, out=out, preset="tiny", device="cpu", precision="float32", sample_every=1000)
    assert done.finished
    return done.model


def colour(index: int) -> Tensor:
    return (torch.tensor(COLOURS[index]) / 127.5 - 1)[None, :, None, None]


@pytest.fixture
def two_folders(tmp_path: Path) -> Path:
    """A/N.png in the one colour, B/N.png in the other."""
    rng = np.random.default_rng(0)
    for name, shade in zip("AB", COLOURS, strict=True):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(plain(shade, rng)).save(tmp_path / "data" / name / f"{number:02}.png")
    return tmp_path / "data"


def test_pix2pix_learns_the_answer(two_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pix2pix.Config(size=SIDE, width=4, downs=5, dropout=False, judge_width=4, judge_layers=1)
    preset = Preset(config, "paired", 2, 40, {"adam": Adam(4e-3, (0.5, 0.999))})
    model = load(trained("pix2pix", two_folders, tmp_path / "run", preset, pix2pix, monkeypatch)).model
    source = colour(0).expand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        off = float((model.translate(source) - colour(1)).abs().mean())
    assert off < 0.25 * float((source - colour(1)).abs().mean()), f"off by {off:.2f}"


def test_cyclegan_learns_both_ways_without_pairs(two_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = cyclegan.Config(size=SIDE, width=4, blocks=1, norm="none", judge_width=4, judge_layers=1)
    preset = Preset(config, "unpaired", 2, 120, {"adam": Adam(4e-3, (0.5, 0.999)), "cycle": 1.0, "identity_share": 1.0})
    file = trained("cyclegan", two_folders, tmp_path / "run", preset, cyclegan, monkeypatch)
    for part, here, there in (("a_to_b", 0, 1), ("b_to_a", 1, 0)):
        with torch.no_grad():
            made = load(file, part=part).model.translate(colour(here).expand(1, 3, SIDE, SIDE))
        near, far = (float((made - colour(kind)).abs().mean()) for kind in (there, here))
        assert near < far, f"{part} stays nearer to what it was: {near:.2f} from the target, {far:.2f} from the source"


def test_spade_learns_the_colours_of_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(40):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, : int(rng.integers(8, 24))] = 1
        shown = np.where(mask[..., None] == 0, plain(COLOURS[0], rng), plain(COLOURS[1], rng))
        Image.fromarray(shown).save(tmp_path / "data" / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number:02}.png")
    config = spade.Config(classes=2, width=1, size=SIDE, judge_width=4, judge_layers=2, scales=1)
    options = {"adam": (Adam(4e-3, (0.0, 0.9)), Adam(4e-3, (0.0, 0.9)))}
    preset = Preset(config, "masks", 2, 40, options, reading={"classes": 2})
    model = load(trained("spade", tmp_path / "data", tmp_path / "run", preset, spade, monkeypatch), part="generator").model
    labels = torch.zeros(1, 2, SIDE, SIDE)
    labels[:, 1, :, :16], labels[:, 0, :, 16:] = 1, 1
    with torch.no_grad():
        made = model.translate(labels)
    for index, half in ((1, made[..., :14]), (0, made[..., 18:])):
        right, wrong = (float((half - colour(kind)).abs().mean()) for kind in (index, 1 - index))
        assert right < 0.5 * wrong, f"class {index} is {right:.2f} from its colour, {wrong:.2f} from the other's"

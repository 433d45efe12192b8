"""The training loop: nothing is lost, nothing depends on how often a run was interrupted."""

from __future__ import annotations

import json
import os
import signal
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limn.errors import InputError, TrainingError
from limn.models.generation import stylegan2
from limn.models.records import Adam, Losses, Phase, Preset
from limn.tasks.train import train
from limn.training import average, checkpoint, loop
from limn.training.datasets import open_dataset, order

TINY = stylegan2.Config(size=16, z_dim=16, w_dim=16, mapping_layers=2, channels=(16, 16, 8))
SETTINGS = {"augment": "bgc", "initial": 0.5, "ramp_kimg": 0.5, "gamma": 0.5}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    presets = {"tiny": Preset(TINY, "images", 8, 10, SETTINGS, ema_kimg=0.05)}
    monkeypatch.setattr(stylegan2, "PRESETS", stylegan2.PRESETS | presets)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pictures of coloured discs."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        yy, xx = np.mgrid[:24, :24]
        disc = ((yy - rng.integers(8, 16)) ** 2 + (xx - rng.integers(8, 16)) ** 2 < 36)[..., None]
        Image.fromarray(np.where(disc, rng.integers(0, 255, 3), rng.integers(0, 255, 3)).astype(np.uint8)).save(
            pictures / f"{index:03}.png"
        )
    return pictures


def state(out: Path) -> dict[str, Tensor]:
    parts, _ = checkpoint.read(out / "state.safetensors")
    return {f"{part}/{name}": value for part, group in parts.items() for name, value in group.items()}


def test_interrupted_and_resumed_equals_uninterrupted(tiny: None, folder: Path, tmp_path: Path) -> None:
    for steps in (3, 6):
        train("stylegan2", folder, out=tmp_path / "twice", preset="tiny", steps=steps, precision="float32", device="cpu")
    train("stylegan2", folder, out=tmp_path / "once", preset="tiny", steps=6, precision="float32", device="cpu")
    twice, once = state(tmp_path / "twice"), state(tmp_path / "once")
    assert twice.keys() == once.keys()
    different = [name for name in once if not torch.equal(once[name], twice[name])]
    assert not different, f"{len(different)} of {len(once)} tensors differ after a resume, first {different[:3]}"
    assert 0 < float(once["networks/augment.p"]) != 0.5, "augmentation adapted during the run, so that the test covers it"


def test_the_model_file_of_a_run_is_a_whole_generator(tiny: None, folder: Path, tmp_path: Path) -> None:
    from limn.weights import load

    train("stylegan2", folder, out=tmp_path / "run", preset="tiny", steps=2, device="cpu")
    generator = load(tmp_path / "run" / "model.safetensors").model
    image = generator(torch.randn(1, 16, generator=torch.Generator().manual_seed(0)))
    assert image.shape == (1, 3, 16, 16)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["config"]["size"] == 16 and facts["pictures"] > 30


def test_training_at_a_higher_resolution_starts_from_the_lower(tiny: None, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    train("stylegan2", folder, out=tmp_path / "low", preset="tiny", steps=2, device="cpu")
    larger = replace(TINY, size=32, channels=(16, 16, 8, 8))
    monkeypatch.setitem(stylegan2.PRESETS, "larger", Preset(larger, "images", 8, 10, SETTINGS, ema_kimg=0.05))
    low = state(tmp_path / "low")
    with torch.random.fork_rng():
        networks = stylegan2.objective(larger, **SETTINGS).networks
    from limn.training import adopt

    adopt.adopt(networks, adopt.read(tmp_path / "low", "stylegan2", stylegan2.NETWORKS, stylegan2.Config), ["generator"])
    generator: Any = networks["generator"]
    assert torch.equal(generator.synthesis.b16.conv1.weight, low["networks/generator.synthesis.b16.conv1.weight"])
    assert not generator.synthesis.b32.torgb.weight.any(), "a new layer begins silent"


def test_sigterm_ends_with_a_checkpoint(tiny: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.one_step

    def step_and_signal(run: loop.Run, data: Any) -> dict[str, float]:
        figures = real(run, data)
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.setattr(loop, "one_step", step_and_signal)
    done = train("stylegan2", folder, out=tmp_path / "run", preset="tiny", steps=50, device="cpu")
    assert done.steps == 2, "the run stopped after the step in which the signal came"
    assert checkpoint.read(tmp_path / "run" / "state.safetensors")[1]["step"] == 2


class Diverging:
    """An objective whose loss is not a number from the third step on."""

    averaged = ("line",)

    def __init__(self) -> None:
        self.networks = nn.ModuleDict({"line": nn.Linear(1, 1)})
        self.calls = 0

    def loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        self.calls += 1
        value = self.networks["line"](torch.ones(1, 1)).square().sum()
        return {"square": value * (float("nan") if self.calls > 2 else 1.0)}

    def phases(self) -> list[Phase]:
        return [Phase("line", self.networks["line"].parameters, self.loss, Adam(1e-2))]


class Nothing:
    def __len__(self) -> int:
        return 1

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        return {}


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    settings = loop.Settings(tmp_path, steps=9, batch=1, save_every=0.0)
    run = loop.start(settings, Diverging(), lambda path, networks, facts: None)
    with pytest.raises(TrainingError, match=r"step 2, line: the loss is not finite \(square = nan\)"):
        loop.train(run, Nothing(), lambda line: None)
    assert checkpoint.read(tmp_path / "state.safetensors")[1]["step"] == 2


def test_resuming_with_another_batch_is_refused(tiny: None, folder: Path, tmp_path: Path) -> None:
    train("stylegan2", folder, out=tmp_path / "run", preset="tiny", steps=1, device="cpu")
    with pytest.raises(TrainingError, match="batch was 8, is 4"):
        train("stylegan2", folder, out=tmp_path / "run", preset="tiny", steps=2, batch=4, device="cpu")


def test_the_average_forgets_half_after_its_half_life() -> None:
    past = average.decay(images_seen=10**9, batch=10, half_life=1000)
    assert past**100 == pytest.approx(0.5)
    live, held = nn.ModuleDict({"a": nn.Linear(2, 2)}), None
    held = average.shadow(live, ("a",))
    before = held["a"].weight.clone()
    with torch.no_grad():
        live["a"].weight.add_(1.0)
    average.update(held, live, 0.75)
    assert torch.allclose(held["a"].weight, before + 0.25)


def test_every_epoch_shows_every_picture_once() -> None:
    seen = np.concatenate([order.indices(step, 4, 12, seed=3) for step in range(6)])
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert list(seen[:12]) != list(seen[12:]), "the second epoch is shuffled anew"


def test_conditions_select_by_labels_and_a_broken_file_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    buffer = BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    with zipfile.ZipFile(archive, "w") as out:
        for index in range(30):
            out.writestr(f"images/{index}.png", buffer.getvalue())
        out.writestr("labels.csv", "file,era,chroma\n" + "".join(f"{i}.png,{'new' if i % 2 else 'old'},{i}\n" for i in range(30)))
    chosen = open_dataset("images", archive, TINY, True, where=["era=new", "chroma>10"])
    assert 0 < len(chosen) <= 10
    assert chosen.batch(0, 4, 0)["image"].shape == (4, 3, 16, 16)
    with pytest.raises(InputError, match="no column 'age'"):
        open_dataset("images", archive, TINY, True, where=["age>3"])
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("images/bad.png", buffer.getvalue()[:40])
        out.writestr("images/bad2.png", buffer.getvalue()[:40])
    with pytest.raises(InputError, match="bad"):
        open_dataset("images", archive, TINY, True)

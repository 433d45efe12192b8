"""Nothing is lost: killed, interrupted, full disks, removed folders, other settings; accumulated, scheduled and clipped steps too."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limn.errors import TrainingError
from limn.models.records import Adam, Losses, Phase
from limn.training import checkpoint, journal, loop, record

# A GAN in small: two players, lazy phases that share optimisers, noise, a running statistic and clipping.
SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training_lost import Game, Points, settings
from limn.training import loop
run = loop.start(settings(Path(sys.argv[2])), Game(), lambda path, networks, facts: None)
class Slow(Points):
    def batch(self, step, size, seed):
        time.sleep(0.02)
        return super().batch(step, size, seed)
loop.train(run, Slow(), lambda line: None)
"""


class Game:
    """A two-player objective with all that a state may hold."""

    averaged = ("g",)

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.networks = nn.ModuleDict({"g": nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), "d": nn.Linear(4, 1)})
        self.mean = torch.zeros(())

    def fake(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        out: Tensor = self.networks["g"](torch.randn(len(batch["x"]), 4, generator=rng))
        return out

    def play(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        return {"adversarial": -self.networks["d"](self.fake(batch, rng)).mean()}

    def judge(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        self.mean = self.mean.lerp(batch["x"].mean(), 0.1)
        return {"d": self.networks["d"](self.fake(batch, rng)).mean() - self.networks["d"](batch["x"] - self.mean).mean()}

    def decay(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        return {"size": sum((p.square().sum() for p in self.networks["d"].parameters()), torch.zeros(()))}

    def phases(self) -> list[Phase]:
        g, d = self.networks["g"].parameters, self.networks["d"].parameters
        return [
            Phase("d", d, self.judge, Adam(1e-2), clip=0.5),
            Phase("decay", d, self.decay, Adam(1e-2), every=3, shares="d"),
            Phase("g", g, self.play, Adam(1e-2, weight_decay=0.01)),
        ]

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean = state["mean"]


class Points:
    def __len__(self) -> int:
        return 100

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        return {"x": torch.randn(size, 4, generator=torch.Generator().manual_seed(1000 * seed + step))}


def settings(out: Path, **changes: Any) -> loop.Settings:
    made = loop.Settings(out, 40, 8, accumulate=2, ema_kimg=0.05, decay="cosine", warmup=4, save_steps=4, report_every=0.0)
    return replace(made, **changes)


def trained(out: Path, **changes: Any) -> loop.Run:
    out.mkdir(exist_ok=True)
    run = loop.start(settings(out, **changes), Game(), lambda path, networks, facts: path.write_text(str(facts["step"])))  # type: ignore[func-returns-value]
    loop.train(run, Points(), lambda line: None)
    return run


def state(out: Path) -> dict[str, Tensor]:
    parts, _ = checkpoint.read(out / "state.safetensors")
    return {f"{part}/{name}": value for part, group in parts.items() for name, value in group.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} tensors differ, first {different[:3]}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_ends_after_its_step_and_goes_on_bit_for_bit(tmp_path: Path, number: signal.Signals) -> None:
    class Interrupting(Points):
        def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
            if step == 6:
                os.kill(os.getpid(), number)
            return super().batch(step, size, seed)

    out = tmp_path / "interrupted"
    out.mkdir()
    run = loop.start(settings(out), Game(), lambda *_: None)
    assert loop.train(run, Interrupting(), lambda line: None) is False
    assert checkpoint.read(out / "state.safetensors")[1]["step"] == 7
    trained(out)
    trained(tmp_path / "whole")
    equal(state(out), state(tmp_path / "whole"))


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["state", "model"])
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    trained(tmp_path, steps=8)
    before = (tmp_path / "state.safetensors").read_bytes()
    run = loop.start(settings(tmp_path), Game(), full if where == "model" else lambda *_: None)
    if where == "state":
        monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TrainingError, match=r"could not be written \(.*(disk is full|No space left).*\)") as error:
        loop.train(run, Points(), lambda line: None)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    if where == "state":
        assert (tmp_path / "state.safetensors").read_bytes() == before, "the last good checkpoint is as it was"
    assert checkpoint.read(tmp_path / "state.safetensors")[1]["step"] >= 8
    assert not list(tmp_path.glob(".*part*")), "nothing half-written lies about"


def test_a_removed_folder_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    run = loop.start(settings(out), Game(), lambda *_: None)

    class Removing(Points):
        def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
            if step == 2:
                shutil.rmtree(out)
            return super().batch(step, size, seed)

    with pytest.raises(TrainingError) as error:
        loop.train(run, Removing(), lambda line: None)
    assert str(out) in str(error.value) and "\n" not in str(error.value)


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path: Path) -> None:
    run = trained(tmp_path, steps=4)
    with torch.no_grad():
        run.networks["d"].weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(TrainingError, match=r"weights are not finite \(first d.weight\)"):
        loop.save(run)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state(tmp_path).values())


def test_a_truncated_state_is_one_line_and_half_written_files_are_swept(tmp_path: Path) -> None:
    trained(tmp_path, steps=4)
    (tmp_path / "state.safetensors").write_bytes((tmp_path / "state.safetensors").read_bytes()[:200])
    with pytest.raises(TrainingError, match="cannot be read"):
        loop.start(settings(tmp_path), Game(), lambda *_: None)
    half = tmp_path / ".state.12345678.part.safetensors"
    half.write_bytes(b"half")
    checkpoint.sweep(tmp_path)
    assert not half.exists() and (tmp_path / "state.safetensors").exists()


def test_accumulated_parts_make_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    """Where nothing is drawn and nothing depends on the whole batch, cutting it changes sums by rounding alone."""
    runs = {}
    for accumulate in (1, 4):
        out = tmp_path / str(accumulate)
        out.mkdir()
        run = loop.start(settings(out, accumulate=accumulate), Game(), lambda *_: None)
        run.phases = [phase for phase in run.phases if phase.name == "decay"]
        loop.train(run, Points(), lambda line: None)
        runs[accumulate] = run.networks["d"].weight
    assert torch.allclose(runs[1], runs[4], atol=1e-6)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="cannot be cut into 3 equal parts"):
        loop.start(settings(tmp_path, accumulate=3), Game(), lambda *_: None)


def test_a_run_is_not_continued_as_another(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"system": "s", "seed": 0, "batch": 8, "objective": {"gamma": 1.0, "freeze": 0}, "where": []}
    trained(tmp_path, steps=1)
    record.prepare(tmp_path, facts, {}, 0, 1, "cpu")
    before = record.previous(tmp_path)
    assert before is not None and len(before["starts"]) == 1
    record.refuse_changes(tmp_path, before, facts | {"steps": 99})
    with pytest.raises(TrainingError, match=r"objective gamma was 1.0, is 2.0; seed was 0, is 1"):
        changed = facts | {"seed": 1, "objective": {"gamma": 2.0, "freeze": 0}}
        record.refuse_changes(tmp_path, before, {name: changed[name] for name in ("system", "seed", "objective")})
    assert record.previous(tmp_path / "elsewhere") is None


def test_the_data_hash_follows_contents(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    first = record.data_hash(tmp_path)
    assert first == record.data_hash(tmp_path) and first.startswith("sha256:")
    (tmp_path / "a.png").write_bytes(b"two")
    assert record.data_hash(tmp_path) != first


def test_the_log_holds_every_line_and_sheets_become_a_film(tmp_path: Path) -> None:
    trained(tmp_path, steps=5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert {"images", "images_per_second", "eta", "memory", "rate/d", "rate/g", "g/adversarial", "d/d"} <= lines[0].keys()
    assert lines[0]["rate/d"] < lines[3]["rate/d"], "the rate rises in the warm-up"
    for step in (1, 2):
        journal.sheet(tmp_path, step, torch.rand(4, 3, 32, 32))
    made = journal.film(tmp_path)
    assert made is not None and made.stat().st_size > 0


@pytest.mark.timeout(290)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Accumulated, clipped, scheduled, lazily regularised and averaged: killed in another process, it ends as if it had not been."""
    out, script = tmp_path / "killed", tmp_path / "script.py"
    out.mkdir()
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script), str(Path(__file__).parent), str(out)], env=environment) as process:
        until = time.monotonic() + 240
        while not (out / "state.safetensors").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    at = checkpoint.read(out / "state.safetensors")[1]["step"]
    assert 0 < at < 40, f"it was killed on its way, at step {at}"
    trained(out)
    trained(tmp_path / "whole")
    equal(state(out), state(tmp_path / "whole"))

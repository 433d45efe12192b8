"""The one training loop: every system hands it phases, and it hands back checkpoints, averages, figures and samples.

Learn from it: the state of a run is its networks, their averages, the optimisers, the step, and what the objective keeps
(ADA's signs, say). Randomness and data order are functions of (seed, step, phase), so nothing else needs saving.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limn.errors import TrainingError
from limn.media import atomic
from limn.models.records import Adam, Objective, Phase, seeded
from limn.training import average, checkpoint
from limn.training.datasets import Dataset


@dataclass(frozen=True)
class Settings:
    """How a run proceeds; what it learns is the objective's business."""

    out: Path
    steps: int
    batch: int
    seed: int = 0
    ema_kimg: float = 0.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32  # of the arithmetic under autocast
    save_every: float = 300.0  # seconds between checkpoints
    sample_every: int = 200  # steps between sample sheets
    report_every: float = 20.0  # seconds between lines of the log
    decay: str = "none"  # of the learning rate: "none", "cosine" to zero
    warmup: int = 0  # steps in which the learning rate rises to its value


@dataclass
class Run:
    """A run in progress: the whole of its state."""

    settings: Settings
    objective: Objective
    phases: list[Phase]
    optimisers: dict[str, torch.optim.Optimizer]
    averages: nn.ModuleDict
    save_model: Callable[[Path, nn.ModuleDict, dict[str, Any]], None]
    step: int = 0

    @property
    def networks(self) -> nn.ModuleDict:
        return self.objective.networks


def start(settings: Settings, objective: Objective, save_model: Callable[[Path, nn.ModuleDict, dict[str, Any]], None]) -> Run:
    """Build the run, and continue the one in `settings.out` where there is one."""
    networks = objective.networks.to(settings.device).train()
    networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    phases = objective.phases()
    optimisers = {p.name: optimiser(p.optimiser, p.parameters()) for p in phases if not p.shares}
    run = Run(settings, objective, phases, optimisers, average.shadow(networks, objective.averaged), save_model)
    state = settings.out / "state.safetensors"
    if state.exists():
        resume(run, state)
    return run


def optimiser(adam: Adam, parameters: Any) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if adam.weight_decay else torch.optim.Adam
    return kind(list(parameters), lr=adam.lr, betas=adam.betas, eps=adam.eps, weight_decay=adam.weight_decay, foreach=True)


def resume(run: Run, path: Path) -> None:
    """Load networks, averages, optimisers, step and the objective's own state."""
    parts, facts = checkpoint.read(path)
    if facts["seed"] != run.settings.seed or facts["batch"] != run.settings.batch:
        raise TrainingError(f"{path}: was trained with seed {facts['seed']} and batch {facts['batch']}: resume with the same")
    try:
        run.networks.load_state_dict(parts["networks"])
        run.averages.load_state_dict(parts.get("averages", {}))
    except RuntimeError as error:
        raise TrainingError(f"{path}: holds another configuration than this preset: {str(error).splitlines()[-1].strip()}") from error
    for name, of in run.optimisers.items():
        checkpoint.load_optimiser(of, parts.get(f"optimiser.{name}", {}))
    if hasattr(run.objective, "load_state_dict") and "objective" in parts:
        run.objective.load_state_dict(parts["objective"])
    run.step = facts["step"]


def save(run: Run) -> None:
    """Write the state, then the whole model (the averages) that verbs load."""
    parts: dict[str, Any] = {"networks": run.networks.state_dict(), "averages": run.averages.state_dict()}
    parts |= {f"optimiser.{name}": checkpoint.optimiser_tensors(of) for name, of in run.optimisers.items()}
    if hasattr(run.objective, "state_dict"):
        parts["objective"] = run.objective.state_dict()
    facts = {"step": run.step, "seed": run.settings.seed, "batch": run.settings.batch}
    checkpoint.write(run.settings.out / "state.safetensors", parts, facts)
    run.save_model(run.settings.out / "model.safetensors", run.averages, {"images": run.step * run.settings.batch, **facts})


def train(run: Run, data: Dataset, report: Callable[[dict[str, float]], None]) -> None:
    """Train until `settings.steps`; checkpoints by time, on SIGTERM and SIGINT, and at the end."""
    settings, since, lines = run.settings, time.monotonic(), Lines(run.settings, run.step)
    with interrupted() as stop:
        while run.step < settings.steps and not stop:
            figures = one_step(run, data)
            if time.monotonic() - since > settings.save_every:
                save(run)
                since = time.monotonic()
            if run.step % settings.sample_every == 0:
                samples(run)
            if line := lines.add(run.step, figures):
                report(line)
    save(run)
    samples(run)


def one_step(run: Run, data: Dataset) -> dict[str, float]:
    """Run every phase that is due, update the averages, and return the figures of the step."""
    settings = run.settings
    batch = {
        name: value.to(settings.device, memory_format=torch.channels_last) if value.ndim == 4 else value.to(settings.device)
        for name, value in data.batch(run.step, settings.batch, settings.seed).items()
    }
    figures: dict[str, float] = {}
    for index, phase in enumerate(run.phases):
        if run.step % phase.every == 0:
            figures |= one_phase(run, phase, index, batch)
    run.step += 1
    seen = run.step * settings.batch
    average.update(run.averages, run.networks, average.decay(seen, settings.batch, settings.ema_kimg * 1000) if settings.ema_kimg else 0.0)
    if hasattr(run.objective, "after_step"):
        figures |= run.objective.after_step(run.step, settings.batch)
    return figures


def one_phase(run: Run, phase: Phase, index: int, batch: dict[str, Tensor]) -> dict[str, float]:
    """One optimiser step: only the phase's parameters learn, and all randomness comes from one seeded generator."""
    settings, of = run.settings, run.optimisers[phase.shares or phase.name]
    parameters = list(phase.parameters())
    run.networks.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    rng = seeded(hash((settings.seed, run.step, index)) & 0x7FFFFFFFFFFFFFFF)
    with torch.autocast(settings.device.type, settings.dtype, enabled=settings.dtype != torch.float32):
        losses = phase.loss(batch, rng)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
    if not torch.isfinite(total):
        bad = ", ".join(f"{name} = {float(loss.detach())}" for name, loss in losses.items())
        raise TrainingError(f"step {run.step}, {phase.name}: the loss is not finite ({bad}); the last checkpoint is good: lower the rate")
    of.zero_grad(set_to_none=True)
    (total * phase.every).backward()
    if phase.clip:
        nn.utils.clip_grad_norm_(parameters, phase.clip)
    for group in of.param_groups:
        group["lr"] = phase.optimiser.lr * schedule(settings, run.step)
    of.step()
    return {f"{phase.name}/{name}": float(loss.detach()) for name, loss in losses.items()}


def schedule(settings: Settings, step: int) -> float:
    """Factor of the learning rate at a step."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.decay == "cosine":
        return rise * float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / settings.steps))))
    return rise


def samples(run: Run) -> None:
    """Write a sheet of samples where the objective makes them."""
    if not hasattr(run.objective, "samples"):
        return
    from limn.media import grid, to_image

    run.averages.eval()
    sheet = grid([to_image(image) for image in run.objective.samples(run.averages).float().cpu()])
    folder = run.settings.out / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / f"{run.step:07d}.png") as beside:
        sheet.save(beside, "PNG")


class Lines:
    """Means of the figures between two lines of the log, which also goes to log.jsonl."""

    def __init__(self, settings: Settings, step: int) -> None:
        self.settings, self.sums, self.counts = settings, dict[str, float](), dict[str, int]()
        self.step, self.since, self.begun = step, time.monotonic(), time.monotonic()

    def add(self, step: int, figures: dict[str, float]) -> dict[str, float] | None:
        """Take the figures of a step; return the line when one is due."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        elapsed = time.monotonic() - self.since
        if elapsed < self.settings.report_every and step < self.settings.steps:
            return None
        rate = (step - self.step) * self.settings.batch / max(elapsed, 1e-9)
        line = {"step": step, "images": step * self.settings.batch, "images_per_second": rate, "seconds": time.monotonic() - self.begun}
        line |= {name: self.sums[name] / self.counts[name] for name in self.sums}
        with (self.settings.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        self.sums, self.counts, self.step, self.since = {}, {}, step, time.monotonic()
        return line


@contextmanager
def interrupted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the step in progress ends and a checkpoint is written."""
    got: list[int] = []
    before = {number: signal.signal(number, lambda n, _: got.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

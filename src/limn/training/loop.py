"""The one training loop: every system hands it phases, and it hands back checkpoints, averages, figures and samples.

Learn from it: the state of a run is its networks, their averages, the optimisers, the step, and what the objective keeps
(ADA's signs, say). Randomness and data order are functions of (seed, step, phase, part of the batch), so nothing else needs saving.
A batch is cut into equal parts, one after the other (`accumulate`) or side by side (processes), with the same result.
Beside `networks`, `averaged` and `phases`, an objective may have `after_step(step, batch)` -> figures, `state_dict`,
`load_state_dict`, `statistics()` -> running means to be brought together, and `samples(networks)` -> images.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from limn.errors import TrainingError
from limn.models.records import Adam, Objective, Phase, seeded
from limn.training import average, checkpoint, journal
from limn.training.datasets import Dataset
from limn.training.diagnosis import Watch
from limn.training.processes import Processes, in_turn, statistics

Report = Callable[[dict[str, Any]], None]  # receives every line of the log: figures, or a "warning"


@dataclass(frozen=True)
class Settings:
    """How a run proceeds; what it learns is the objective's business."""

    out: Path
    steps: int
    batch: int  # of all processes together
    seed: int = 0
    accumulate: int = 1  # parts of a process's share of the batch that pass one after the other
    ema_kimg: float = 0.0
    ema_ramp: float = 0.05  # share of the images seen that the average may remember at most; 0: no ramp
    processes: Processes = field(default_factory=Processes)
    dtype: torch.dtype = torch.float32  # of the arithmetic under autocast
    save_every: float = 300.0  # seconds between checkpoints
    save_steps: int = 0  # steps between checkpoints; 0: by time alone
    sample_every: int = 200  # steps between sample sheets
    report_every: float = 20.0  # seconds between lines of the log
    decay: str = "none"  # of the learning rate: "none", "cosine" to zero, "half" and "end": straight to zero over the last half or fifth
    warmup: int = 0  # steps in which the learning rate rises to its value
    generates: bool = False  # whether samples are drawn freely, so that collapse and memorising can be seen in them

    @property
    def parts(self) -> int:
        return self.accumulate * self.processes.count


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
    if settings.batch % settings.parts:
        raise TrainingError(
            f"a batch of {settings.batch} cannot be cut into {settings.parts} equal parts "
            f"({settings.processes.count} processes × accumulate {settings.accumulate}): choose a multiple"
        )
    networks = objective.networks.to(settings.processes.device).train()
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
    """Write the state, then the whole model (the averages) that verbs load; only finite weights, and only from the first process."""
    if not run.settings.processes.first:
        return
    checkpoint.refuse_broken(run.networks, run.step)
    parts: dict[str, Any] = {"networks": run.networks.state_dict(), "averages": run.averages.state_dict()}
    parts |= {f"optimiser.{name}": checkpoint.optimiser_tensors(of) for name, of in run.optimisers.items()}
    if hasattr(run.objective, "state_dict"):
        parts["objective"] = run.objective.state_dict()
    facts = {"step": run.step, "seed": run.settings.seed, "batch": run.settings.batch}
    checkpoint.write(run.settings.out / "state.safetensors", parts, facts)
    model = run.settings.out / "model.safetensors"
    with checkpoint.writing(model):
        run.save_model(model, run.averages, {"images": run.step * run.settings.batch, **facts})


def train(run: Run, data: Dataset, report: Report) -> bool:
    """Train until `settings.steps`, and return whether that was reached: SIGTERM and SIGINT end the run after their step.

    Checkpoints by time, by steps and at every end; `report` receives what goes to log.jsonl, in the first process alone.
    """
    settings, processes = run.settings, run.settings.processes
    book = journal.Journal(settings.out, settings.batch, settings.steps, settings.report_every, run.step, processes)
    watch, stopped, saved = Watch(settings.generates), False, time.monotonic()
    with interrupted() as signals:
        while run.step < settings.steps and not stopped:
            batch = data.batch(run.step, settings.batch, settings.seed)
            figures = one_step(run, batch)
            overdue = time.monotonic() - saved > settings.save_every
            stopped, due = processes.any(bool(signals), overdue or bool(settings.save_steps and run.step % settings.save_steps == 0))
            if due and not stopped and run.step < settings.steps:
                save(run)
                saved = time.monotonic()
            if not processes.first:
                continue
            watch.see(batch)
            if (line := book.add(run.step, figures)) is not None:
                report(line)
                warn(run, book, watch.figures(line), report)
            if run.step % settings.sample_every == 0:
                warn(run, book, watch.samples(samples(run)), report)
    save(run)
    if processes.first:
        samples(run)
        book.close()
        if not stopped:
            journal.film(settings.out)
    processes.wait()
    return not stopped


def warn(run: Run, book: journal.Journal, warnings: list[str], report: Report) -> None:
    """Write and report what is going wrong."""
    for warning in warnings:
        line = {"step": run.step, "warning": warning}
        book.write(line)
        report(line)


def one_step(run: Run, batch: dict[str, Tensor]) -> dict[str, float]:
    """Run every phase that is due, bring the processes together, update the averages, and return the figures of the step."""
    settings = run.settings
    parts = list(own_parts(batch, settings))
    figures: dict[str, float] = {}
    for index, phase in enumerate(run.phases):
        if run.step >= phase.begin and run.step % phase.every == 0:
            figures |= one_phase(run, phase, index, parts)
    settings.processes.average(running(run))
    run.step += 1
    seen, half_life = run.step * settings.batch, settings.ema_kimg * 1000
    average.update(run.averages, run.networks, average.decay(seen, settings.batch, half_life, settings.ema_ramp) if half_life else 0.0)
    if hasattr(run.objective, "after_step"):
        figures |= run.objective.after_step(run.step, settings.batch)
    return figures


def running(run: Run) -> list[Tensor]:
    """The running statistics of the run."""
    return statistics(run.networks, run.objective.statistics() if hasattr(run.objective, "statistics") else ())


def own_parts(batch: dict[str, Tensor], settings: Settings) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the parts of the batch that this process computes, with their numbers among all parts."""
    size, place = settings.batch // settings.parts, settings.processes.device
    for part in range(settings.processes.rank * settings.accumulate, (settings.processes.rank + 1) * settings.accumulate):
        cut = {name: value[part * size : (part + 1) * size] if settings.parts > 1 else value for name, value in batch.items()}
        yield part, {n: v.to(place, memory_format=torch.channels_last) if v.ndim == 4 else v.to(place) for n, v in cut.items()}


def one_phase(run: Run, phase: Phase, index: int, parts: list[tuple[int, dict[str, Tensor]]]) -> dict[str, float]:
    """One optimiser step: only the phase's parameters learn, and all randomness of a part comes from one seeded generator."""
    settings, of = run.settings, run.optimisers[phase.shares or phase.name]
    parameters = list(phase.parameters())
    run.networks.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    of.zero_grad(set_to_none=True)
    figures: dict[str, float] = {}
    for part, batch in in_turn(parts, lambda: running(run)):
        key = (settings.seed, run.step, index, part) if settings.parts > 1 else (settings.seed, run.step, index)
        with torch.autocast(settings.processes.device.type, settings.dtype, enabled=settings.dtype != torch.float32):
            losses = phase.loss(batch, seeded(hash(key) & 0x7FFFFFFFFFFFFFFF))
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        (total * (phase.every / settings.accumulate)).backward()
        for name, loss in losses.items():
            figures[name] = figures.get(name, 0.0) + float(loss.detach()) / settings.accumulate
    figures = settings.processes.average_gradients(parameters, figures)
    if not torch.isfinite(torch.tensor(sum(figures.values()))):
        bad = ", ".join(f"{name} = {value}" for name, value in figures.items())
        raise TrainingError(f"step {run.step}, {phase.name}: the loss is not finite ({bad}); the last checkpoint is good: lower the rate")
    if phase.clip:
        nn.utils.clip_grad_norm_(parameters, phase.clip)
    for group in of.param_groups:
        group["lr"] = phase.optimiser.lr * schedule(settings, run.step)
    of.step()
    rate = {} if phase.shares else {f"rate/{phase.name}": float(of.param_groups[0]["lr"])}
    return rate | {f"{phase.name}/{name}": value for name, value in figures.items()}


def schedule(settings: Settings, step: int) -> float:
    """Factor of the learning rate at a step."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    share = {"half": 0.5, "end": 0.2}.get(settings.decay, 0.0)
    if share:
        return rise * min(1.0, (1 - step / settings.steps) / share)
    if settings.decay == "cosine":
        return rise * float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / settings.steps))))
    return rise


def samples(run: Run) -> Tensor | None:
    """Write a sheet of samples, and return them, where the objective makes them."""
    if not hasattr(run.objective, "samples"):
        return None
    run.averages.eval()
    images: Tensor = run.objective.samples(run.averages).float().cpu()
    with checkpoint.writing(run.settings.out / "samples"):
        journal.sheet(run.settings.out, run.step, images)
    return images


@contextmanager
def interrupted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the step in progress ends and a checkpoint is written; a second one acts at once."""
    got: list[int] = []
    before: dict[int, Any] = {}

    def take(number: int, _: FrameType | None) -> None:
        got.append(number)
        signal.signal(number, before[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        before[number] = signal.signal(number, take)
    try:
        yield got
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)

"""The one training loop: every system hands it phases, and it hands back checkpoints, averages, figures and samples.

Learn from it: the state of a run is its networks, their averages, the optimisers, the step, and what the objective keeps
(ADA's signs, say). Randomness and data order are functions of (seed, step, phase, part of the batch), so nothing else needs saving.
A batch is cut into equal parts, one after the other (`accumulate`) or side by side (processes), with the same result.
Beside `networks`, `averaged` and `phases`, an objective may have `after_step(step, batch)` -> figures, `state_dict`,
`load_state_dict`, `statistics()` -> running means to be brought together, and `samples(networks)` -> images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from limn.errors import TrainingError
from limn.models.records import Adam, Objective, Phase, seeded
from limn.training import average, checkpoint, journal
from limn.training.datasets import Dataset
from limn.training.diagnosis import Watch
from limn.training.processes import Processes, Replicated, in_turn, interrupted, statistics

if TYPE_CHECKING:
    from limn.training.shards import Sharded

Save = Callable[[Path, Mapping[str, Mapping[str, Tensor]], dict[str, Any]], None]  # writes whole networks, by name, and facts
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
    sharded: bool = False  # whether parameters, averages and optimisers are spread over the processes (FSDP2)
    dtype: torch.dtype = torch.float32  # of the arithmetic under autocast
    save_every: float = 300.0  # seconds between checkpoints
    save_steps: int = 0  # steps between checkpoints; 0: by time alone
    sample_every: int = 200  # steps between sample sheets
    report_every: float = 20.0  # seconds between lines of the log
    decay: str = "none"  # of the rate: "cosine" to zero; "linear", "half", "end": straight to zero over all, the last half or fifth
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
    save_model: Save
    layout: Replicated | Sharded
    step: int = 0

    @property
    def networks(self) -> nn.ModuleDict:
        return self.objective.networks


def start(settings: Settings, objective: Objective, save_model: Save) -> Run:
    """Build the run, and continue the one in `settings.out` where there is one."""
    if settings.batch % settings.parts:
        raise TrainingError(
            f"a batch of {settings.batch} cannot be cut into {settings.parts} equal parts "
            f"({settings.processes.count} processes × accumulate {settings.accumulate}): choose a multiple"
        )
    networks = objective.networks.to(settings.processes.device).train()
    for parameter in networks.parameters():
        if parameter.ndim == 4:  # convolutions of volumes have no such layout
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    phases, averages = objective.phases(), average.shadow(networks, objective.averaged)
    layout = laid_out(settings, networks, averages)
    with layout.gathered(networks):
        optimisers = {p.name: optimiser(p.optimiser, layout.own(list(p.parameters()))) for p in phases if not p.shares}
    run = Run(settings, objective, phases, optimisers, averages, save_model, layout)
    if state := checkpoint.latest(settings.out):
        resume(run, state)
    return run


def laid_out(settings: Settings, networks: nn.ModuleDict, averages: nn.ModuleDict) -> Replicated | Sharded:
    """Return how the run lies in its processes, after spreading it over them if it shall be."""
    if not settings.sharded or settings.processes.count == 1:
        return Replicated(settings.processes)
    from limn.training.shards import Sharded

    return Sharded(networks, averages, settings.processes)


def optimiser(adam: Adam, parameters: Any) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if adam.weight_decay else torch.optim.Adam
    return kind(list(parameters), lr=adam.lr, betas=adam.betas, eps=adam.eps, weight_decay=adam.weight_decay, foreach=True)


def resume(run: Run, path: Path) -> None:
    """Load networks, averages, optimisers, step and the objective's own state."""
    like = {f"networks/{name}": t for name, t in run.networks.state_dict().items()}
    like |= {f"averages/{name}": t for name, t in run.averages.state_dict().items()}
    for name, of in run.optimisers.items():
        like |= {f"optimiser.{name}/{key}": t for key, t in checkpoint.optimiser_templates(of, run.layout.template).items()}
    parts, facts = checkpoint.read(path, like)
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
    """Write the state, then the whole model (the averages) that verbs load; only finite weights. All processes call it together."""
    settings, out, first = run.settings, run.settings.out, run.settings.processes.first
    checkpoint.refuse_broken(run.networks, run.step, settings.processes)
    facts = {"step": run.step, "seed": settings.seed, "batch": settings.batch}
    parts: dict[str, Any] = {"networks": run.networks.state_dict(), "averages": run.averages.state_dict()}
    parts |= {f"optimiser.{name}": checkpoint.optimiser_tensors(of, run.layout.outer) for name, of in run.optimisers.items()}
    if hasattr(run.objective, "state_dict") and first:
        parts["objective"] = run.objective.state_dict()
    if not isinstance(run.layout, Replicated):
        checkpoint.write_shares(out, parts, facts, settings.processes)
    elif first:
        checkpoint.write(out / checkpoint.FILE, parts, facts)
    whole = run.layout.whole(run.averages)
    if first:
        with checkpoint.writing(out / "model.safetensors"):
            run.save_model(out / "model.safetensors", whole, {"images": run.step * settings.batch, **facts})


def train(run: Run, data: Dataset, report: Report) -> bool:
    """Train until `settings.steps`, and return whether that was reached: SIGTERM and SIGINT end the run after their step.

    Checkpoints by time, by steps and at every end; `report` receives what goes to log.jsonl, in the first process alone.
    """
    settings, processes = run.settings, run.settings.processes
    book = journal.Journal(settings.out, settings.batch, settings.steps, settings.report_every, run.step, processes)
    watch, stopped, saved = Watch(settings.generates), False, time.monotonic()
    with interrupted() as signals:
        while run.step < settings.steps and not stopped:
            batch = read(data, run.step, settings)
            figures = one_step(run, batch)
            overdue = time.monotonic() - saved > settings.save_every
            stopped, due = processes.any(bool(signals), overdue or bool(settings.save_steps and run.step % settings.save_steps == 0))
            if due and not stopped and run.step < settings.steps:
                save(run)
                saved = time.monotonic()
            if processes.first:
                watch.see(batch)
            if processes.first and (line := book.add(run.step, figures)) is not None:
                report(line)
                warn(run, book, watch.figures(line), report)
            if run.step % settings.sample_every == 0:
                warn(run, book, watch.samples(samples(run)), report)
    save(run)
    samples(run)
    if processes.first:
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
    with run.layout.gathered(run.networks):
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


def read(data: Dataset, step: int, settings: Settings) -> dict[str, Tensor]:
    """Return what this process computes of the batch of a step; a dataset whose `batch` takes `rows` decodes no more than that."""
    own = settings.batch // settings.processes.count
    rows = slice(settings.processes.rank * own, (settings.processes.rank + 1) * own)
    if settings.processes.count == 1:
        return data.batch(step, settings.batch, settings.seed)
    if "rows" in signature(data.batch).parameters:
        return data.batch(step, settings.batch, settings.seed, rows=rows)  # type: ignore[call-arg]
    return {name: value[rows] for name, value in data.batch(step, settings.batch, settings.seed).items()}


def own_parts(batch: dict[str, Tensor], settings: Settings) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the parts of this process's share of a batch, with their numbers among all parts."""
    size, place, first = settings.batch // settings.parts, settings.processes.device, settings.processes.rank * settings.accumulate
    for part in range(settings.accumulate):
        cut = {name: value[part * size : (part + 1) * size] if settings.accumulate > 1 else value for name, value in batch.items()}
        yield first + part, {n: v.to(place, memory_format=torch.channels_last) if v.ndim == 4 else v.to(place) for n, v in cut.items()}


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
    figures = run.layout.average_gradients(parameters, figures)
    if not torch.isfinite(torch.tensor(sum(figures.values()))):
        bad = ", ".join(f"{name} = {value}" for name, value in figures.items())
        raise TrainingError(f"step {run.step}, {phase.name}: the loss is not finite ({bad}); the last checkpoint is good: lower the rate")
    if phase.clip:
        run.layout.clip(parameters, phase.clip)
    for group in of.param_groups:
        group["lr"] = phase.optimiser.lr * schedule(settings, run.step)
    of.step()
    run.layout.settle(parameters)
    rate = {} if phase.shares else {f"rate/{phase.name}": float(of.param_groups[0]["lr"])}
    return rate | {f"{phase.name}/{name}": value for name, value in figures.items()}


def schedule(settings: Settings, step: int) -> float:
    """Factor of the learning rate at a step."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    share = {"linear": 1.0, "half": 0.5, "end": 0.2}.get(settings.decay, 0.0)
    if share:
        return rise * min(1.0, (1 - step / settings.steps) / share)
    if settings.decay == "cosine":
        return rise * float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / settings.steps))))
    return rise


def samples(run: Run) -> Tensor | None:
    """Write a sheet of samples, and return them, in the first process and where the objective makes them."""
    if not hasattr(run.objective, "samples"):
        return None
    with run.layout.gathered(run.averages.eval()):
        if not run.settings.processes.first:
            return None
        images: Tensor = run.objective.samples(run.averages).float().cpu()
    with checkpoint.writing(run.settings.out / "samples"):
        journal.sheet(run.settings.out, run.step, images)
    return images

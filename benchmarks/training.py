"""How fast the StyleGAN2 training step of the `auto` recipe runs, against the published order of operations.

    python benchmarks/training.py [--sizes 64 128] [--batch 4] [--repeats 3] [--threads 1] [--augment 0.2]

Each way runs in a process of its own, and the processes take turns, phase by phase, so that all see the same neighbours;
`published_stylegan2.py` says what the published trainer's reference path for a CPU does. The objective, the phases, the random numbers
and the weights are the same, and so are the discriminator's logits of generated images, up to rounding: that is printed first.
A step is one discriminator, one generator, a quarter of a path-length and a sixteenth of an R1 phase, and the average of the weights,
at a probability of augmentation of `--augment`. With one thread the clock is the processor's: neighbours do not count as time, though
they slow memory down for all. Small batches are measured; larger ones pay less for each image, as weights are prepared once a step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from published_stylegan2 import published
from synthesis import peak, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from limn.device import keep_memory
from limn.models.generation import stylegan2
from limn.models.records import seeded
from limn.training import average, loop

WAYS = {"published, float32": torch.float32, "limn, float32": torch.float32, "limn, bfloat16": torch.bfloat16}


def run_of(size: int, batch: int, dtype: torch.dtype, augment: float = 0.0) -> loop.Run:
    """A run of the recipe that is never saved."""
    recipe = stylegan2.auto(size, batch)
    torch.manual_seed(0)
    objective = stylegan2.objective(recipe.config, **{**recipe.objective, "initial": augment})
    settings = loop.Settings(Path("/nonexistent"), recipe.steps, batch, ema_kimg=recipe.ema_kimg, dtype=dtype)
    return loop.start(settings, objective, lambda *_: None)


def pictures(size: int, batch: int) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=seeded(2)) * 2 - 1


def work(name: str, size: int, asked: argparse.Namespace, line: Connection) -> None:
    """Answer requests: a phase's number -> its seconds, "average" -> the seconds of the weights' average, None -> leave."""
    torch.set_num_threads(asked.threads)
    ours = not name.startswith("published")
    if ours:
        keep_memory()
    with nullcontext() if ours else published():
        run = run_of(size, asked.batch, WAYS[name], asked.augment)
        layout = torch.channels_last if ours else torch.contiguous_format
        run.networks.to(memory_format=layout)  # type: ignore[call-overload]
        parts = [(0, {"image": pictures(size, asked.batch).contiguous(memory_format=layout)})]
        while (request := line.recv()) is not None:
            if request == "logits":
                line.send(logits(run, asked.batch))
            elif request == "operations":
                line.send(operations(run, parts))
            elif request == "average":
                line.send(timed(lambda: average.update(run.averages, run.networks, 0.99)))
            else:
                line.send(timed(lambda index=request: loop.one_phase(run, run.phases[index], index, parts)))  # type: ignore[misc]


def operations(run: loop.Run, parts: list[tuple[int, dict[str, Tensor]]]) -> float:
    """Floating-point operations of a step's two main phases, as PyTorch counts convolutions and products, forward and backward.

    Its counter cannot follow the second derivatives of R1 and path length, so that rates computed from this are a little low.
    """
    total = 0.0
    for index, phase in enumerate(run.phases):
        if phase.every == 1:
            with FlopCounterMode(display=False) as counter:
                loop.one_phase(run, phase, index, parts)
            total += counter.get_total_flops()
    return total


def logits(run: loop.Run, batch: int) -> Tensor:
    """The discriminator's view of the generator's images before the first step, gradients on as in training, in float32."""
    networks: Any = run.networks
    z = torch.randn(batch, 512, generator=seeded(1))
    w = networks["generator"].mapping(z)
    return networks["discriminator"](networks["generator"].synthesis(w, "const")).detach()


def measure(size: int, asked: argparse.Namespace) -> None:
    """Print a line for each way."""
    lines: dict[str, Connection] = {}
    spawn = multiprocessing.get_context("spawn")
    for name in WAYS:
        lines[name], theirs = spawn.Pipe()
        spawn.Process(target=work, args=(name, size, asked, theirs), daemon=True).start()

    def ask(name: str, request: Any) -> Any:
        lines[name].send(request)
        return lines[name].recv()

    truth, ours = (ask(name, "logits") for name in list(WAYS)[:2])
    print(f"{size}²: both ways differ by {float((ours - truth).abs().max() / truth.abs().max()):.1e}", flush=True)
    phases = run_of(size, asked.batch, torch.float32).phases
    share = {index: 1 / phase.every for index, phase in enumerate(phases)} | {"average": 1.0}
    times: dict[str, dict[Any, list[float]]] = {name: {part: [] for part in share} for name in WAYS}
    for turn in range(asked.repeats + 1):
        for part in share:
            for name in WAYS:
                seconds = ask(name, part)
                if turn:  # the first turn finds memory
                    times[name][part].append(seconds)
    flops = ask("limn, float32", "operations")
    ceilings = {dtype: peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    middle = {name: {part: statistics.median(each) for part, each in parts.items()} for name, parts in times.items()}
    total = {name: sum(seconds * share[part] for part, seconds in parts.items()) for name, parts in middle.items()}
    for name, parts in middle.items():
        rate = flops / total[name] / 1e9
        each = "  ".join(f"{part if part == 'average' else phases[part].name} {value:.2f}" for part, value in parts.items())
        print(
            f"{size:4}² {name:20} {asked.batch / total[name]:6.2f} images/s  {total['published, float32'] / total[name]:5.2f}×  "
            f"{rate:5.0f} GFLOP/s  {rate / ceilings[WAYS[name]]:4.0%} of peak   s: {each}",
            flush=True,
        )
    for line in lines.values():
        line.send(None)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    for name, default in (("batch", 4), ("repeats", 3), ("threads", 1)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--augment", type=float, default=0.2)
    asked = arguments.parse_args()
    torch.set_num_threads(asked.threads)
    for size in asked.sizes:
        measure(size, asked)


if __name__ == "__main__":
    main()

"""How fast the StyleGAN2 training step of the `auto` recipe runs, against the published order of operations.

    python benchmarks/training.py [--sizes 64 128] [--batch 4] [--repeats 3] [--threads 1]

Both ways run the same objective, phases and optimiser in one process; `published` computes as the published trainer's reference path
for a CPU does, in float32 and NCHW: demodulation from one weight tensor per sample, zeros inserted and filtered for every change of
resolution, bias, activation, gain and clamp as separate steps, memory returned to the system after each. Augmentation is off in both.
A step is one discriminator, one generator, a quarter of a path-length and a sixteenth of an R1 phase. The time of an image does not
depend on the batch, so a small one is measured. With one thread the clock is the processor's: neighbours do not count as time.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from synthesis import peak, published_filter, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from limn.blocks.equalized import EqualConv, EqualLinear
from limn.device import keep_memory
from limn.models.generation import stylegan2
from limn.models.generation.stylegan2 import Layer, ToRGB
from limn.models.records import seeded
from limn.training import loop


def act(x: Tensor, bias: Tensor | None, active: bool, gain: float, clamp: float | None) -> Tensor:
    """Bias, activation, gain and clamp, one after the other."""
    if bias is not None:
        x = x + bias.reshape([1, -1] + [1] * (x.ndim - 2))
    if active:
        x = F.leaky_relu(x, 0.2)
    gain = gain * math.sqrt(2) if active else gain
    x = x * gain if gain != 1 else x
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def modulate(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool) -> tuple[Tensor, Tensor | None]:
    """Scale the input by its style; the factor of demodulation comes from one weight tensor per sample."""
    factor = None
    if demodulate:
        factor = ((weight[None] * style[:, None, :, None, None]).square().sum((2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None]
    return x.contiguous() * style[:, :, None, None], factor


def layer(self: Layer, x: Tensor, style: Tensor, noise: Any, rng: torch.Generator | None, gain: float = 1.0) -> Tensor:
    x, factor = modulate(x, self.weight, style, True)
    if self.up:
        x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
        x = published_filter(x, self.taps, 1, (1, 1), 4.0)
    else:
        x = F.conv2d(x, self.weight, padding=1)
    assert factor is not None
    x = torch.addcmul(self.plane(len(x), noise, rng) * self.noise_strength, x, factor)
    return act(x, self.bias, True, gain, self.clamp)


def rgb(self: ToRGB, x: Tensor, style: Tensor) -> Tensor:
    x, _ = modulate(x, self.weight, style / math.sqrt(self.weight.shape[1]), False)
    return act(F.conv2d(x, self.weight), self.bias, False, 1.0, self.clamp)


def conv(self: EqualConv, x: Tensor, gain: float = 1.0) -> Tensor:
    weight, pad = self.weight * self.scale, self.weight.shape[-1] // 2
    x = x.contiguous()
    if self.down:
        around = (pad + 1, pad + 1) if pad else (1, 1)
        x = published_filter(x, self.taps, 1, around, 1.0)
        x = F.conv2d(x, weight, stride=2) if pad else F.conv2d(x[:, :, ::2, ::2], weight)
    else:
        x = F.conv2d(x, weight, padding=pad)
    return act(x, self.bias, self.activation, gain, self.clamp)


def linear(self: EqualLinear, x: Tensor) -> Tensor:
    return act(F.linear(x, self.weight * self.scale), self.bias * self.rate, self.activation, 1.0, None)


@contextmanager
def published() -> Iterator[None]:
    """Let every layer compute in the published order."""
    ways: list[tuple[Any, Any]] = [(Layer, layer), (ToRGB, rgb), (EqualConv, conv), (EqualLinear, linear)]
    patches = [mock.patch.object(kind, "forward", way) for kind, way in ways]
    patches += [mock.patch.object(stylegan2, "upsample", lambda x, taps: published_filter(x, taps, 2, (2, 1), 4.0))]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def run_of(size: int, batch: int, dtype: torch.dtype) -> loop.Run:
    """A run of the recipe that is never saved."""
    recipe = stylegan2.auto(size, batch)
    torch.manual_seed(0)
    objective = stylegan2.objective(recipe.config, **{**recipe.objective, "augment": ""})
    settings = loop.Settings(Path("/nonexistent"), recipe.steps, batch, ema_kimg=recipe.ema_kimg, dtype=dtype)
    return loop.start(settings, objective, lambda *_: None)


def step_seconds(run: loop.Run, batch: dict[str, Tensor], repeats: int) -> tuple[float, dict[str, float]]:
    """Processor seconds of one mean step, and those of each phase."""
    parts, phases = [(0, batch)], {}
    for index, phase in enumerate(run.phases):
        loop.one_phase(run, phase, index, parts)
        times = [timed(lambda i=index, p=phase: loop.one_phase(run, p, i, parts)) for _ in range(repeats)]  # type: ignore[misc]
        phases[phase.name] = statistics.median(times)
    return sum(phases[phase.name] / phase.every for phase in run.phases), phases


def operations(run: loop.Run, batch: dict[str, Tensor]) -> float:
    """Floating-point operations of a step's two main phases, as PyTorch counts convolutions and products, forward and backward.

    Its counter cannot follow the second derivatives of R1 and path length, so that rates computed from this are a little low.
    """
    total = 0.0
    for index, phase in enumerate(run.phases):
        if phase.every == 1:
            with FlopCounterMode(display=False) as counter:
                loop.one_phase(run, phase, index, [(0, batch)])
            total += counter.get_total_flops()
    return total


def difference(run: loop.Run, batch: int) -> float:
    """Largest difference of both ways in the discriminator's view of the generator's images, relative to its size."""
    networks: Any = run.networks
    z = torch.randn(batch, 512, generator=seeded(1))

    def look() -> Tensor:
        w = networks["generator"].mapping(z)
        return networks["discriminator"](networks["generator"].synthesis(w.requires_grad_(), "const")).detach()

    ours = look()
    with published():
        theirs = look()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    for name, default in (("batch", 4), ("repeats", 3), ("threads", 1)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    rows: dict[tuple[int, str], tuple[float, dict[str, float]]] = {}
    flops: dict[int, float] = {}
    batches = {size: {"image": torch.rand(options.batch, 3, size, size) * 2 - 1} for size in options.sizes}
    for size in options.sizes:  # the published way first: memory is kept from then on
        run = run_of(size, options.batch, torch.float32)
        run.networks.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        print(f"{size}²: both ways differ by {difference(run, options.batch):.1e}", flush=True)
        with published():
            rows[size, "published, float32"] = step_seconds(run, batches[size], options.repeats)
    keep_memory()
    for size in options.sizes:
        batch = {"image": batches[size]["image"].contiguous(memory_format=torch.channels_last)}
        for name, dtype in (("limn, float32", torch.float32), ("limn, bfloat16", torch.bfloat16)):
            run = run_of(size, options.batch, dtype)
            rows[size, name] = step_seconds(run, batch, options.repeats)
        flops[size] = operations(run_of(size, options.batch, torch.float32), batch)
    ceilings = {dtype: peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    for (size, name), (seconds, phases) in rows.items():
        base, rate = rows[size, "published, float32"][0], flops[size] / seconds / 1e9
        ceiling = ceilings[torch.bfloat16 if "bfloat16" in name else torch.float32]
        each = "  ".join(f"{phase} {value:.2f}" for phase, value in phases.items())
        print(
            f"{size:4}² {name:20} {options.batch / seconds:6.2f} images/s  {base / seconds:5.2f}×  "
            f"{rate:5.0f} GFLOP/s  {rate / ceiling:4.0%} of peak   s: {each}"
        )


if __name__ == "__main__":
    main()

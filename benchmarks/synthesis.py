"""How fast the StyleGAN2 synthesis network runs, against the published order of operations and the convolution peak.

    python benchmarks/synthesis.py [--size 1024] [--threads 1] [--repeats 3]

Everything is measured in one process and the median is printed: seconds, GFLOP/s, and the share of what one plain 3×3
convolution reaches on this machine. `published` computes as NVIDIA's CPU reference path does: weights modulated for each
sample, a grouped convolution, zeros inserted and filtered for the resampling, bias and activation as separate steps, memory
returned to the system after each. With one thread the clock is the processor's, so that neighbours do not count as time.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from limn.device import keep_memory
from limn.models.generation.stylegan2 import Config, Generator, Layer, ToRGB, widths


def published_filter(x: Tensor, taps: Tensor, up: int, pad: tuple[int, int], gain: float) -> Tensor:
    """Insert zeros, pad, and filter each channel."""
    count, channels, height, width = x.shape
    x = F.pad(x.reshape(count, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(
        count, channels, height * up, width * up
    )
    x = F.pad(x, (*pad, *pad))
    kernel = (torch.outer(taps, taps) * gain).flip(0, 1)[None, None].repeat(channels, 1, 1, 1)
    return F.conv2d(x, kernel, groups=channels)


def published_layer(layer: Layer, x: Tensor, style: Tensor) -> Tensor:
    """One modulated layer as the published reference computes it."""
    count, inputs = x.shape[:2]
    weight = layer.weight[None] * style[:, None, :, None, None]
    weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, -1, *x.shape[2:])
    if layer.up:
        weight = weight.transpose(1, 2).reshape(count * inputs, -1, 3, 3)
        x = F.conv_transpose2d(x, weight, stride=2, groups=count)
        x = published_filter(x, layer.taps, 1, (1, 1), 4.0)
    else:
        x = F.conv2d(x, weight.reshape(-1, inputs, 3, 3), padding=1, groups=count)
    x = x.reshape(count, -1, *x.shape[2:])
    x = x + layer.noise_const * layer.noise_strength
    x = F.leaky_relu(x + layer.bias[:, None, None], 0.2) * math.sqrt(2)
    return x if layer.clamp is None else x.clamp(-layer.clamp, layer.clamp)


def published_rgb(layer: ToRGB, x: Tensor, style: Tensor) -> Tensor:
    """The step to the image as the published reference computes it."""
    weight = layer.weight[None] * (style / math.sqrt(x.shape[1]))[:, None, :, None, None]
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.reshape(-1, x.shape[1], 1, 1), groups=len(x))
    y = y.reshape(len(x), -1, *x.shape[2:]) + layer.bias[:, None, None]
    return y if layer.clamp is None else y.clamp(-layer.clamp, layer.clamp)


def published(generator: Generator, w_plus: Tensor) -> Tensor:
    """The skip architecture in the published order of operations."""
    synthesis = generator.synthesis
    styles = synthesis.styles(w_plus)
    x, image = synthesis.b4.const.expand(len(w_plus), -1, -1, -1), None
    for block in synthesis.blocks:
        for layer in block.modulated():
            if isinstance(layer, Layer):
                x = published_layer(layer, x, styles.pop(0))
            else:
                painted = published_rgb(layer, x, styles.pop(0))
                image = painted if image is None else published_filter(image, block.taps, 2, (2, 1), 4.0) + painted
    assert image is not None
    return image


def operations(config: Config) -> float:
    """Floating-point operations of one image: two for each multiply-add of the convolutions."""
    total = 0
    for level, channels in enumerate(config.channels):
        pixels = (4 << level) ** 2
        inputs = config.channels[level - 1] if level else 0
        total += 9 * inputs * channels * pixels // 4 + 9 * channels * channels * pixels + channels * config.image_channels * pixels
    return 2.0 * total


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of a plain 3×3 convolution, 128 channels at 128², channels last: the ceiling."""
    x = torch.randn(1, 128, 128, 128).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    seconds = min(timed(lambda: F.conv2d(x, w, padding=1)) for _ in range(20))
    return 2 * 9 * 128 * 128 * 128 * 128 / seconds / 1e9


def timed(run: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    run()
    return clock() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 1024), ("threads", 1), ("repeats", 3)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    generator = Generator(Config(size=options.size, channels=widths(options.size))).eval().requires_grad_(False)
    w = torch.randn(4, generator.num_ws, 512, generator=torch.Generator().manual_seed(1)) * 0.5

    def run(count: int, dtype: torch.dtype | None) -> Tensor:
        with torch.autocast("cpu", dtype) if dtype else nullcontext():
            return generator.synthesis(w[:count])

    ways: dict[str, tuple[Callable[[], Tensor], int, torch.dtype]] = {
        "published, float32": (lambda: published(generator, w[:1]), 1, torch.float32),
        "limn, float32": (lambda: run(1, None), 1, torch.float32),
        "limn, bfloat16": (lambda: run(1, torch.bfloat16), 1, torch.bfloat16),
        "limn, float32, batch 4": (lambda: run(4, None), 4, torch.float32),
        "limn, bfloat16, batch 4": (lambda: run(4, torch.bfloat16), 4, torch.bfloat16),
    }
    times: dict[str, list[float]] = {}
    with torch.no_grad():
        truth = published(generator, w[:1])
        for name, (way, count, _) in ways.items():
            if not name.startswith("published"):
                keep_memory()
            way()
            times[name] = [timed(way) / count for _ in range(options.repeats)]
        error = (run(1, None) - truth).abs().max() / truth.abs().max()
        rms = ((run(1, torch.bfloat16) - truth).square().mean() / truth.square().mean()).sqrt()
    flops, base = operations(generator.config) / 1e9, statistics.median(times["published, float32"])
    ceilings = {dtype: peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{options.size}², {flops:.0f} GFLOP, {options.threads} thread(s); float32 error {error:.1e}, bfloat16 RMS error {rms:.2%}")
    for name, (_, _, dtype) in ways.items():
        seconds = statistics.median(times[name])
        rate = flops / seconds
        print(f"{name:26} {seconds:7.3f} s/image  {base / seconds:5.2f}×  {rate:6.0f} GFLOP/s  {rate / ceilings[dtype]:4.0%} of peak")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB (all ways together)")


if __name__ == "__main__":
    main()

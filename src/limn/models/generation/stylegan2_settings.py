"""The published hyper-parameters of StyleGAN2 and ADA, as numbers: what the presets are made of.

Karras et al., arXiv 1912.04958 (configuration f) and 2006.06676 (appendix C); the `auto` rule is that of stylegan2-ada-pytorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One row of the table; `base` is what channels × resolution may not exceed, `ramp` the EMA's (0: none)."""

    size: int
    base: int
    mapping: int
    batch: int
    group: int
    rate: float
    gamma: float
    ema_kimg: float
    ramp: float = 0.0
    kimg: int = 25_000
    path_weight: float = 2.0
    mixing: float = 0.9
    augment: str = "bgc"
    discriminator: str = "resnet"


TABLE = {
    "ffhq-1024": Setting(1024, 32768, 8, 32, 4, 0.002, 10.0, 10, augment=""),
    "paper256": Setting(256, 16384, 8, 64, 8, 0.0025, 1.0, 20),
    "paper512": Setting(512, 32768, 8, 64, 8, 0.0025, 0.5, 20),
    "paper1024": Setting(1024, 32768, 8, 32, 4, 0.002, 2.0, 10),
    "cifar": Setting(32, 32768, 2, 64, 32, 0.0025, 0.01, 500, 0.05, 100_000, path_weight=0.0, mixing=0.0, discriminator="orig"),
}


def widths(size: int, base: int = 32768, top: int = 512) -> tuple[int, ...]:
    """Channels of the resolutions 4 ... size: base / resolution, at most `top` (the published rule)."""
    return tuple(min(base // resolution, top) for resolution in resolutions(size))


def resolutions(size: int) -> list[int]:
    return [2**power for power in range(2, int(math.log2(size)) + 1)]


def auto(size: int, batch: int = 0, devices: int = 1) -> Setting:
    """Settings for any resolution: R1's weight grows with the pixels and falls with the batch (0.0002 size² / batch).

    The published rule derives all of it from the rule's own batch; here another `batch` changes gamma, the half-life of the average and
    the group with it.
    """
    batch = batch or max(min(devices * min(4096 // size, 32), 64), devices)
    part = max(batch // devices, 1)
    group = max(g for g in range(1, min(part, 4) + 1) if part % g == 0)
    base, rate = (32768 if size >= 512 else 16384), (0.002 if size >= 1024 else 0.0025)
    return Setting(size, base, 2, batch, group, rate, 0.0002 * size**2 / batch, batch * 10 / 32, 0.05)

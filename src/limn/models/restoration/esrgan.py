"""ESRGAN: a deep stack of dense blocks within residual blocks enlarges a picture, and a relativistic discriminator sharpens it.

No normalisation; residuals are scaled by 0.2 on both levels; the discriminator says which of two pictures is the more real one.
Training starts from the same network trained on L1 alone.
Wang, Yu, Wu, Gu, Liu, Dong, Loy, Qiao, Tang: ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks. ECCVW 2018,
arXiv 1809.00219.
Differs: any feature network for the perceptual loss; low-resolution pictures are made from the batch, by area. Community variants of
the network are read too (other depths and widths, factors 1 to 8, shuffled inputs, ESRGAN+'s 1x1 convolutions).
Reproduced: published arithmetic within 1e-4 (tests/parity); benchmarks/learning.py esrgan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.errors import TrainingError
from limn.losses.games import relativistic_discriminator, relativistic_generator, vanilla
from limn.losses.restoration import feature_l1
from limn.models.perception import vgg
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing

RESIDUAL = 0.2  # scale of both levels of residuals
BLOCK_REACH = 15  # pixels that one residual-in-residual block sees to each side: three dense blocks of five convolutions
Spare = tuple[int, int, int, int]  # pixels of context left, top, right and bottom that the result need not keep


@dataclass(frozen=True)
class Config:
    channels_in: int = 3
    channels_out: int = 3
    features: int = 64
    blocks: int = 23
    growth: int = 32  # channels that each convolution of a dense block adds
    stages: tuple[int, ...] = (2, 2)  # factors of the enlargements
    shuffle: int = 1  # the input's pixels are first folded into channels by this factor
    plus: bool = False  # ESRGAN+: a 1x1 convolution across each dense block
    judge_width: int = 64  # channels of the discriminator's first level
    size: int = 128  # pixels of training pictures, which the discriminator sees whole: 128 or 256

    @property
    def scale(self) -> int:
        """By how much pictures grow."""
        return math.prod(self.stages) // self.shuffle


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each of which sees all before it: (N, features, H, W) -> the same."""

    def __init__(self, features: int, growth: int, plus: bool) -> None:
        super().__init__()
        for index in range(4):
            self.add_module(f"conv{index + 1}", nn.Conv2d(features + index * growth, growth, 3, padding=1))
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)
        self.plus = plus
        if plus:
            self.conv1x1 = nn.Conv2d(features, growth, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for index in range(4):
            y = F.leaky_relu(getattr(self, f"conv{index + 1}")(torch.cat(seen, 1)), 0.2, inplace=True)
            if self.plus and index == 1:
                y = y + self.conv1x1(x)
            if self.plus and index == 3:
                y = y + seen[2]
            seen.append(y)
        return torch.add(x, self.conv5(torch.cat(seen, 1)), alpha=RESIDUAL)


class Rrdb(nn.Module):
    """Residual in residual: three dense blocks and the way around them."""

    def __init__(self, features: int, growth: int, plus: bool) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(features, growth, plus) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL)


class RrdbNet(nn.Module):
    """Pictures (N, C, H, W) in [0, 1] -> (N, C, scale H, scale W); `restore` takes and gives [-1, 1]."""

    template = ""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config, self.scale, width = config, config.scale, config.features
        self.multiple = config.shuffle  # what the sides of a tile are multiples of
        self.conv_first = nn.Conv2d(config.channels_in * config.shuffle**2, width, 3, padding=1)
        self.body = nn.Sequential(*(Rrdb(width, config.growth, config.plus) for _ in range(config.blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        for index in range(len(config.stages)):
            self.add_module(f"conv_up{index + 1}", nn.Conv2d(width, width, 3, padding=1))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, config.channels_out, 3, padding=1)

    @property
    def tail(self) -> int:
        """Pixels, after the shuffle, that what follows the blocks sees to each side."""
        reach, size = 0.0, 1.0
        for factor in self.config.stages:
            size *= factor
            reach += 1 / size
        return math.ceil(reach + 2 / size)

    @property
    def halo(self) -> int:
        """Pixels of the input that one pixel of the result depends on to each side, a multiple of the shuffle."""
        return (2 + BLOCK_REACH * self.config.blocks + self.tail) * self.config.shuffle

    def forward(self, images: Tensor, spare: Spare = (0, 0, 0, 0)) -> Tensor:
        """Enlarge. Of `spare` input pixels at each side, multiples of the shuffle, the result shows none.

        Where there are `halo` of them, it is exactly what it would be within the larger picture; rows and columns are dropped as soon
        as nothing that is shown depends on them.
        """
        shuffle, config = self.config.shuffle, self.config
        left = [pixels // shuffle for pixels in spare]
        x = F.pixel_unshuffle(images, shuffle) if shuffle > 1 else images
        first = self.conv_first(x)
        x = first
        for index, block in enumerate(self.body):
            x = block(x)
            needed = BLOCK_REACH * (config.blocks - 1 - index) + 1 + self.tail
            x, left = cropped(x, left, needed)
        gone = [before // shuffle - now for before, now in zip(spare, left, strict=True)]
        x = torch.add(cut(first, gone), self.conv_body(x))
        x, left = cropped(x, left, self.tail)
        for index, factor in enumerate(config.stages):
            x = F.interpolate(x, scale_factor=factor, mode="nearest")
            x = F.leaky_relu(getattr(self, f"conv_up{index + 1}")(x), 0.2, inplace=True)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2, inplace=True))
        return cut(x, [pixels * math.prod(config.stages) for pixels in left])

    def restore(self, images: Tensor, spare: Spare = (0, 0, 0, 0)) -> Tensor:
        """Enlarge pictures (N, 3, H, W) in [-1, 1] of any size; `spare` as in `forward`."""
        return restored(self, images, self.multiple, spare)


def restored(network: Any, images: Tensor, multiple: int, spare: Spare) -> Tensor:
    """Give a network pictures in [0, 1], mirrored at the right and bottom to multiples of `multiple`, and cut what it makes."""
    height, width = images.shape[2:]
    down, right = -height % multiple, -width % multiple
    unit = (images + 1) / 2
    if down or right:  # the edge is repeated where a picture is too small to be mirrored
        unit = F.pad(unit, (0, right, 0, down), mode="reflect" if min(height, width) > multiple else "replicate")
    made = network(unit, spare).clamp(0, 1) * 2 - 1
    shown = height - spare[1] - spare[3], width - spare[0] - spare[2]
    return made[:, :, : shown[0] * network.scale, : shown[1] * network.scale]


def cropped(x: Tensor, spare: list[int], needed: int) -> tuple[Tensor, list[int]]:
    """Drop what is spare beyond the `needed` pixels at each side (left, top, right, bottom)."""
    drop = [max(pixels - needed, 0) for pixels in spare]
    return cut(x, drop), [pixels - less for pixels, less in zip(spare, drop, strict=True)]


def cut(x: Tensor, drop: list[int]) -> Tensor:
    """Cut pixels away at the left, top, right and bottom."""
    left, top, right, bottom = drop
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right] if any(drop) else x


def interpolated(first: State, second: State, share: float) -> dict[str, Tensor]:
    """Mix two networks of one shape, entry by entry: `share` of the second (section 3.4; PSNR and GAN, or two degrees of denoising)."""
    return {name: torch.lerp(tensor, second[name].to(tensor), share) for name, tensor in first.items()}


class VggJudge(nn.Module):
    """Pictures (N, 3, S, S) in [0, 1] -> one logit each: VGG-like, S halved to 4 by five or six convolutions of stride 2."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config, width = config, config.judge_width
        levels = 6 if config.size == 256 else 5
        sizes = [config.channels_out] + [width * min(1 << level, 8) for level in range(levels)]
        for level, (inputs, outputs) in enumerate(pairwise(sizes)):
            self.add_module(f"conv{level}_0", nn.Conv2d(inputs, outputs, 3, 1, 1, bias=level == 0))
            if level:
                self.add_module(f"bn{level}_0", nn.BatchNorm2d(outputs))
            self.add_module(f"conv{level}_1", nn.Conv2d(outputs, outputs, 4, 2, 1, bias=False))
            self.add_module(f"bn{level}_1", nn.BatchNorm2d(outputs))
        self.levels = levels
        self.linear1, self.linear2 = nn.Linear(sizes[-1] * 16, 100), nn.Linear(100, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for level in range(self.levels):
            x = getattr(self, f"conv{level}_0")(x)
            x = F.leaky_relu(getattr(self, f"bn{level}_0")(x) if level else x, 0.2)
            x = F.leaky_relu(getattr(self, f"bn{level}_1")(getattr(self, f"conv{level}_1")(x)), 0.2)
        return self.linear2(F.leaky_relu(self.linear1(x.flatten(1)), 0.2))


# -------------------------------------------------------------------------------------------------------------- objective


class Objective:
    """L1, features, and the relativistic average game; without `adversarial` and `perceptual` it makes the PSNR network to begin with."""

    averaged = ("generator",)

    def __init__(self, config: Config, *, features: Any, pixel: float, perceptual: float, adversarial: float, lr: float) -> None:
        if adversarial and config.size not in (128, 256):
            raise TrainingError(f"the discriminator judges 128 or 256 pixels, not {config.size}")
        self.config, self.pixel, self.perceptual, self.adversarial = config, pixel, perceptual, adversarial
        self.features: Any = None if features is None else vgg.view(features, ["conv5_4"])
        self.adam = Adam(lr, (0.9, 0.99))
        self.generator = gently(RrdbNet(config))
        self.networks = nn.ModuleDict({"generator": self.generator})
        if adversarial:
            self.networks["discriminator"] = self.discriminator = VggJudge(config)
        self.shown: tuple[Tensor, Tensor] | None = None

    def phases(self) -> list[Phase]:
        """The generator, and the discriminator where there is one."""
        phases = [Phase("generator", self.generator.parameters, self.generator_loss, self.adam)]
        if self.adversarial:
            phases.append(Phase("discriminator", self.discriminator.parameters, self.discriminator_loss, self.adam))
        return phases

    def pair(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return small and large pictures in [0, 1]: `source` and `target` of a batch, or its `image` made smaller by area."""
        large = (batch["target" if "target" in batch else "image"] + 1) / 2
        small = (batch["source"] + 1) / 2 if "source" in batch else F.avg_pool2d(large, self.config.scale)
        if self.shown is None:
            self.shown = small[:8].detach().clone(), large[:8].detach().clone()
        return small, large

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002 - nothing is drawn
        small, large = self.pair(batch)
        made = self.generator(small)
        losses = {"pixel": self.pixel * F.l1_loss(made, large)}
        if self.features is not None and self.perceptual:
            losses["perceptual"] = self.perceptual * feature_l1(self.features, made * 2 - 1, large * 2 - 1)
        if self.adversarial:
            real, fake = self.discriminator(large).detach(), self.discriminator(made)
            losses["adversarial"] = self.adversarial * relativistic_generator(vanilla, real.float(), fake.float())
        return losses

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002 - nothing is drawn
        small, large = self.pair(batch)
        with torch.no_grad():
            made = self.generator(small)
        real, fake = self.discriminator(large).float(), self.discriminator(made).float()
        return {"judged": relativistic_discriminator(vanilla, real, fake)}

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Small pictures of the first batch, enlarged by repeating pixels, by the network, and as they were."""
        assert self.shown is not None, "samples are drawn after a step"
        small, large = self.shown
        rows = [F.interpolate(small, size=large.shape[2:]), networks["generator"](small).clamp(0, 1), large]
        return torch.cat(rows) * 2 - 1


@torch.no_grad()
def gently(network: RrdbNet) -> RrdbNet:
    """Begin every dense block near the identity: He's weights times 0.1 (section 3.1, and BasicSR)."""
    for layer in network.body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight).mul_(0.1)
            if layer.bias is not None:
                layer.bias.zero_()
    return network


def objective(
    config: Config,
    seed: int = 0,
    *,
    features: Any = None,
    pixel: float = 1e-2,
    perceptual: float = 1.0,
    adversarial: float = 5e-3,
    lr: float = 1e-4,
) -> Objective:
    """Make the objective; `features` is a VGG, of which conv5_4 is taken, or another feature network."""
    with drawing(seed):
        return Objective(config, features=features, pixel=pixel, perceptual=perceptual, adversarial=adversarial, lr=lr)


# ------------------------------------------------------------------------------------------------------ published weights

DENSE = r"RDB(\d)\.conv(\d|1x1)"
TRUNK: list[tuple[str, str | None]] = [
    (rf"RRDB_trunk\.(\d+)\.{DENSE}\.(weight|bias)", r"body.\1.rdb\2.conv\3.\4"),
    (r"trunk_conv\.(weight|bias)", r"conv_body.\1"),
    (r"upconv(\d)\.(weight|bias)", r"conv_up\1.\2"),
    (r"HRconv\.(weight|bias)", r"conv_hr.\1"),
]


def old_names(config: Config) -> list[tuple[str, str | None]]:
    """Names of the first layout, where up-sampling and activations occupy places in one sequence."""
    rows: list[tuple[str, str | None]] = [
        (r"model\.0\.(weight|bias)", r"conv_first.\1"),
        (rf"model\.1\.sub\.(\d+)\.{DENSE}(?:\.0)?\.(weight|bias)", r"body.\1.rdb\2.conv\3.\4"),
        (rf"model\.1\.sub\.{config.blocks}\.(weight|bias)", r"conv_body.\1"),
    ]
    rows += [(rf"model\.{3 * index + 3}\.(weight|bias)", rf"conv_up{index + 1}.\1") for index in range(len(config.stages))]
    tail = 3 * len(config.stages) + 2
    return [*rows, (rf"model\.{tail}\.(weight|bias)", r"conv_hr.\1"), (rf"model\.{tail + 2}\.(weight|bias)", r"conv_last.\1")]


def inferred(state: State, first: str, last: str, block: str, stages: int) -> Config:
    """The configuration by the shapes of the first, last and dense convolutions; an input of 12 or 48 channels was shuffled."""
    inputs = state[f"{first}.weight"].shape[1]
    channels_out = state[f"{last}.weight"].shape[0]
    shuffle = {4: 2, 16: 4}.get(inputs // channels_out, 1)
    dense = state[re.sub("N", "0", block) + ".weight"]
    blocks = len({found[1] for name in state if (found := re.match(re.escape(block).replace("N", r"(\d+)"), name))})
    return Config(
        channels_in=inputs // shuffle**2,
        channels_out=channels_out,
        features=dense.shape[1],
        blocks=blocks,
        growth=dense.shape[0],
        stages=(2,) * stages,
        shuffle=shuffle,
        plus=any(name.endswith("conv1x1.weight") for name in state),
    )


def old_config(state: State) -> Config:
    """Of the first layout; a single enlargement is by 2 (one by 3 has the same names and shapes)."""
    last = max(int(found[1]) for name in state if (found := re.fullmatch(r"model\.(\d+)\.weight", name)))
    return inferred(state, "model.0", f"model.{last}", "model.1.sub.N.RDB1.conv1.0", (last - 4) // 3)


def trunk_config(state: State) -> Config:
    stages = sum(re.fullmatch(r"upconv\d\.weight", name) is not None for name in state)
    return inferred(state, "conv_first", "conv_last", "RRDB_trunk.N.RDB1.conv1", stages)


def basicsr_config(state: State) -> Config:
    stages = sum(re.fullmatch(r"conv_up\d\.weight", name) is not None for name in state)
    return inferred(state, "conv_first", "conv_last", "body.N.rdb1.conv1", stages)


def judge_config(state: State) -> Config:
    """What a discriminator says of the configuration."""
    first = state["conv0_0.weight"]
    return Config(channels_out=first.shape[1], judge_width=first.shape[0], size=256 if "conv5_0.weight" in state else 128)


def holds(*names: str) -> Callable[[State], bool]:
    """What knows a layout by names that only it has."""
    return lambda state: all(name in state for name in names)


BASICSR = holds("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_hr.weight")

# The last row's files are mostly Real-ESRGAN's, which has the same network and stands before this system in the list.
PUBLISHED = [
    Published("generator", "2018", holds("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), old_config, RrdbNet, old_names),
    Published("generator", "trunk", holds("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight"), trunk_config, RrdbNet, TRUNK),
    Published("discriminator", "basicsr", holds("conv0_0.weight", "bn0_1.weight", "linear2.weight"), judge_config, VggJudge),
    Published("generator", "basicsr", BASICSR, basicsr_config, RrdbNet),
]

NETWORKS = {"generator": RrdbNet, "discriminator": VggJudge}

SMALL = Config(features=24, blocks=2, growth=12, judge_width=16)
ALONE = {"pixel": 1.0, "perceptual": 0.0, "adversarial": 0.0, "lr": 2e-4}
PRESETS = {
    "x4": Preset(Config(), "images", 16, 400_000, {"features": "vgg-vgg19"}, ema_kimg=11, ema_ramp=0.0),
    "x4-psnr": Preset(Config(), "images", 16, 1_000_000, ALONE, ema_kimg=11, ema_ramp=0.0),
    "portraits128": Preset(
        SMALL,
        "images",
        8,
        1_000,
        ALONE | {"lr": 1e-3},
        ema_kimg=2,
        decay="half",
        reaches="27.58 dB on 178 portraits of people held out, bicubic 26.84; three minutes on a CPU",
    ),
}

CARD = Card(
    name="esrgan",
    title="ESRGAN",
    chapter="restoration",
    year=2018,
    arxiv="1809.00219",
    verbs=("restore", "train"),
    weights_licence="Apache-2.0; community models: see their authors",
    source="xinntao/ESRGAN",
)

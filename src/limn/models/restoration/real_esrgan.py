"""Real-ESRGAN: ESRGAN's network taught by pictures that were blurred, resized, made noisy and compressed twice over.

The degradation is drawn anew for every batch; a U-Net with spectral norm judges every pixel; pictures to be reached are sharpened
first. A compact network of plain convolutions is the fast choice.
Wang, Xie, Dong, Shan: Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data. ICCVW 2021, arXiv 2107.10833.
Differs: what is drawn per batch in the published code (way of resizing, kind of noise) is mixed by its pool of pairs; here batches are
not mixed. Training pictures are squares of one size. Reproduced: published arithmetic within 1e-4 (tests/parity);
benchmarks/learning.py real-esrgan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from limn.blocks.degradation import degraded_twice, sharpened
from limn.errors import WeightsError
from limn.losses.games import vanilla
from limn.losses.restoration import feature_l1
from limn.models.perception import vgg
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing
from limn.models.restoration import esrgan
from limn.models.restoration.esrgan import RrdbNet, Spare, cut, gently, restored

Kind = Literal["rrdb", "compact"]


@dataclass(frozen=True)
class Config:
    kind: Kind = "rrdb"
    factor: int = 4  # by which pictures grow: 1, 2, 4 (rrdb: twice two enlargements of a shuffled input)
    features: int = 64
    blocks: int = 23  # of rrdb
    growth: int = 32  # of rrdb
    convs: int = 32  # of compact, between the first and the last
    activation: Literal["prelu", "relu", "leakyrelu"] = "prelu"  # of compact
    channels_in: int = 3
    channels_out: int = 3
    stages: int = 2  # enlargements by two of rrdb
    shuffle: int = 1  # of rrdb's input
    plus: bool = False
    judge_width: int = 64  # channels of the discriminator's first level
    judge_skips: bool = True
    size: int = 256  # pixels of training pictures

    @property
    def trunk(self) -> esrgan.Config:
        """The network of ESRGAN that this names."""
        return esrgan.Config(
            self.channels_in, self.channels_out, self.features, self.blocks, self.growth, (2,) * self.stages, self.shuffle, self.plus
        )


class Compact(nn.Module):
    """Plain convolutions, pixels shuffled out at the end, and the picture itself enlarged by repeating: SRVGGNetCompact."""

    template = ""
    multiple = 1

    def __init__(self, config: Config = Config(kind="compact")) -> None:
        super().__init__()
        self.config, self.scale, width = config, config.factor, config.features
        layers: list[nn.Module] = [nn.Conv2d(config.channels_in, width, 3, padding=1), activation(config)]
        for _ in range(config.convs):
            layers += [nn.Conv2d(width, width, 3, padding=1), activation(config)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, config.channels_out * config.factor**2, 3, padding=1))

    @property
    def halo(self) -> int:
        """Pixels of the input that one pixel of the result depends on to each side."""
        return self.config.convs + 2

    def forward(self, images: Tensor, spare: Spare = (0, 0, 0, 0)) -> Tensor:
        """Enlarge pictures in [0, 1]; `spare` as for ESRGAN's network."""
        shown = F.interpolate(images, scale_factor=self.scale, mode="nearest")
        made = F.pixel_shuffle(self.body(images), self.scale) + shown
        return cut(made, [pixels * self.scale for pixels in spare])

    def restore(self, images: Tensor, spare: Spare = (0, 0, 0, 0)) -> Tensor:
        """Enlarge pictures (N, 3, H, W) in [-1, 1]."""
        return restored(self, images, self.multiple, spare)


def activation(config: Config) -> nn.Module:
    """One activation of the compact network."""
    if config.activation == "prelu":
        return nn.PReLU(config.features)
    return nn.ReLU() if config.activation == "relu" else nn.LeakyReLU(0.1)


def generator(config: Config = Config()) -> nn.Module:
    """Make the network that the configuration names."""
    return Compact(config) if config.kind == "compact" else RrdbNet(config.trunk)


class UnetJudge(nn.Module):
    """Pictures (N, 3, H, W) in [0, 1] -> a logit per pixel (N, 1, H, W); H and W are multiples of 8."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        width, self.skips = config.judge_width, config.judge_skips
        self.conv0 = nn.Conv2d(config.channels_out, width, 3, 1, 1)
        for index in (1, 2, 3):
            down = nn.Conv2d(width << (index - 1), width << index, 4, 2, 1, bias=False)
            self.add_module(f"conv{index}", spectral_norm(down))
        for index, (inputs, outputs) in enumerate(((8, 4), (4, 2), (2, 1), (1, 1), (1, 1)), 4):
            self.add_module(f"conv{index}", spectral_norm(nn.Conv2d(width * inputs, width * outputs, 3, 1, 1, bias=False)))
        self.conv9 = nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = [F.leaky_relu(self.conv0(images), 0.2)]
        for index in (1, 2, 3):
            maps.append(F.leaky_relu(getattr(self, f"conv{index}")(maps[-1]), 0.2))
        x = maps.pop()
        for index in (4, 5, 6):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(getattr(self, f"conv{index}")(x), 0.2)
            skip = maps.pop()
            x = x + skip if self.skips else x
        for index in (7, 8):
            x = F.leaky_relu(getattr(self, f"conv{index}")(x), 0.2)
        return self.conv9(x)


# -------------------------------------------------------------------------------------------------------------- objective

LAYERS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
LAYER_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)


class Objective:
    """Restores and enlarges what it degrades itself; without `adversarial` and `perceptual` it is Real-ESRNet."""

    averaged = ("generator",)

    def __init__(
        self, config: Config, *, features: Any, pixel: float, perceptual: float, adversarial: float, sharpen: bool, lr: float
    ) -> None:
        self.config, self.pixel, self.perceptual, self.adversarial = config, pixel, perceptual, adversarial
        self.features: Any = None if features is None else vgg.view(features, LAYERS)
        self.sharpen, self.adam = sharpen, Adam(lr, (0.9, 0.99))
        self.generator = generator(config)
        if isinstance(self.generator, RrdbNet):
            gently(self.generator)
        self.networks = nn.ModuleDict({"generator": self.generator})
        if adversarial:
            self.networks["discriminator"] = self.discriminator = UnetJudge(config)
        self.shown: tuple[Tensor, Tensor] | None = None

    def phases(self) -> list[Phase]:
        """The generator, and the discriminator where there is one."""
        phases = [Phase("generator", self.generator.parameters, self.generator_loss, self.adam)]
        if self.adversarial:
            phases.append(Phase("discriminator", self.discriminator.parameters, self.discriminator_loss, self.adam))
        return phases

    def pair(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return degraded and whole pictures in [0, 1]; what is degraded is sharpened first where the targets are."""
        large = (batch["image"] + 1) / 2
        small = degraded_twice(sharpened(large) if self.sharpen else large, self.config.factor, rng)
        small = small.to(memory_format=torch.channels_last)
        if self.shown is None:
            self.shown = small[:8].detach().clone(), large[:8].detach().clone()
        return small, large

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        small, large = self.pair(batch, rng)
        made, wanted = self.generator(small), sharpened(large) if self.sharpen else large
        losses = {"pixel": self.pixel * F.l1_loss(made, wanted)}
        if self.features is not None and self.perceptual:
            weights = LAYER_WEIGHTS if isinstance(self.features, vgg.Vgg) else ()
            losses["perceptual"] = self.perceptual * feature_l1(self.features, made * 2 - 1, wanted * 2 - 1, weights)
        if self.adversarial:
            losses["adversarial"] = self.adversarial * vanilla(self.discriminator(made).float(), True, True)
        return losses

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        small, large = self.pair(batch, rng)
        with torch.no_grad():
            made = self.generator(small)
        fake, real = self.discriminator(made).float(), self.discriminator(large).float()
        return {"fake": vanilla(fake, False), "real": vanilla(real, True)}

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Degraded pictures of the first batch, enlarged by repeating pixels, by the network, and as they were."""
        assert self.shown is not None, "samples are drawn after a step"
        small, large = self.shown
        rows = [F.interpolate(small, size=large.shape[2:]), networks["generator"](small).clamp(0, 1), large]
        return torch.cat(rows) * 2 - 1


def objective(
    config: Config,
    seed: int = 0,
    *,
    features: Any = None,
    pixel: float = 1.0,
    perceptual: float = 1.0,
    adversarial: float = 0.1,
    sharpen: bool = True,
    lr: float = 1e-4,
) -> Objective:
    """Make the objective; `features` is a VGG-19, of which five layers are taken, or another feature network."""
    settings = {"pixel": pixel, "perceptual": perceptual, "adversarial": adversarial, "sharpen": sharpen, "lr": lr}
    with drawing(seed):
        return Objective(config, features=features, **settings)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ published weights


def rrdb_config(state: State) -> Config:
    """Infer the configuration of an RRDB network in BasicSR's names."""
    found = esrgan.basicsr_config(state)
    shape = {name: getattr(found, name) for name in ("features", "blocks", "growth", "channels_in", "channels_out", "shuffle", "plus")}
    return Config("rrdb", factor=found.scale, stages=len(found.stages), **shape)


def is_compact(state: State) -> bool:
    """Whether these are the names of plain convolutions, and activations in between, under `body`."""
    names = {name for name in state if re.fullmatch(r"body\.\d+\.(weight|bias)", name)}
    first, second = state.get("body.0.weight"), state.get("body.2.weight")
    shaped = first is not None and second is not None and first.ndim == 4 and first.shape[2:] == (3, 3) and second.ndim == 4
    return bool(state) and len(names) == len(state) and shaped and "body.0.bias" in state


def compact_config(state: State) -> Config:
    """Infer the configuration; PReLU has weights, ReLU and leaky ReLU (which is taken for the other here) none."""
    places = sorted(int(name.split(".")[1]) for name in state if name.endswith(".bias"))
    first, last = state["body.0.weight"], state[f"body.{places[-1]}.weight"]
    channels = first.shape[1]
    factor = round((last.shape[0] / channels) ** 0.5)
    if factor * factor * channels != last.shape[0]:
        raise WeightsError(f"body.{places[-1]}.weight makes {last.shape[0]} channels, no square number of pictures of {channels} channels")
    act: Literal["prelu", "leakyrelu"] = "prelu" if "body.1.weight" in state else "leakyrelu"
    config = Config("compact", factor=factor, activation=act, features=first.shape[0], convs=len(places) - 2)
    return replace(config, channels_in=channels, channels_out=channels)


def judge_config(state: State) -> Config:
    """What a discriminator says of the configuration."""
    first = state["conv0.weight"]
    return Config(channels_out=first.shape[1], judge_width=first.shape[0])


NORM = r"parametrizations.weight"
JUDGE_NAMES = (
    (r"conv(\d)\.weight_orig", rf"conv\1.{NORM}.original"),
    (r"conv(\d)\.weight_u", rf"conv\1.{NORM}.0._u"),
    (r"conv(\d)\.weight_v", rf"conv\1.{NORM}.0._v"),
)
JUDGE = esrgan.holds("conv0.weight", "conv8.weight_orig", "conv9.bias")
PUBLISHED = [
    Published("generator", "basicsr", esrgan.BASICSR, rrdb_config, generator),
    Published("generator", "compact", is_compact, compact_config, generator),
    Published("discriminator", "basicsr", JUDGE, judge_config, UnetJudge, JUDGE_NAMES),
]

NETWORKS = {"generator": generator, "discriminator": UnetJudge}

ANIME = Config(blocks=6)
SMALL = Config("compact", features=32, convs=8, size=128, judge_width=16)
ALONE = {"perceptual": 0.0, "adversarial": 0.0}
PRESETS = {
    "x4plus": Preset(Config(), "images", 48, 400_000, {"features": "vgg-vgg19"}, ema_kimg=33, ema_ramp=0.0),
    "x4plus-psnr": Preset(Config(), "images", 48, 1_000_000, ALONE | {"lr": 2e-4}, ema_kimg=33, ema_ramp=0.0),
    "x4plus-6b": Preset(ANIME, "images", 48, 400_000, {"features": "vgg-vgg19"}, ema_kimg=33, ema_ramp=0.0),
    "x2plus": Preset(Config(factor=2, shuffle=2), "images", 48, 400_000, {"features": "vgg-vgg19"}, ema_kimg=33, ema_ramp=0.0),
    "general-x4v3": Preset(Config("compact"), "images", 48, 400_000, {"features": "vgg-vgg19"}, ema_kimg=33, ema_ramp=0.0),
    "portraits128": Preset(
        SMALL,
        "images",
        8,
        1_000,
        ALONE | {"lr": 1e-3, "sharpen": False},
        ema_kimg=2,
        decay="half",
        reaches="21.99 dB on 178 worn portraits of people held out, bicubic 21.40; 75 seconds on a CPU",
    ),
}

CARD = Card(
    name="real-esrgan",
    title="Real-ESRGAN",
    chapter="restoration",
    year=2021,
    arxiv="2107.10833",
    verbs=("restore", "train"),
    weights_licence="BSD-3-Clause",
    source="xinntao/Real-ESRGAN",
)

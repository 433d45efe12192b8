"""GPEN: a generator of faces as the decoder of a U-Net, so that what it restores is a face.

An encoder halves the degraded picture down to 4x4; its deepest map becomes the style of a StyleGAN2-like decoder, and the map of every
resolution enters the decoder where StyleGAN2 has noise: concatenated after the convolution, or added. Decoder and mapping may begin as a
trained generator, and everything is then tuned together.
Yang, Ren, Xie, Zhang: GAN Prior Embedded Network for Blind Face Restoration in the Wild. CVPR 2021, arXiv 2105.06070.
Differs: the losses are those of the published training code (no feature matching); features of any frozen network, L1 in place of
smooth L1, and a decoder that draws what is added to the degraded face may be chosen.
Reproduced: published arithmetic within 1e-4 (tests/parity); benchmarks/learning.py gpen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.degradation import FACES, degraded_faces
from limn.blocks.equalized import EqualConv, EqualLinear, activate
from limn.blocks.fir import BINOMIAL, kernel, upsample
from limn.blocks.modulated import modulated_conv
from limn.losses.adversarial import logistic, path_lengths, r1
from limn.losses.restoration import feature_distance, identity_distance
from limn.models.generation import stylegan2, stylegan2_layouts
from limn.models.generation.stylegan2 import Discriminator, ToRGB, lazy, resolutions
from limn.models.generation.stylegan2 import Mapping as StyleMapping
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing


@dataclass(frozen=True)
class Config:
    size: int = 512  # pixels, a power of two
    w_dim: int = 512  # components of the style
    mapping_layers: int = 8
    channels: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64)  # of the resolutions 4, 8, ..., size, in encoder and decoder
    concat: bool = True  # encoder maps are concatenated to the decoder's; else added
    residual: bool = False  # the decoder draws what is added to the degraded face; else the face itself, as published
    taps: tuple[float, ...] = BINOMIAL  # of the resampling filter
    template: str = "gpen"  # alignment of the faces
    discriminator_channels: tuple[int, ...] = ()  # empty: like the generator's


def judge_config(config: Config) -> stylegan2.Config:
    """The discriminator is StyleGAN2's, whose minibatch deviation covers the whole batch."""
    channels = config.discriminator_channels or config.channels
    return stylegan2.Config(size=config.size, channels=channels, taps=config.taps, group=1 << 30)


def judge(config: Config) -> Discriminator:
    """Make the discriminator: images (N, 3, size, size) -> logits (N, 1)."""
    return Discriminator(judge_config(config))


class Layer(nn.Module):
    """Modulated 3x3 convolution, the encoder's map in the place of noise, bias, activation."""

    taps: Tensor

    def __init__(self, config: Config, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        self.affine = EqualLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs * (2 if config.concat else 1)))
        # StyleGAN2's name of the factor of the encoder's map, and its first value: from there it takes thousands of steps to let the map
        # through, without which a difference cannot be drawn
        self.noise_strength = nn.Parameter(torch.tensor(1.0 if config.residual else 0.0))
        self.register_buffer("taps", kernel(config.taps), persistent=False)
        self.up, self.concat = up, config.concat

    def forward(self, x: Tensor, w: Tensor, feature: Tensor) -> Tensor:
        x = modulated_conv(x, self.weight, self.affine(w), up=self.taps if self.up else None)
        feature = (feature * self.noise_strength).to(x.dtype)
        x = torch.cat([x, feature], 1) if self.concat else x + feature
        return activate((x + self.bias.to(x.dtype)[:, None, None]) * math.sqrt(2))


class Block(nn.Module):
    """Everything at one resolution of the decoder, and the step to the image."""

    taps: Tensor

    def __init__(self, config: Config, inputs: int, outputs: int) -> None:
        super().__init__()
        times = 2 if config.concat else 1
        if inputs:
            self.conv0 = Layer(config, inputs * times, outputs, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        self.conv1 = Layer(config, outputs * times if inputs else outputs, outputs, up=False)
        self.torgb = ToRGB(stylegan2.Config(size=config.size, w_dim=config.w_dim), outputs * times)
        self.register_buffer("taps", kernel(config.taps), persistent=False)

    def forward(self, x: Tensor | None, image: Tensor | None, w: list[Tensor], feature: Tensor) -> tuple[Tensor, Tensor]:
        """Go on with x (None at 4x4) and image; `w` are the styles of conv0, conv1 and torgb, one less at 4x4."""
        if x is None:
            x = self.const.expand(len(feature), -1, -1, -1).to(feature.dtype)
        else:
            x = self.conv0(x, w[0], feature)
        x = self.conv1(x, w[-2], feature)
        paint = self.torgb(x, self.torgb.affine(w[-1])).float()
        return x, paint if image is None else upsample(image, self.taps) + paint


class Generator(nn.Module):
    """Degraded aligned faces (N, 3, size, size) in [-1, 1] -> restored ones, the same shape."""

    scale = 1

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config, self.template = config, config.template
        taps, sizes = kernel(config.taps), resolutions(config.size)
        first, *lower = config.channels[::-1]
        self.ecd = nn.ModuleList([EqualConv(3, first, 1, taps)])
        self.ecd.extend(EqualConv(inputs, outputs, 3, taps, down=True) for inputs, outputs in pairwise((first, *lower)))
        self.final = EqualLinear(config.channels[0] * 16, config.w_dim, activation=True)
        self.mapping = StyleMapping(config.w_dim, 0, config.w_dim, 0, config.mapping_layers)
        for inputs, outputs, size in zip((0, *config.channels), config.channels, sizes, strict=False):
            self.add_module(f"b{size}", Block(config, inputs, outputs))

    @property
    def blocks(self) -> list[Block]:
        return [getattr(self, f"b{size}") for size in resolutions(self.config.size)]

    @property
    def num_ws(self) -> int:
        return 2 * len(self.config.channels)

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the style w (N, w_dim) of degraded faces and the encoder's maps, 4x4 first."""
        maps = []
        for layer in self.ecd:
            images = layer(images)
            maps.append(images)
        return self.mapping(self.final(images.flatten(1))), maps[::-1]

    def synthesis(self, w_plus: Tensor, maps: list[Tensor]) -> Tensor:
        """Decode styles (N, num_ws, w_dim) and maps into images; a ToRGB shares its style with the layer after it, the last has its own."""
        w = list(w_plus.unbind(1))
        x, image = self.blocks[0](None, None, w[:2], maps[0])
        for index, (block, feature) in enumerate(zip(self.blocks[1:], maps[1:], strict=True)):
            x, image = block(x, image, w[2 * index + 1 : 2 * index + 4], feature)
        return image

    def forward(self, images: Tensor) -> Tensor:
        w, maps = self.encode(images)
        drawn = self.synthesis(w[:, None].expand(-1, self.num_ws, -1), maps)
        return images + drawn if self.config.residual else drawn

    def restore(self, images: Tensor) -> Tensor:
        """Restore aligned faces of any size: (N, 3, size, size) in [-1, 1]."""
        if images.shape[2:] != (self.config.size,) * 2:
            images = F.interpolate(images, size=(self.config.size,) * 2, mode="bilinear", antialias=True, align_corners=False)
        return self(images).clamp(-1, 1)


@torch.no_grad()
def embed_prior(network: Generator, prior: Any) -> None:
    """Begin the decoder and the mapping with a StyleGAN2 generator's weights, wherever it has that resolution and as many channels.

    Where the decoder draws a difference, it begins with drawing none.
    """
    ours, theirs = network.state_dict(), prior.state_dict()
    renamed = {name.removeprefix("synthesis."): tensor for name, tensor in theirs.items() if "noise" not in name and "w_avg" not in name}
    for name, tensor in renamed.items():
        if name not in ours or ours[name].ndim != tensor.ndim:
            continue
        mine = ours[name]
        if name.endswith((".weight", ".bias")) and tensor.ndim and any(a < b for a, b in zip(mine.shape, tensor.shape, strict=True)):
            continue  # narrower than the prior: nothing to take over
        mine[tuple(slice(0, length) for length in tensor.shape)] = tensor.to(mine)
        if network.config.concat and mine.shape != tensor.shape and name.endswith("weight") and tensor.ndim == 4:
            mine[:, tensor.shape[1] :] *= 0.1  # the encoder's channels begin quietly
    if network.config.residual:
        for block in network.blocks:
            block.torgb.weight.zero_()
            block.torgb.bias.zero_()


# -------------------------------------------------------------------------------------------------------------- objective


class Objective:
    """Restores what it degrades itself: pixels, identity, features, and a discriminator where `adversarial` is above 0."""

    averaged = ("generator",)

    def __init__(
        self,
        config: Config,
        *,
        generator: Any,  # a StyleGAN2 generator to begin with
        features: Any,
        identity: Any,
        degradation: str,
        smooth: bool,  # smooth L1; else L1
        pixel: float,
        perceptual: float,
        identical: float,
        adversarial: float,
        gamma: float,  # R1, every 16 steps
        path_weight: float,  # every 4 steps; 0 leaves it out
        lr: float,
    ) -> None:
        self.config, self.features, self.identity, self.ranges = config, features, identity, FACES[degradation]
        self.pixel, self.perceptual, self.identical, self.adversarial = pixel, perceptual, identical, adversarial
        self.pixel_loss = F.smooth_l1_loss if smooth else F.l1_loss
        self.gamma, self.path_weight, self.adam = gamma, path_weight, Adam(lr, (0.0, 0.99))
        self.generator = Generator(config)
        if generator is not None:
            embed_prior(self.generator, generator)
        self.networks = nn.ModuleDict({"generator": self.generator})
        if adversarial:
            self.networks["discriminator"] = self.discriminator = judge(config)
        self.path_mean = torch.zeros(())
        self.shown: tuple[Tensor, Tensor] | None = None

    def phases(self) -> list[Phase]:
        """The restorer; with a discriminator also that, its R1, and the path length (published training code)."""
        g = self.generator.parameters
        if not self.adversarial:
            return [Phase("generator", g, self.generator_loss, Adam(self.adam.lr, (0.9, 0.99)), clip=5.0)]
        d, of_d = self.discriminator.parameters, lazy(self.adam, 16)
        of_g = lazy(self.adam, 4 if self.path_weight else 0)
        phases = [
            Phase("discriminator", d, self.discriminator_loss, of_d),
            Phase("r1", d, self.r1_loss, of_d, every=16, shares="discriminator"),
            Phase("generator", g, self.generator_loss, of_g),
        ]
        return phases + ([Phase("path", g, self.path_loss, of_g, every=4, shares="generator")] if self.path_weight else [])

    def degraded(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Tensor:
        """The batch's images as the network gets them; GPEN takes the colour of both where it takes it, this of the input alone."""
        return degraded_faces(batch["image"], self.ranges, rng)

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        images, worn = batch["image"], self.degraded(batch, rng)
        restored = self.generator(worn)
        if self.shown is None:
            self.shown = images[:8].detach().clone(), worn[:8].detach().clone()
        losses = {"pixel": self.pixel * self.pixel_loss(restored, images)}
        if self.features is not None and self.perceptual:
            losses["perceptual"] = self.perceptual * feature_distance(self.features, restored, images)
        if self.identity is not None and self.identical:
            losses["identity"] = self.identical * identity_distance(self.identity, restored, images)
        if self.adversarial:
            losses["adversarial"] = self.adversarial * logistic(self.discriminator(restored).float(), real=True).mean()
        return losses

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        with torch.no_grad():
            restored = self.generator(self.degraded(batch, rng))
        fake, real = self.discriminator(restored).float(), self.discriminator(batch["image"]).float()
        return {"fake": logistic(fake, real=False).mean(), "real": logistic(real, real=True).mean()}

    def r1_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002 - nothing here is drawn
        images = batch["image"].detach().requires_grad_()
        return {"r1": r1(self.discriminator(images).float(), images).mean() * (self.gamma / 2)}

    def path_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """StyleGAN2's penalty along the style, for half of the batch."""
        worn = self.degraded(batch, rng)[: max(len(batch["image"]) // 2, 1)]
        w, maps = self.generator.encode(worn)
        w_plus = w[:, None].expand(-1, self.generator.num_ws, -1)
        images = self.generator.synthesis(w_plus, maps)  # what is added to them has no gradient along the style
        lengths = path_lengths(images, w_plus, torch.randn(images.shape, generator=rng, device=rng.device).to(images))
        mean = self.path_mean.to(lengths.device).lerp(lengths.float().mean(), 0.01)
        self.path_mean = mean.detach()
        return {"path": self.path_weight * (lengths - mean).square().mean()}

    def statistics(self) -> list[Tensor]:
        """What several processes average after every step."""
        return [self.path_mean]

    def state_dict(self) -> dict[str, Tensor]:
        return {"path_mean": self.path_mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.path_mean = state["path_mean"].clone()

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Eight degraded faces of the first batch, as they are restored, and what they were."""
        assert self.shown is not None, "samples are drawn after a step"
        images, worn = self.shown
        return torch.cat([worn, networks["generator"](worn).clamp(-1, 1), images])


def objective(
    config: Config,
    seed: int = 0,
    *,
    generator: Any = None,
    features: Any = None,
    identity: Any = None,
    degradation: str = "gpen",
    smooth: bool = True,
    pixel: float = 1.0,
    perceptual: float = 0.0,
    identical: float = 1.0,
    adversarial: float = 1.0,
    gamma: float = 10.0,
    path_weight: float = 2.0,
    lr: float = 2e-3,
) -> Objective:
    """Make the objective; `generator`, `features` and `identity` are trained networks, `degradation` one of blocks.degradation.FACES."""
    settings = {"degradation": degradation, "smooth": smooth, "pixel": pixel, "perceptual": perceptual, "identical": identical}
    settings |= {"adversarial": adversarial, "gamma": gamma, "path_weight": path_weight, "lr": lr}
    with drawing(seed):
        return Objective(config, generator=generator, features=features, identity=identity, **settings)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ published weights


def config_of(state: State) -> Config:
    """Infer the configuration of a generator from its shapes."""
    convs = [state["generator.conv1.conv.weight"]]
    while (name := f"generator.convs.{2 * len(convs) - 1}.conv.weight") in state:
        convs.append(state[name])
    channels = tuple(weight.shape[1] for weight in convs)
    return Config(
        size=2 << len(channels),
        w_dim=state["generator.conv1.conv.modulation.weight"].shape[1],
        mapping_layers=len(stylegan2_layouts.found(state, r"generator\.style\.(\d+)\.weight")),
        channels=channels,
        concat=state["generator.conv1.activate.bias"].numel() == 2 * channels[0],
        taps=stylegan2_layouts.filter_taps(state),
    )


def judge_config_of(state: State) -> Config:
    """Infer what a discriminator says of the configuration."""
    fields = stylegan2_layouts.rosinality_discriminator(state)
    return Config(size=fields["size"], channels=fields["channels"], taps=fields["taps"])


PLACES = [("conv1", "b4.conv1"), ("to_rgb1", "b4.torgb")]
PLACES += [(f"convs.{2 * j + k}", f"b{8 << j}.conv{k}") for j in range(10) for k in (0, 1)]
PLACES += [(f"to_rgbs.{j}", f"b{8 << j}.torgb") for j in range(10)]
NAMES: list[tuple[str, str | None]] = [(f"generator\\.{a}\\.{s}", f"{b}.{t}") for a, b in PLACES for s, t in stylegan2_layouts.LAYER]
NAMES += [(rf"generator\.style\.{n + 1}\.(weight|bias)", rf"mapping.fc{n}.\1") for n in range(16)]
NAMES += [(r"ecd(\d+)\.0\.\d\.(weight|bias)", r"ecd.\1.\2"), (r"final_linear\.0\.(weight|bias)", r"final.\1")]
NAMES += [(r"generator\.input\.input", "b4.const"), (r".*\.kernel", None)]


def judge_names(config: Config) -> list[tuple[str, str | None]]:
    """The discriminator's names are rosinality's."""
    return stylegan2_layouts.blocks_of(judge_config(config))


# A discriminator's file has the very names of rosinality's StyleGAN2, which a file without further word is taken for.
PUBLISHED = [
    Published("generator", "yangxy", stylegan2_layouts.holds("ecd0.0.0.weight", "generator.input.input"), config_of, Generator, NAMES),
    Published("discriminator", "yangxy", stylegan2_layouts.ROSINALITY_D, judge_config_of, judge, judge_names),
]

NETWORKS = {"generator": Generator, "discriminator": judge}

NARROW = (256, 256, 256, 256, 128, 64, 32)
PORTRAITS = Config(
    size=128,
    w_dim=256,
    mapping_layers=4,
    channels=(256, 256, 160, 96, 48, 24),
    concat=False,
    residual=True,
    template="ffhq",
    discriminator_channels=(128, 128, 96, 64, 32, 16),
)
LEARNT = {
    "generator": "limn-portraits64",
    "degradation": "portraits128",
    "smooth": False,
    "pixel": 1.0,
    "identical": 0.0,
    "adversarial": 0.0,
    "path_weight": 0.0,
}
MODERN = {"where": ["era=modern", "chroma>2"]}  # portraits that have colour to learn

PRESETS = {  # the identity network of the published runs, an ArcFace on FFHQ crops, is given with --set identity=FILE
    "ffhq-512": Preset(Config(), "images", 4, 400_000, {}, ema_kimg=10, ema_ramp=0.0),
    "ffhq-256": Preset(Config(size=256, channels=NARROW), "images", 4, 400_000, {}, ema_kimg=10, ema_ramp=0.0),
    "portraits128": Preset(
        PORTRAITS,
        "images",
        8,
        3_000,
        LEARNT,
        ema_kimg=5,
        decay="half",
        reading=MODERN,
        reaches="0.8 dB above resampling on 136 worn portraits, 900 steps of five minutes on a CPU after 2,500 of earlier runs",
    ),
}

CARD = Card(
    name="gpen",
    title="GAN prior embedded network",
    chapter="restoration",
    year=2021,
    arxiv="2105.06070",
    verbs=("restore", "train"),
    weights_licence="non-commercial (the repository states none since March 2026)",
    source="yangxy/GPEN",
)

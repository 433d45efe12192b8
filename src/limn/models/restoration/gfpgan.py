"""GFPGAN: a U-Net cleans the face, and what it finds modulates a trained StyleGAN2 at every resolution.

The U-Net gives a style per layer and, per level, a scale and a shift for half of the generator's channels (spatial feature transform), so
that fidelity comes from the picture and realism from the generator. Judges of eyes and mouth keep these sharp.
Wang, Li, Zhang, Shan: Towards Real-World Blind Face Restoration with Generative Facial Prior. CVPR 2021, arXiv 2101.04061.
Three dialects were published: `original` (equalised, filtered resampling), `bilinear`, and `clean`, whose weights need no scaling.
Differs: the noise planes are those of the file, so that a face comes out the same every time; components lie where the template has them.
Reproduced: published arithmetic within 1e-4 (tests/parity); benchmarks/learning.py gfpgan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.degradation import FACES, degraded_faces
from limn.blocks.equalized import EqualConv, EqualLinear
from limn.blocks.fir import BINOMIAL, kernel, upsample
from limn.blocks.modulated import modulated_conv
from limn.losses.adversarial import logistic, r1
from limn.losses.games import vanilla
from limn.losses.restoration import feature_l1
from limn.models.generation import stylegan2
from limn.models.generation.stylegan2 import Discriminator, lazy, resolutions
from limn.models.generation.stylegan2 import Mapping as StyleMapping
from limn.models.perception import vgg
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing
from limn.models.restoration import gfpgan_judges as judges
from limn.models.restoration import gfpgan_layouts as layouts

Kind = Literal["clean", "original", "bilinear"]
ROOT2 = math.sqrt(2)


@dataclass(frozen=True)
class Config:
    kind: Kind = "clean"
    size: int = 512  # pixels, a power of two
    w_dim: int = 512  # components of one style
    mapping_layers: int = 8  # of the generator's mapping, which is used only where styles are not `latent`
    channels: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64)  # of the generator, at 4, 8, ..., size
    unet: tuple[int, ...] = (256, 256, 256, 256, 256, 128, 64, 32)  # of the U-Net
    half: bool = True  # the second half of the generator's channels is modulated; else all
    different_w: bool = True  # a style for each layer; else one
    latent: bool = True  # what the U-Net gives is a style; else it passes the mapping first
    taps: tuple[float, ...] = BINOMIAL  # of the resampling filter of `original`
    template: str = "gfpgan-512"  # alignment of the faces
    component_width: int = 64  # channels of the judges of eyes and mouth
    judge_channels: tuple[int, ...] = ()  # of the discriminator; empty: like the generator's
    identity_depths: tuple[int, ...] = (2, 2, 2, 2)  # blocks of the identity network
    identity_squeeze: bool = False

    @property
    def equalised(self) -> bool:
        return self.kind != "clean"

    @property
    def num_ws(self) -> int:
        return 2 * len(self.channels)


class Conv(nn.Module):
    """Convolution, after a bilinear change of resolution where there is one, and an activation."""

    def __init__(
        self, config: Config, inputs: int, outputs: int, size: int, resize: float = 1, bias: bool = True, active: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.resize, self.active, self.gain = resize, active, ROOT2 if config.equalised else 1.0
        fan = inputs * size * size
        self.scale = 1 / math.sqrt(fan) if config.equalised else 1.0
        if not config.equalised:
            nn.init.normal_(self.weight, std=math.sqrt((2 if active else 1) / fan))

    def forward(self, x: Tensor) -> Tensor:
        if self.resize != 1:
            x = F.interpolate(x, scale_factor=self.resize, mode="bilinear", align_corners=False)
        x = F.conv2d(x, self.weight * self.scale, self.bias, padding=self.weight.shape[-1] // 2)
        return F.leaky_relu(x, 0.2) * self.gain if self.active else x


def conv(config: Config, inputs: int, outputs: int, size: int, resize: float = 1, bias: bool = True, active: bool = True) -> nn.Module:
    """Make a convolution of the dialect: `original` filters where it halves."""
    if config.kind == "original" and resize < 1:
        return EqualConv(inputs, outputs, size, kernel(config.taps), down=True, bias=bias, activation=active)
    return Conv(config, inputs, outputs, size, resize, bias, active)


def linear(config: Config, inputs: int, outputs: int, bias: float = 0.0) -> nn.Module:
    """Make a linear layer of the dialect."""
    if config.equalised:
        return EqualLinear(inputs, outputs, bias=bias)
    layer = nn.Linear(inputs, outputs)
    nn.init.constant_(layer.bias, bias)
    return layer


class ResBlock(nn.Module):
    """Two convolutions, the second of which halves or doubles the resolution, and a 1x1 way around."""

    def __init__(self, config: Config, inputs: int, outputs: int, resize: float) -> None:
        super().__init__()
        self.conv1 = conv(config, inputs, inputs, 3)
        self.conv2 = conv(config, inputs, outputs, 3, resize)
        self.skip = conv(config, inputs, outputs, 1, resize, bias=False, active=False)
        self.gain = 1 / ROOT2 if config.equalised else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) * self.gain


class Layer(nn.Module):
    """Modulated 3x3 convolution, the file's noise, bias, activation."""

    taps: Tensor
    noise_const: Tensor

    def __init__(self, config: Config, inputs: int, outputs: int, size: int, up: bool) -> None:
        super().__init__()
        self.affine = linear(config, config.w_dim, inputs, 1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.register_buffer("taps", kernel(config.taps), persistent=False)
        self.kind, self.up = config.kind, up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        filtered = self.up and self.kind == "original"
        if self.up and not filtered:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        y = modulated_conv(x, self.weight, self.affine(w), up=self.taps if filtered else None)
        before, after = (ROOT2, 1.0) if self.kind == "clean" else (1.0, ROOT2)
        y = y * before + (self.noise_const * self.noise_strength).to(y.dtype) + self.bias.to(y.dtype)[:, None, None]
        return F.leaky_relu(y, 0.2) * after


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the image, and the smaller image enlarged."""

    taps: Tensor

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.affine = linear(config, config.w_dim, inputs, 1.0)
        self.weight, self.bias = nn.Parameter(torch.randn(3, inputs, 1, 1)), nn.Parameter(torch.zeros(3))
        self.scale = 1 / math.sqrt(inputs) if config.equalised else 1.0
        self.register_buffer("taps", kernel(config.taps), persistent=False)
        self.filtered = config.kind == "original"
        if not config.equalised:
            nn.init.normal_(self.weight, std=1 / math.sqrt(inputs))

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        paint = modulated_conv(x, self.weight, self.affine(w) * self.scale, demodulate=False).float() + self.bias[:, None, None]
        if image is None:
            return paint
        larger = upsample(image, self.taps) if self.filtered else F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        return larger + paint


class Level(nn.Module):
    """Everything of the generator at one resolution."""

    def __init__(self, config: Config, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        if inputs:
            self.conv0 = Layer(config, inputs, outputs, size, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        self.conv1 = Layer(config, outputs, outputs, size, up=False)
        self.torgb = ToRGB(config, outputs)


class PlainMapping(nn.Module):
    """The mapping of `clean`: linear layers without scaling."""

    def __init__(self, w_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        for index in range(layers):
            self.add_module(f"fc{index}", nn.Linear(w_dim, w_dim))

    def forward(self, z: Tensor) -> Tensor:
        x = stylegan2.normalise(z)
        for index in range(self.layers):
            x = F.leaky_relu(getattr(self, f"fc{index}")(x), 0.2)
        return x


class Decoder(nn.Module):
    """Styles (N, num_ws, w_dim) and conditions -> image: StyleGAN2 with a spatial transform after the first layer of each level."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        plain = config.kind == "clean"
        self.mapping = (PlainMapping if plain else equal_mapping)(config.w_dim, config.mapping_layers)
        for inputs, outputs, size in zip((0, *config.channels), config.channels, resolutions(config.size), strict=False):
            self.add_module(f"b{size}", Level(config, inputs, outputs, size))

    def forward(self, w_plus: Tensor, conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        first, *levels = (getattr(self, f"b{size}") for size in resolutions(self.config.size))
        w = w_plus.unbind(1)
        x = first.const.expand(len(w_plus), -1, -1, -1).to(conditions[0][0].dtype)
        x = first.conv1(x, w[0])
        image = first.torgb(x, w[1], None)
        for index, (level, (scale, shift)) in enumerate(zip(levels, conditions, strict=True)):
            x = self.modulated(level.conv0(x, w[2 * index + 1]), scale, shift)
            x = level.conv1(x, w[2 * index + 2])
            image = level.torgb(x, w[2 * index + 3], image)
        return image

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """The spatial feature transform, of the second half of the channels or of all (eq. 4)."""
        if not self.config.half:
            return x * scale + shift
        same, changed = x.chunk(2, 1)
        return torch.cat([same, changed * scale + shift], 1)


def equal_mapping(w_dim: int, layers: int) -> nn.Module:
    """The mapping of the equalised dialects: StyleGAN2's."""
    return StyleMapping(w_dim, 0, w_dim, 0, layers)


class Generator(nn.Module):
    """Degraded aligned faces (N, 3, size, size) in [-1, 1] -> restored ones, the same shape."""

    scale = 1

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config, self.template = config, config.template
        unet = config.unet
        self.first = conv(config, 3, unet[-1], 1)
        self.down = nn.ModuleList(ResBlock(config, inputs, outputs, 0.5) for inputs, outputs in pairwise(unet[::-1]))
        self.last = conv(config, unet[0], unet[0], 3)
        self.up = nn.ModuleList(ResBlock(config, inputs, outputs, 2) for inputs, outputs in pairwise(unet))
        self.rgb = nn.ModuleList(conv(config, width, 3, 1, active=False) for width in unet[1:])
        self.final = linear(config, unet[0] * 16, config.w_dim * (config.num_ws if config.different_w else 1))
        self.decoder = Decoder(config)
        modulated = [width // 2 if config.half else width for width in config.channels[1:]]
        self.condition_scale = nn.ModuleList(condition(config, *pair, 1.0) for pair in zip(unet[1:], modulated, strict=True))
        self.condition_shift = nn.ModuleList(condition(config, *pair, 0.0) for pair in zip(unet[1:], modulated, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        return self.pyramid(images)[0]

    def pyramid(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the restored faces, and the U-Net's own pictures at 8 pixels and every resolution above."""
        x, maps = self.first(images), []
        for block in self.down:
            x = block(x)
            maps.append(x)
        x = self.last(x)
        styles = self.styles(x)
        conditions, pictures = [], []
        for index, block in enumerate(self.up):
            x = block(x + maps[-1 - index])
            conditions.append((self.condition_scale[index](x), self.condition_shift[index](x)))
            pictures.append(self.rgb[index](x))
        return self.decoder(styles, conditions), pictures

    def styles(self, x: Tensor) -> Tensor:
        """Return W+ (N, num_ws, w_dim) from the deepest map."""
        styles = self.final(x.flatten(1)).reshape(-1, self.config.w_dim)
        styles = styles if self.config.latent else self.decoder.mapping(styles)
        count = self.config.num_ws if self.config.different_w else 1
        return styles.reshape(len(x), count, -1).expand(-1, self.config.num_ws, -1)

    def restore(self, images: Tensor) -> Tensor:
        """Restore aligned faces of any size: (N, 3, size, size) in [-1, 1]."""
        if images.shape[2:] != (self.config.size,) * 2:
            images = F.interpolate(images, size=(self.config.size,) * 2, mode="bilinear", antialias=True, align_corners=False)
        return self(images).clamp(-1, 1)


def condition(config: Config, inputs: int, outputs: int, bias: float) -> nn.Sequential:
    """Two convolutions from a level of the U-Net to a scale or shift of the generator."""
    layers = nn.Sequential(conv(config, inputs, inputs, 3), conv(config, inputs, outputs, 3, active=False))
    nn.init.constant_(layers[1].bias, bias)  # type: ignore[arg-type]
    return layers


def judge(config: Config) -> Discriminator:
    """Make StyleGAN2's discriminator for whole faces."""
    return Discriminator(stylegan2.Config(size=config.size, channels=config.judge_channels or config.channels, taps=config.taps))


# -------------------------------------------------------------------------------------------------------------- objective

LAYERS, LAYER_WEIGHTS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4"), (0.1, 0.1, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Weights:
    """Factors of the terms of eq. 13, as in the published training settings."""

    pixel: float = 0.1
    pyramid: float = 1.0  # of the U-Net's own pictures
    perceptual: float = 1.0
    style: float = 50.0
    adversarial: float = 0.1  # 0 leaves the discriminator out
    component: float = 1.0  # 0 leaves the judges of eyes and mouth out
    component_style: float = 200.0
    identity: float = 10.0
    gamma: float = 10.0  # R1, every 16 steps


class Objective:
    """All terms of eq. 13; feature and identity networks, and the generator to begin with, are passed in."""

    averaged = ("generator",)

    def __init__(
        self, config: Config, *, generator: Any, features: Any, identity: Any, degradation: str, tune: bool, weights: Weights, lr: float
    ) -> None:
        self.config, self.weights, self.ranges, self.tune, self.identity = config, weights, FACES[degradation], tune, identity
        self.features: Any = None if features is None else vgg.view(features, LAYERS)
        self.adam = Adam(lr, (0.0, 0.99))
        self.generator = Generator(config)
        if generator is not None:
            embed_prior(self.generator.decoder, generator)
        self.networks = nn.ModuleDict({"generator": self.generator})
        self.boxes = judges.boxes(config.size)
        if weights.adversarial:
            self.networks["discriminator"] = judge(config)
        if weights.component:
            self.networks.update({name: judges.ComponentJudge(config.component_width) for name in self.boxes})
        self.shown: tuple[Tensor, Tensor] | None = None

    def phases(self) -> list[Phase]:
        """The generator, the discriminator and its R1, and the judges of components."""
        phases = [Phase("generator", self.learning, self.generator_loss, self.adam, clip=10.0)]
        if self.weights.adversarial:
            d, of_d = self.networks["discriminator"].parameters, lazy(self.adam, 16)
            phases.append(Phase("discriminator", d, self.discriminator_loss, of_d))
            phases.append(Phase("r1", d, self.r1_loss, of_d, every=16, shares="discriminator"))
        if self.weights.component:
            phases.append(Phase("components", self.judging, self.component_loss, self.adam))
        return phases

    def learning(self) -> list[nn.Parameter]:
        """The parameters of the restorer: those of the trained generator only where it is tuned."""
        named = self.generator.named_parameters()
        return [parameter for name, parameter in named if not name.startswith("decoder.mapping") and (self.tune or "decoder." not in name)]

    def judging(self) -> list[nn.Parameter]:
        return [parameter for name in self.boxes for parameter in self.networks[name].parameters()]

    def degraded(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Tensor:
        worn = degraded_faces(batch["image"], self.ranges, rng)
        if self.shown is None:
            self.shown = batch["image"][:8].detach().clone(), worn[:8].detach().clone()
        return worn

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        images, weights = batch["image"], self.weights
        restored, pictures = self.generator.pyramid(self.degraded(batch, rng))
        losses = {"pixel": weights.pixel * F.l1_loss(restored, images)}
        if weights.pyramid:
            smaller = [F.interpolate(images, size=picture.shape[2:], mode="bilinear", align_corners=False) for picture in pictures]
            losses["pyramid"] = weights.pyramid * torch.stack([F.l1_loss(p, s) for p, s in zip(pictures, smaller, strict=True)]).sum()
        if self.features is not None and weights.perceptual:
            layers = LAYER_WEIGHTS if isinstance(self.features, vgg.Vgg) else ()
            losses["perceptual"] = weights.perceptual * feature_l1(self.features, restored, images, layers)
        if self.features is not None and weights.style:
            losses["style"] = weights.style * self.style(restored, images)
        if self.identity is not None and weights.identity:
            wanted = self.identity.embed(images).detach().float()
            losses["identity"] = weights.identity * F.l1_loss(self.identity.embed(restored).float(), wanted)
        if weights.adversarial:
            losses["adversarial"] = weights.adversarial * logistic(self.networks["discriminator"](restored).float(), real=True).mean()
        return losses | (self.component_losses(restored, images) if weights.component else {})

    def style(self, restored: Tensor, images: Tensor) -> Tensor:
        """Distance of the correlations of feature maps."""
        with torch.no_grad():
            wanted = [judges.gram(x) for x in self.features.features(images)]
        return torch.stack([F.l1_loss(judges.gram(x), y) for x, y in zip(self.features.features(restored), wanted, strict=True)]).sum()

    def crops(self, images: Tensor, name: str) -> Tensor:
        side = round(self.config.size * (120 if name == "mouth" else 80) / 512 / 8) * 8
        return judges.component(images, self.boxes[name], max(side, 16))

    def component_losses(self, restored: Tensor, images: Tensor) -> Losses:
        """Eq. 8: what the judges of components say, and how far their maps correlate otherwise (the finer ones count half)."""
        game, style = [], []
        for name in self.boxes:
            network: Any = self.networks[name]
            logits, maps = network.judged(self.crops(restored, name))
            with torch.no_grad():
                wanted = network.judged(self.crops(images, name))[1]
            game.append(vanilla(logits.float(), True, True))
            fine, coarse = (F.l1_loss(judges.gram(x), judges.gram(y)) for x, y in zip(maps, wanted, strict=True))
            style.append(0.5 * fine + coarse)
        return {
            "component": self.weights.component * torch.stack(game).sum(),
            "component_style": self.weights.component_style * torch.stack(style).sum(),
        }

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        with torch.no_grad():
            restored = self.generator(self.degraded(batch, rng))
        network = self.networks["discriminator"]
        fake, real = network(restored).float(), network(batch["image"]).float()
        return {"fake": logistic(fake, real=False).mean(), "real": logistic(real, real=True).mean()}

    def r1_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002 - nothing is drawn
        images = batch["image"].detach().requires_grad_()
        return {"r1": r1(self.networks["discriminator"](images).float(), images).mean() * (self.weights.gamma / 2)}

    def component_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        with torch.no_grad():
            restored = self.generator(self.degraded(batch, rng))
        return {
            name: vanilla(self.networks[name](self.crops(restored, name)).float(), False)
            + vanilla(self.networks[name](self.crops(batch["image"], name)).float(), True)
            for name in self.boxes
        }

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Eight degraded faces of the first batch, as they are restored, and what they were."""
        assert self.shown is not None, "samples are drawn after a step"
        images, worn = self.shown
        return torch.cat([worn, networks["generator"](worn).clamp(-1, 1), images])


def embed_prior(decoder: Decoder, prior: Any) -> None:
    """Take over the layers of a StyleGAN2 generator that fit the decoder; it must be of the dialect `original`."""
    theirs, ours = prior.synthesis.state_dict(), decoder.state_dict()
    fit = {name: tensor for name, tensor in theirs.items() if name in ours and ours[name].shape == tensor.shape}
    decoder.load_state_dict({**ours, **fit})


def objective(
    config: Config,
    seed: int = 0,
    *,
    generator: Any = None,
    features: Any = None,
    identity: Any = None,
    degradation: str = "gfpgan",
    tune: bool = False,
    weights: Mapping[str, float] | None = None,
    lr: float = 2e-3,
) -> Objective:
    """Make the objective; `generator`, `features`, `identity` are trained networks, `weights` replaces factors of `Weights` by name."""
    frozen = {"generator": generator, "features": features, "identity": identity}
    with drawing(seed):
        return Objective(config, **frozen, degradation=degradation, tune=tune, weights=Weights(**(weights or {})), lr=lr)


# ------------------------------------------------------------------------------------------------------ published weights


def config_of(state: State, kind: Kind) -> Config:
    """Infer the configuration from shapes. `bilinear` has the names and shapes of `original`, which is taken for it."""
    return Config(kind=kind, **layouts.fields(state, plain=kind == "clean"))


def has_decoder(state: State, first: str) -> bool:
    return first in state and "stylegan_decoder.constant_input.weight" in state and "condition_scale.0.0.weight" in state


def component_judge(config: Config) -> judges.ComponentJudge:
    return judges.ComponentJudge(config.component_width)


def identity_network(config: Config) -> judges.GreyIdentity:
    return judges.GreyIdentity(judges.Shape(config.identity_depths, config.identity_squeeze))


def component_config(state: State) -> Config:
    return Config(component_width=len(state["conv1.1.bias"]))


def identity_config(state: State) -> Config:
    shape = judges.shape_of(state)
    return Config(identity_depths=shape.depths, identity_squeeze=shape.squeeze)


def is_component(state: State) -> bool:
    return all(name in state for name in ("conv1.0.weight", "conv2.1.weight", "conv5.1.bias", "final_conv.0.bias"))


COMPONENT_NAMES = ((r"(conv\d|final_conv)\.\d\.(weight|bias)", r"\1.\2"),)


def clean(state: State) -> bool:
    return has_decoder(state, "conv_body_first.weight")


def original(state: State) -> bool:
    return has_decoder(state, "conv_body_first.0.weight")


PUBLISHED = [
    Published("generator", "clean", clean, lambda s: config_of(s, "clean"), Generator, layouts.names_of),
    Published("generator", "original", original, lambda s: config_of(s, "original"), Generator, layouts.names_of),
    Published("component", "gfpgan", is_component, component_config, component_judge, COMPONENT_NAMES),
    Published("identity", "gfpgan", judges.is_identity, identity_config, identity_network),
]

NETWORKS = {
    "generator": Generator,
    "discriminator": judge,
    "component": component_judge,
    "left_eye": component_judge,
    "right_eye": component_judge,
    "mouth": component_judge,
    "identity": identity_network,
}

WIDTHS, HALVED = (512, 512, 512, 512, 256, 128, 64, 32), (256, 256, 256, 256, 128, 64, 32, 16)
PORTRAITS = Config(
    "original",
    64,
    256,
    4,
    (256, 256, 160, 96, 48),
    (96, 96, 64, 48, 24),
    template="ffhq",
    component_width=16,
    judge_channels=(96, 96, 64, 32, 16),
)
LEARNT = {
    "generator": "limn-portraits64",
    "features": "limn-identity",
    "identity": "limn-identity",
    "degradation": "portraits64",
    "tune": True,
    "weights": {"pixel": 2.0, "perceptual": 0.3, "style": 0.0, "adversarial": 0.0, "component": 0.0, "identity": 1.0},
}
PRESETS = {
    "ffhq-512": Preset(
        Config("original", channels=WIDTHS, unet=HALVED), "images", 12, 800_000, {"features": "vgg-vgg19"}, ema_kimg=10, ema_ramp=0.0
    ),
    "portraits64": Preset(
        PORTRAITS,
        "images",
        16,
        600,
        LEARNT,
        ema_kimg=4,
        decay="half",
        reading={"where": ["era=modern", "chroma>2"]},
        reaches="21.53 dB on 136 worn portraits of people held out, resampled 20.78, after 545 steps; six minutes on a CPU",
    ),
}

CARD = Card(
    name="gfpgan",
    title="GFPGAN",
    chapter="restoration",
    year=2021,
    arxiv="2101.04061",
    verbs=("restore", "train"),
    weights_licence="Apache-2.0 apart from third-party parts; trained on FFHQ (CC BY-NC-SA 4.0) with a StyleGAN2",
    source="TencentARC/GFPGAN",
)

"""pSp: a feature pyramid that reads one style per layer of StyleGAN2 out of an image.

A residual trunk is tapped at three resolutions; a small convolutional network per style turns its map into the code of one
layer of the frozen generator, as an offset from the average code. One forward pass replaces the optimisation of a latent.
Richardson et al.: Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation. CVPR 2021, arXiv 2008.00951.
Differs: Adam in place of Ranger; the width of the style networks and of the trunk can be chosen. Reproduced: the published
encoders, codes and images within 1e-3 (tests/parity).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks import irse
from limn.blocks.equalized import EqualLinear
from limn.blocks.irse import Trunk
from limn.errors import TrainingError
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing


class Features(Protocol):
    """A frozen network that compares pictures: aligned images (N, 3, H, W) in [-1, 1] -> feature maps."""

    def features(self, images: Tensor) -> Sequence[Tensor]: ...


class Identity(Protocol):
    """A frozen network that compares people: aligned images (N, 3, H, W) in [-1, 1] -> embeddings (N, D)."""

    def embed(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Config:
    channels_in: int = 3  # 1 for sketches, 19 for segmentation maps
    stem: int = 64  # channels after the first convolution
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of the four stages of the trunk, all different
    units: tuple[int, ...] = (3, 4, 14, 3)  # residual units of each stage: IR-SE-50
    size: int = 256  # pixels of the input image
    w_dim: int = 512  # components of one code
    num_ws: int = 18  # codes: 2 log2(pixels of the generator) - 2
    style_width: int = 512  # channels inside the network of one style
    coarse: int = 3  # styles below this read the coarsest map, 1/16 of the input
    middle: int = 7  # styles from `coarse` below this read the 1/8 map, the others the 1/4 map
    head: Literal["pyramid", "w", "w_plus"] = "pyramid"  # one network per style, or the baselines of table 1 from the last map only

    @property
    def trunk(self) -> Trunk:
        """Shape of the residual trunk."""
        return Trunk(self.channels_in, self.stem, tuple(self.widths), tuple(self.units))


class StyleHead(nn.Module):
    """map2style: stride-2 convolutions down to one pixel, then a linear layer; (N, C, pixels, pixels) -> (N, w_dim)."""

    def __init__(self, inputs: int, width: int, w_dim: int, pixels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(pixels))):
            layers += [nn.Conv2d(inputs, width, 3, 2, padding=1), nn.LeakyReLU()]
            inputs = width
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(width, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class Encoder(nn.Module):
    """Images (N, channels_in, size, size) in [-1, 1] -> W+ codes (N, num_ws, w_dim), one style network per layer."""

    latent_avg: Tensor

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        trunk, pixels = config.trunk, config.size // 16
        self.config = config
        self.input_layer, self.body = irse.stem(trunk), irse.body(trunk)
        width = trunk.widths[-1]
        self.styles = nn.ModuleList(
            StyleHead(width, config.style_width, config.w_dim, pixels << self.level(index)) for index in range(config.num_ws)
        )
        self.latlayer1 = nn.Conv2d(trunk.widths[-2], width, 1)
        self.latlayer2 = nn.Conv2d(trunk.widths[-3], width, 1)
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, config.w_dim))

    def level(self, index: int) -> int:
        """Which map style `index` reads: 0 the coarsest, 2 the finest."""
        return 0 if index < self.config.coarse else 1 if index < self.config.middle else 2

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the maps at 1/16, 1/8 and 1/4 of the input, all as wide as the last stage."""
        *_, fine, middle, coarse = irse.stages(self.config.trunk, self.body, self.input_layer(images))
        middle = widen(coarse, self.latlayer1(middle))
        return coarse, middle, widen(middle, self.latlayer2(fine))

    def codes(self, images: Tensor) -> Tensor:
        """Return the codes as offsets from the average: (N, num_ws, w_dim)."""
        maps = self.pyramid(images)
        return torch.stack([style(maps[self.level(index)]) for index, style in enumerate(self.styles)], 1)

    def encode(self, images: Tensor) -> Tensor:
        """Return the W+ codes of aligned images: (N, num_ws, w_dim)."""
        return self.codes(fitted(images, self.config.size)) + self.latent_avg

    forward = encode


class WEncoder(nn.Module):
    """The "naive W" baseline: the mean of the last map gives one code for all layers."""

    latent_avg: Tensor

    def __init__(self, config: Config = Config(head="w")) -> None:
        super().__init__()
        self.config = config
        self.input_layer, self.body = irse.stem(config.trunk), irse.body(config.trunk)
        self.linear = EqualLinear(config.trunk.widths[-1], config.w_dim)
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, config.w_dim))

    def codes(self, images: Tensor) -> Tensor:
        """Return the code as an offset from the average: (N, w_dim)."""
        return self.linear(self.body(self.input_layer(images)).mean((2, 3)))

    def encode(self, images: Tensor) -> Tensor:
        """Return the W+ codes of aligned images, all layers alike: (N, num_ws, w_dim)."""
        return self.codes(fitted(images, self.config.size)).unsqueeze(1) + self.latent_avg

    forward = encode


class WPlusEncoder(nn.Module):
    """The "naive W+" baseline: one linear layer reads all codes from the last map."""

    latent_avg: Tensor

    def __init__(self, config: Config = Config(head="w_plus")) -> None:
        super().__init__()
        self.config = config
        width = config.trunk.widths[-1]
        self.input_layer, self.body = irse.stem(config.trunk), irse.body(config.trunk)
        self.output_layer_2 = nn.Sequential(
            nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(width * 49, config.style_width)
        )
        self.linear = EqualLinear(config.style_width, config.num_ws * config.w_dim)
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, config.w_dim))

    def codes(self, images: Tensor) -> Tensor:
        """Return the codes as offsets from the average: (N, num_ws, w_dim)."""
        x = self.linear(self.output_layer_2(self.body(self.input_layer(images))))
        return x.unflatten(1, (self.config.num_ws, self.config.w_dim))

    def encode(self, images: Tensor) -> Tensor:
        """Return the W+ codes of aligned images: (N, num_ws, w_dim)."""
        return self.codes(fitted(images, self.config.size)) + self.latent_avg

    forward = encode


def widen(coarse: Tensor, fine: Tensor) -> Tensor:
    """Add the coarser map, enlarged bilinearly to the size of the finer one."""
    return F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True) + fine


def fitted(images: Tensor, size: int) -> Tensor:
    """Bring images of any size to size×size, with anti-aliasing."""
    if images.shape[-1] == size and images.shape[-2] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def build(config: Config) -> nn.Module:
    """Make the encoder that the configuration names."""
    kinds: dict[str, Callable[[Config], nn.Module]] = {"pyramid": Encoder, "w": WEncoder, "w_plus": WPlusEncoder}
    return kinds[config.head](config)


def mixed(codes: Tensor, layers: Sequence[int], other: Tensor | None = None, alpha: float = 1.0) -> Tensor:
    """Replace `layers` of codes (N, num_ws, w_dim) by `other`, in part where alpha < 1; without `other` by zero (section 4.4)."""
    codes = codes.clone()
    for layer in layers:
        codes[:, layer] = 0 if other is None else alpha * other[:, layer] + (1 - alpha) * codes[:, layer]
    return codes


def face_crop(images: Tensor, side: int | None = None) -> Tensor:
    """Cut the face as ArcFace wants it out of FFHQ-aligned images (N, 3, H, W): (N, 3, 112, 112).

    Rows 35:223 and columns 32:220 of 256 are scaled to the `side` of the image; the published code takes 256 whatever the image.
    """
    unit = (side or images.shape[-1]) / 256
    rows, columns = slice(round(35 * unit), round(223 * unit)), slice(round(32 * unit), round(220 * unit))
    return F.adaptive_avg_pool2d(images[:, :, rows, columns], 112)


class ArcFaceView:
    """Shows FFHQ-aligned images to an ArcFace `network`, which wants the 112 pixels about the face."""

    def __init__(self, network: Callable[[Tensor], Tensor], side: int | None = None) -> None:
        self.network, self.side = network, side

    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (N, D) of images (N, 3, H, W)."""
        return self.network(face_crop(images, self.side))


def identity_distance(identity: Identity, images: Tensor, targets: Tensor) -> Tensor:
    """One minus the cosine of the embeddings, per sample (eq. 4)."""
    with torch.no_grad():
        wanted = identity.embed(targets)
    return 1 - F.cosine_similarity(identity.embed(images).float(), wanted.float())


def perceptual_distance(network: Features, images: Tensor, targets: Tensor) -> Tensor:
    """Distance of unit-length feature vectors, summed over channels and maps, averaged over pixels: LPIPS with even weights."""
    with torch.no_grad():
        wanted = [F.normalize(x.float(), eps=1e-8) for x in network.features(targets)]
    maps = [F.normalize(x.float(), eps=1e-8) for x in network.features(images)]
    return torch.stack([(x - y).square().sum(1).mean((1, 2)) for x, y in zip(maps, wanted, strict=True)]).sum(0)


@dataclass(frozen=True)
class Weights:
    """Factors of the terms of eq. 6; the defaults are those of the FFHQ encoder."""

    l2: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1
    norm: float = 0.0  # 0.005 for sketches, segmentation maps, super-resolution and frontalisation


class Objective:
    """Trains an encoder into a frozen generator so that what it encodes comes out again (or the target, where a batch has one).

    `features` and `identity` are frozen networks; without them their terms are left out.
    """

    averaged = ("encoder",)

    def __init__(
        self,
        config: Config,
        *,
        generator: Any,
        features: Features | None,
        identity: Identity | None,
        weights: Weights,
        lr: float,
        seed: int,
    ) -> None:
        config = replace(config, w_dim=generator.config.w_dim, num_ws=generator.num_ws)
        self.encoder = seeded_build(build, config, seed)
        self.encoder.latent_avg.copy_(generator.w_avg.expand(config.num_ws, -1))
        self.networks = nn.ModuleDict({"encoder": self.encoder})
        self.config, self.generator, self.features, self.identity = config, generator, features, identity
        self.weights, self.lr = weights, lr

    def encoder_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Eq. 6 for a batch with `image` and, where the task is a translation, `target`."""
        codes = self.encoder(batch["image"])
        image = self.generator.synthesis(codes).float()
        target = fitted(batch.get("target", batch["image"]), image.shape[-1])
        losses = resemblance(self.weights, image, target, self.features, self.identity)
        if self.weights.norm:
            losses["norm"] = self.weights.norm * torch.linalg.matrix_norm(codes - self.encoder.latent_avg).mean()
        return losses

    def phases(self) -> list[Phase]:
        """Return the one player."""
        return [Phase("encoder", self.encoder.parameters, self.encoder_loss, Adam(self.lr))]


def resemblance(weights: Any, images: Tensor, targets: Tensor, features: Features | None, identity: Identity | None) -> Losses:
    """Weigh up how far images are from targets: pixels, features, identity (eqs. 2 to 4)."""
    losses = {"l2": weights.l2 * F.mse_loss(images, targets)}
    if features is not None and weights.perceptual:
        losses["perceptual"] = weights.perceptual * perceptual_distance(features, images, targets).mean()
    if identity is not None and weights.identity:
        losses["identity"] = weights.identity * identity_distance(identity, images, targets).mean()
    return losses


def seeded_build(make: Callable[[Any], nn.Module], config: Any, seed: int) -> Any:
    """Build a network whose first weights depend on the seed alone; the global random state stays as it was."""
    with drawing(seed):
        return make(config)


def objective(
    config: Config,
    seed: int = 0,
    *,
    generator: Any = None,
    features: Features | None = None,
    identity: Identity | None = None,
    weights: Weights = Weights(),
    lr: float = 1e-4,
) -> Objective:
    """Make the objective of the encoder for a frozen `generator` (its W+ decides the number and size of the codes)."""
    if generator is None:
        raise TrainingError("an encoder is trained for a generator: give the name or file of one")
    return Objective(config, generator=generator, features=features, identity=identity, weights=weights, lr=lr, seed=seed)


def has_pyramid(state: State) -> bool:
    """Tell whether these are the keys of a pyramid encoder; e4e has the very same ones."""
    return "styles.0.convs.0.weight" in state and "latlayer2.weight" in state and "body.0.res_layer.1.weight" in state


def pyramid_of(state: State) -> Config:
    """Infer the configuration of a pyramid encoder from its shapes; the depth of a style network tells what it reads."""
    num_ws = sum(name.endswith(".linear.weight") and name.startswith("styles.") for name in state)
    depths = [sum(f"styles.{index}.convs.{2 * layer}.weight" in state for layer in range(12)) for index in range(num_ws)]
    coarse = sum(depth == depths[0] for depth in depths)
    middle = coarse + sum(depth == depths[0] + 1 for depth in depths)
    w_dim, width = state["styles.0.linear.weight"].shape
    return Config(**trunk_fields(state), size=16 << depths[0], w_dim=w_dim, num_ws=num_ws, style_width=width, coarse=coarse, middle=middle)


def last_map_of(state: State) -> Config:
    """Infer the configuration of a baseline encoder; how many layers the one code of "naive W" serves, shapes do not say: at most 18."""
    outputs, width = state["linear.weight"].shape
    if "output_layer_2.3.weight" in state:
        return Config(**trunk_fields(state), w_dim=512, num_ws=outputs // 512, style_width=width, head="w_plus")
    return Config(**trunk_fields(state), w_dim=outputs, num_ws=18, style_width=width, head="w")


def trunk_fields(state: State) -> dict[str, Any]:
    """Infer the fields of the configuration that describe the trunk."""
    trunk = irse.trunk_of(state)
    return {"channels_in": trunk.channels_in, "stem": trunk.stem, "widths": trunk.widths, "units": trunk.units}


def with_average(state: State) -> State:
    """Give an encoder's entries an average code: the file's own, or zero where it was trained without one."""
    config = last_map_of(state) if "linear.weight" in state else pyramid_of(state)
    average = state.get("latent_avg", torch.zeros(config.w_dim)).reshape(-1, config.w_dim)
    average = average[:1] if config.head == "w" else average
    return {**state, "latent_avg": average.expand(config.num_ws, -1).clone()}


NETWORKS = {"encoder": build}

PRESETS = {
    "ffhq-1024": Preset(Config(), data="images", batch=8, steps=500_000),
}

AVERAGE = [("latent_avg", "latent_avg")]  # lies beside the state dict in the published files

# A published file holds "encoder.*", "decoder.*" and "latent_avg"; the decoder is the rosinality layout of stylegan2.
PUBLISHED = [
    Published("encoder", "gradual", has_pyramid, pyramid_of, build, AVERAGE, with_average),
    Published(
        "encoder",
        "last-map",
        lambda state: "linear.weight" in state and "body.0.res_layer.1.weight" in state and "output_layer.3.weight" not in state,
        last_map_of,
        build,
        AVERAGE,
        with_average,
    ),
]

CARD = Card(
    name="psp",
    title="pixel2style2pixel",
    chapter="inversion",
    year=2021,
    arxiv="2008.00951",
    verbs=("invert", "translate", "train"),
    weights_licence="MIT code; FFHQ images CC BY-NC-SA 4.0 and the StyleGAN2 weights are for non-commercial use",
    source="eladrich/pixel2style2pixel",
)

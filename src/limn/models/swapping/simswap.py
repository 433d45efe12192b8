"""SimSwap: the target's picture through an encoder, the source's identity into the middle by AdaIN, and a decoder.

The identity blocks change whose face it is; that pose, expression and light stay is asked of deep features of a discriminator alone
(weak feature matching), so that one network swaps any face onto any other.
Chen, Chen, Ni, Ge: SimSwap: An Efficient Framework For High Fidelity Face Swapping. ACM MM 2020, arXiv 2106.06340.
Differs: a batch holds pairs of one identity and of two side by side, where the published trainer alternates; `portraits64` learns a
change of the target (`residual`), looks at glimpses of the result for its identity, and compares its mesh with the one wanted, so that
it learns on a CPU. The frozen features of a projected discriminator come with a published file (`--init`), else they are as drawn. Files
of the published training script have the names of the 224 network and another range (`domain`), which no tensor tells. Reproduced: the
published networks and losses within 1e-4 (tests/parity); figures of our own recipe at its preset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.patch import PatchDiscriminator
from limn.errors import TrainingError
from limn.losses import games
from limn.models.records import Adam, Card, Losses, Names, Phase, Preset, Published, State, drawing
from limn.models.swapping import simswap_shape
from limn.models.swapping.simswap_identity import Backbone, ResNet, backbone_of, from_imagenet, to_imagenet
from limn.models.swapping.simswap_judges import (
    PATCH_NAMES,
    PROJECTED_NAMES,
    Judge,
    ProjectedDiscriminator,
    patch_of,
    patches,
    projected_of,
)

HIDDEN = 0.98  # of the range of a residual network's target: what it adds to must not lie at infinity


class Identity(Protocol):
    """A frozen network that says who it is: aligned images (N, 3, H, W) in [-1, 1] -> embeddings (N, D)."""

    def embed(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Config:
    size: int = 224  # pixels of the aligned faces
    latent: int = 512  # numbers that say who it is
    gain: float = 1.0  # of the identity's length 1 before the styles: the root of `latent` gives numbers of unit variance, learnt sooner
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of the first layer, and after each halving
    blocks: int = 9  # identity blocks
    domain: Literal["unit", "imagenet"] = "unit"  # of the pictures inside: [0, 1] by tanh, or ImageNet-normalised by no activation
    template: str = "simswap-poses"  # how faces are aligned
    residual: bool = False  # what the network paints is added to the target, before the tanh ("unit" only)
    judge: Judge = field(default_factory=Judge)  # the discriminator
    backbone: Backbone = field(default_factory=Backbone)  # the published identity network


# ---------------------------------------------------------------------------------------------------------------------- generator


class Style(nn.Module):
    """AdaIN: normalise every channel over its pixels (biased variance), then scale and shift as the identity says."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(latent, 2 * channels)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        scale, shift = self.linear(latent)[..., None, None].chunk(2, 1)
        x = x - x.mean((2, 3), keepdim=True)
        x = x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + 1e-8)
        return x * (scale + 1) + shift


class Block(nn.Module):
    """Two convolutions with the identity after each, added to the input."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect") for _ in range(2))
        self.style1, self.style2 = (Style(latent, channels) for _ in range(2))

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        y = F.relu(self.style1(self.conv1(x), latent))
        return x + self.style2(self.conv2(y), latent)


def normed(inputs: int, outputs: int, side: int, stride: int = 1, mode: Literal["zeros", "reflect"] = "zeros") -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, padding_mode=mode)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Generator(nn.Module):
    """Targets (N, 3, H, W) in the range of `domain` and identities (N, latent) of unit length -> swapped faces in that range."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config, widths = config, config.widths
        pairs = list(pairwise(widths))
        self.first = normed(3, widths[0], 7, mode="reflect")
        self.down = nn.ModuleList(normed(inputs, outputs, 3, 2) for inputs, outputs in pairs)
        self.blocks = nn.ModuleList(Block(widths[-1], config.latent) for _ in range(config.blocks))
        self.up = nn.ModuleList(normed(outputs, inputs, 3) for inputs, outputs in pairs)  # outermost first, as `down`
        self.last = nn.Conv2d(widths[0], 3, 7, padding=3, padding_mode="reflect")

    @property
    def size(self) -> int:
        """Pixels a side of the aligned faces."""
        return self.config.size

    @property
    def template(self) -> str:
        """Name of the alignment."""
        return self.config.template

    def encode(self, images: Tensor) -> Tensor:
        """Return the map that identity is put into."""
        x = self.first(images)
        for step in self.down:
            x = step(x)
        return cast(Tensor, x)

    def decode(self, x: Tensor) -> Tensor:
        """Return what the last layer paints, before any activation."""
        for step in reversed(list(self.up)):
            x = step(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
        return cast(Tensor, self.last(x))

    def forward(self, images: Tensor, latent: Tensor) -> Tensor:
        x, latent = self.encode(images), self.config.gain * latent
        for block in self.blocks:
            x = block(x, latent)
        painted = self.decode(x)
        if self.config.domain == "imagenet":
            return painted
        if self.config.residual:
            painted = painted + torch.atanh(HIDDEN * (2 * images.float().clamp(0, 1) - 1))
        return (torch.tanh(painted) + 1) / 2

    def swap(self, targets: Tensor, identities: Tensor) -> Tensor:
        """Give aligned faces (N, 3, H, W) in [-1, 1] the identities (N, latent) of any length."""
        latent = F.normalize(identities)
        if self.config.domain == "imagenet":
            return from_imagenet(self(to_imagenet(targets), latent))
        return self((targets + 1) / 2, latent) * 2 - 1


def discriminator(config: Config) -> nn.Module:
    """Make the discriminator that the configuration names."""
    return patches(config.judge) if config.judge.kind == "patch" else ProjectedDiscriminator(config.judge)


def identity(config: Config) -> nn.Module:
    """Make the published identity network."""
    return ResNet(config.backbone)


# ------------------------------------------------------------------------------------------------------------------------- losses


@dataclass(frozen=True)
class Weights:
    """Factors of the terms; the defaults are those of the released trainer."""

    identity: float = 30.0
    features: float = 10.0
    reconstruction: float = 10.0
    shape: float = 0.0  # of the mesh (ours)
    first: int = -1  # the features that are matched begin with this one: -1 the deepest alone (weak), 0 all of them


def identity_distance(one: Tensor, other: Tensor) -> Tensor:
    """One minus the cosine of embeddings (N, D), per sample (eq. 4)."""
    return 1 - F.cosine_similarity(one.float(), other.float())


def matching(fake: list[Tensor], real: list[Tensor], first: int = -1) -> Tensor:
    """Mean absolute difference of the features from `first` on, summed (weak feature matching, eq. 9)."""
    return torch.stack([F.l1_loss(x, y.detach()) for x, y in zip(fake[first:], real[first:], strict=True)]).sum()


def matching_over_scales(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """Feature matching of the paper's code: all features of every discriminator but its logits, weighed 4 / features / discriminators."""
    parts = [matching(x[:-1], y[:-1], 0) * 4 / (len(x) - 1) for x, y in zip(fake, real, strict=True)]
    return torch.stack(parts).mean()


def halved(images: Tensor) -> Tensor:
    """The picture as the second patch discriminator sees it."""
    return F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)


def moved(images: Tensor, rng: torch.Generator, reach: float = 0.06) -> Tensor:
    """Shift, turn and scale images (N, 3, H, W) a little, each by itself, and mirror half of them: no pixel pattern survives it."""
    shift, turn, grow = (reach * (2 * torch.rand(len(images), 2, generator=rng) - 1) for _ in range(3))
    sign = torch.where(torch.rand(len(images), generator=rng) < 0.5, -1.0, 1.0)
    a, b = 1 + grow[:, 0], 2 * turn[:, 0]
    theta = torch.stack([torch.stack([a * sign, -b, shift[:, 0]], 1), torch.stack([b * sign, a, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)


def glimpsed(images: Tensor, rng: torch.Generator) -> Tensor:
    """See images (N, 3, H, W) moved, at a lower resolution, in another light: what still tells who it is can be seen by people too."""
    images = moved(images, rng)
    size = int(torch.randint(images.shape[-1] * 3 // 8, images.shape[-1] + 1, (), generator=rng))
    small = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    images = F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)
    gain = 1 + 0.2 * (2 * torch.rand(len(images), 3, 1, 1, generator=rng).to(images.device) - 1)
    return ((images + 1) * gain - 1).clamp(-1, 1)


class Objective:
    """Batches of `image` (2n, 3, size, size) in [-1, 1] whose rows 2i and 2i + 1 show one person: even rows are targets, odd ones sources.

    A share of the targets (`same`) keep their identity and must come out as they were; the others take that of another pair.
    """

    averaged = ("generator",)

    def __init__(
        self, config: Config, frozen: tuple[Identity, Any], weights: Weights, adam: Adam, same: float, views: int, seed: int
    ) -> None:
        with drawing(seed):
            self.generator, judge = Generator(config), discriminator(config)
            if config.residual:
                nn.init.normal_(self.generator.last.weight, std=1e-3)  # begins as the target itself
            self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": judge})
            if config.judge.kind == "patch":
                self.networks["discriminator_small"] = discriminator(config)
        self.identity, self.config, self.weights, self.adam = frozen[0], config, weights, adam
        self.landmarks = frozen[1]
        self.same, self.views = same, views
        self.shown: Mapping[str, Tensor] = {}

    def pairs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return targets, sources and which of them show one person: the first ones."""
        targets, sources = batch["image"][0::2], batch["image"][1::2]
        same = torch.arange(len(targets), device=targets.device) < max(round(self.same * len(targets)), 1)
        return targets, torch.where(same[:, None, None, None], sources, sources.roll(1, 0)), same

    def embed(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return embeddings (N, D), or the mean of those of glimpses where the recipe asks for `views`."""
        if not self.views:
            return self.identity.embed(images)
        return torch.stack([self.identity.embed(glimpsed(images, rng)) for _ in range(self.views)]).mean(0)

    def judged(self, images: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return logits and features of every discriminator."""
        if self.config.judge.kind == "projected":
            logits, maps = self.networks["discriminator"](to_imagenet(images))
            return [logits], [maps]
        large, small = (cast(PatchDiscriminator, self.networks[name]) for name in ("discriminator", "discriminator_small"))
        maps = [large.features(images), small.features(halved(images))]
        return [each[-1] for each in maps], [each[:-1] for each in maps]

    def generator_loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        """Eq. 11."""
        self.shown = self.shown or {"image": batch["image"][-16:]}
        targets, sources, same = self.pairs(batch)
        with torch.no_grad():
            wanted = self.embed(sources, rng)
        fake = self.generator.swap(targets, wanted)
        batch["fake"] = fake.detach()  # for the discriminator, whose turn is next
        logits, features = self.judged(fake)
        with torch.no_grad():
            real = self.judged(targets)[1]
        weak = torch.stack([matching(x, y, self.weights.first) for x, y in zip(features, real, strict=True)]).mean()
        losses = {} if self.landmarks is None else {"shape": self.weights.shape * self.shape_distance(fake, sources, targets)}
        return losses | {
            "gan": games.over_scales(games.hinge, logits, True, True),
            "identity": self.weights.identity * identity_distance(self.embed(fake, rng), wanted).mean(),
            "features": self.weights.features * weak,
            "reconstruction": self.weights.reconstruction * F.l1_loss(fake[same], targets[same]),
        }

    def shape_distance(self, fake: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        """Compare the mesh with that of the source's face in the target's pose and expression."""
        with torch.no_grad():
            shape = simswap_shape.wanted(simswap_shape.points(self.landmarks, sources), simswap_shape.points(self.landmarks, targets))
        return simswap_shape.distance(simswap_shape.points(self.landmarks, fake), shape).mean()

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Hinge on sources, which are real, and on the swapped targets of the generator's turn."""
        real, made = self.judged(self.pairs(batch)[1])[0], self.judged(batch["fake"])[0]
        return {"real": games.over_scales(games.hinge, real, True), "fake": games.over_scales(games.hinge, made, False)}

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Return targets, sources and swapped faces of the first batch, eight of each."""
        targets, sources = self.shown["image"][0::2], self.shown["image"][1::2].roll(1, 0)
        return torch.cat([targets, sources, cast(Generator, networks["generator"]).swap(targets, self.identity.embed(sources))])

    def phases(self) -> list[Phase]:
        """Return both players, the generator first, as published."""
        return [
            Phase("generator", self.generator.parameters, self.generator_loss, self.adam),
            Phase("discriminator", self.judge_parameters, self.discriminator_loss, self.adam),
        ]

    def judge_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what the discriminators learn: not the frozen features of a projected one."""
        for name, network in self.networks.items():
            if name != "generator":
                learns = network.heads if isinstance(network, ProjectedDiscriminator) else network
                yield from learns.parameters()


def objective(
    config: Config,
    seed: int = 0,
    *,
    identity: Any = None,
    landmarks: Any = None,
    weights: Weights = Weights(),
    lr: float = 4e-4,
    same: float = 0.5,
    views: int = 0,
) -> Objective:
    """Make the objective; the frozen `identity` network says who is who, and the length of its embeddings is the generator's.

    With frozen `landmarks` (limn-mesh) the face takes the source's shape too.
    """
    if identity is None:
        raise TrainingError("a swapper learns from an identity network: give the name or file of one with --set identity=limn-identity")
    place = next(identity.parameters()).device
    with torch.no_grad():
        latent = identity.embed(torch.zeros(1, 3, config.size, config.size, device=place)).shape[1]
    return Objective(replace(config, latent=latent), (identity, landmarks), weights, Adam(lr, (0.0, 0.99)), same, views, seed)


# ------------------------------------------------------------------------------------------------------------- published weights


def generator_names(outermost: int) -> Names:
    """Names of the published generators, whose outermost halving is number 0 (the 512 network) or 1."""
    steps = range(outermost, outermost + 6)
    return [
        *((rf"first_layer\.{old}\.(.*)", rf"first.{old - 1}.\1") for old in (1, 2)),
        *((rf"down{n}\.(.*)", rf"down.{n - outermost}.\1") for n in steps),
        *((rf"up{n}\.{old}\.(.*)", rf"up.{n - outermost}.{old - 1}.\1") for n in steps for old in (1, 2)),
        (r"BottleNeck\.(\d+)\.conv(\d)\.1\.(.*)", r"blocks.\1.conv\2.\3"),
        (r"BottleNeck\.(.*)", r"blocks.\1"),
        (r"last_layer\.1\.(.*)", r"last.\1"),
    ]


def generator_of(state: State, size: int, template: str) -> Config:
    """Config of a generator from its shapes; five widths without `down0` are what only the training script writes."""
    numbers = sorted(int(name[4]) for name in state if name.startswith("down") and name.endswith(".0.weight"))
    widths = (state["first_layer.1.weight"].shape[0], *(state[f"down{n}.0.weight"].shape[0] for n in numbers))
    blocks = sum(name.endswith(".conv1.1.weight") for name in state)
    latent = state["BottleNeck.0.style1.linear.weight"].shape[1]
    return Config(size, latent, 1.0, widths, blocks, "imagenet" if 4 in numbers else "unit", template)


def has(*names: str, without: str = "") -> Callable[[State], bool]:
    """Make a test for names of a state dict."""
    return lambda state: all(name in state for name in names) and without not in state


def judge_of(state: State) -> Config:
    """Config of a discriminator from its shapes."""
    return Config(judge=patch_of(state) if "down1.0.weight" in state else projected_of(state))


NETWORKS = {
    "generator": Generator,
    "discriminator": discriminator,
    "discriminator_small": discriminator,
    "identity": identity,
}

PRESETS = {
    "vggface2-224": Preset(Config(domain="imagenet"), data="identities", batch=16, steps=500_000, reading={"distorted": False}),
    "portraits64": Preset(
        Config(64, 128, 11.3, (24, 48, 96), 4, template="ffhq", residual=True, judge=Judge("patch", 32, depth=3)),
        data="identities",
        batch=16,
        steps=2400,
        objective={
            "identity": "limn-identity",
            "landmarks": "limn-mesh",
            "weights": Weights(10.0, 2.0, 5.0, 60.0),
            "lr": 7e-4,
            "same": 0.25,
            "views": 1,
        },
        ema_kimg=1.5,
        decay="end",
        reading={"distorted": False, "where": ("era=modern", "chroma>2")},
        reaches="200 unseen portraits: cosine to the source 0.04 -> 0.81 in limn-identity, 0.09 -> 0.78 in one of another seed; pose off "
        "by 0.7 degrees (a copy of the source: 5.1), expression by 0.047 (0.236); 38,400 portraits, 11 minutes on a CPU thread",
    ),
}

GENERATOR = ("first_layer.1.weight", "BottleNeck.0.style1.linear.weight", "down1.0.weight")
PATCHES = ("down1.0.weight", "down2.1.running_mean", "conv1.0.weight", "conv2.0.weight")
PROJECTED = ("feature_network.pretrained.layer0.0.weight", "feature_network.scratch.layer0_ccm.weight")
PUBLISHED = [
    Published(
        "generator",
        "224",
        has(*GENERATOR, without="down0.0.weight"),
        partial(generator_of, size=224, template="simswap-poses"),
        Generator,
        generator_names(1),
    ),
    Published(
        "generator",
        "512",
        has(*GENERATOR, "down0.0.weight"),
        partial(generator_of, size=512, template="simswap-ffhq"),
        Generator,
        generator_names(0),
    ),
    Published("discriminator", "patch", has(*PATCHES, without="BottleNeck.0.style1.linear.weight"), judge_of, discriminator, PATCH_NAMES),
    Published("discriminator", "projected", has(*PROJECTED), judge_of, discriminator, PROJECTED_NAMES),
    Published(
        "identity",
        "improved",
        has("bn3.running_mean", "fc.weight", "layer4.0.bn0.weight", "layer4.0.prelu.weight"),
        lambda state: Config(backbone=backbone_of(state)),
        identity,
    ),
]

CARD = Card(
    name="simswap",
    title="SimSwap",
    chapter="swapping",
    year=2020,
    arxiv="2106.06340",
    verbs=("swap", "train"),
    weights_licence="CC BY-NC 4.0: not for commercial use",
    source="neuralchen/SimSwap",
)

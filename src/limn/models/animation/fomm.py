"""First Order Motion Model: a portrait moved by keypoints that nobody labelled.

A detector finds keypoints with a local affine map (Jacobian) at each; from those of a source and of a driving picture, a network
makes a dense backward flow and says where the source cannot be seen; a generator warps the source's features and paints the rest.
Siarohin, Lathuilière, Tulyakov, Ricci, Sebe: First Order Motion Model for Image Animation. NeurIPS 2019, arXiv 2003.00196.
Differs: images are [-1, 1] outside and [0, 1] inside; sampling is align_corners=True, which the published weights were trained with
(torch 1.0) though their code runs False since (`corners`); losses may compare pixels beside features.
Reproduced: the published networks and losses (tests/parity); benchmarks/learning.py fomm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.hourglass import Down, Hourglass, Residual, Same, Up, widths
from limn.blocks.warp import Reduce, ThinPlate, expected, gaussians, grid, hull, resized, scale_of, warp
from limn.models.animation.judges import (
    SPECTRAL,
    Comparison,
    Discriminator,
    Judge,
    Points,
    Weights,
    equivariant,
    frames_of,
    judge_of,
    levels_of,
)
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing


@dataclass(frozen=True)
class Hour:
    """An hourglass."""

    width: int = 64  # channels of its finest level
    most: int = 1024  # channels that no level exceeds
    levels: int = 5
    scale: float = 0.25  # of the images that it sees


JUDGE = Judge()


@dataclass(frozen=True)
class Config:
    size: int = 256  # pixels of the images it was made for; others work that the hourglasses can halve
    channels: int = 3
    points: int = 10  # keypoints
    jacobian: bool = True
    single_map: bool = False  # one map of Jacobians for all keypoints
    padding: int = 0  # of the keypoint convolution; its map spans [-1, 1] whatever it loses
    temperature: float = 0.1  # of the soft arg max
    variance: float = 0.01  # of the Gaussians about keypoints, units squared
    keypoints: Hour = Hour(width=32)
    motion: Hour = Hour()
    occlusion: bool = True
    width: int = 64  # channels of the generator's first map
    most: int = 512
    downs: int = 2
    blocks: int = 6  # residual blocks at its coarsest
    corners: bool = True  # sampling: -1 and 1 are the centres of the end pixels
    judge: Judge = JUDGE


@dataclass(frozen=True)
class Moved:
    """What the generator made, and how."""

    image: Tensor  # (N, 3, H, W) in [-1, 1]
    flow: Tensor  # (N, h, w, 2) in units: where each pixel comes from
    occlusion: Tensor | None  # (N, 1, h, w): 1 where the source shows it
    mask: Tensor  # (N, K + 1, h, w): which keypoint moves a pixel, the background first
    sparse: Tensor  # (N, K + 1, channels, h, w): the source moved by each
    warped: Tensor  # (N, 3, H, W) in [-1, 1]: the source moved by the flow, nothing painted


class KeypointDetector(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] -> keypoints, and the Jacobian at each (section 3.1)."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        hour, self.config = config.keypoints, config
        self.predictor = Hourglass(config.channels, hour.width, hour.most, hour.levels)
        self.kp = nn.Conv2d(self.predictor.channels, config.points, 7, padding=config.padding)
        maps = 1 if config.single_map else config.points
        self.jacobian = affine_maps(self.predictor.channels, maps, config.padding) if config.jacobian else None
        self.down = Reduce(config.channels, hour.scale) if hour.scale != 1 else None

    def forward(self, images: Tensor) -> Points:
        x = (images + 1) / 2
        x = self.predictor(x if self.down is None else self.down(x))
        logits = self.kp(x).float()
        heat = (logits.flatten(2) / self.config.temperature).softmax(2).view_as(logits)
        found = {"value": expected(heat)}
        if self.jacobian is not None:
            maps = self.jacobian(x).float().unflatten(1, (-1, 4))
            found["jacobian"] = (heat.unsqueeze(2) * maps).sum((3, 4)).unflatten(2, (2, 2))
        return found


def affine_maps(inputs: int, maps: int, padding: int) -> nn.Conv2d:
    """Return the convolution that gives Jacobians: the identity everywhere at first."""
    conv = nn.Conv2d(inputs, 4 * maps, 7, padding=padding)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([1.0, 0, 0, 1]).repeat(maps))
    return conv


class DenseMotion(nn.Module):
    """A source in [0, 1] and two sets of keypoints -> backward flow, occlusion, masks (section 3.2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hour, self.config = config.motion, config
        self.hourglass = Hourglass((config.points + 1) * (config.channels + 1), hour.width, hour.most, hour.levels)
        self.mask = nn.Conv2d(self.hourglass.channels, config.points + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.channels, 1, 7, padding=3) if config.occlusion else None
        self.down = Reduce(config.channels, hour.scale) if hour.scale != 1 else None

    def forward(self, source: Tensor, own: Points, wanted: Points) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        x = source if self.down is None else self.down(source)
        bumps = heat(own["value"], wanted["value"], x.shape[2:], self.config.variance)
        motions = sparse_motions(own, wanted, x.shape[2:])
        seen = seen_by_each(x, motions, self.config.corners)
        features = self.hourglass(torch.cat([bumps.unsqueeze(2), seen], 2).flatten(1, 2))
        mask = self.mask(features).float().softmax(1)
        flow = (motions * mask.unsqueeze(-1)).sum(1)
        occlusion = None if self.occlusion is None else self.occlusion(features).float().sigmoid()
        return flow, occlusion, mask, seen


def heat(own: Tensor, wanted: Tensor, sides: Sequence[int], variance: float) -> Tensor:
    """Return the Gaussians of the driving keypoints less those of the source, zeros for the background first: (N, K + 1, *sides)."""
    bumps = gaussians(wanted, sides, variance) - gaussians(own, sides, variance)
    return torch.cat([torch.zeros_like(bumps[:, :1]), bumps], 1)


def sparse_motions(own: Points, wanted: Points, sides: Sequence[int]) -> Tensor:
    """Return where each pixel comes from if one keypoint moved all (eq. 4), the identity first: (N, K + 1, *sides, dims) in units."""
    places = grid(sides, own["value"])
    spread = (1,) * len(sides)
    count, points, dims = own["value"].shape
    away = places - wanted["value"].view(count, points, *spread, dims)
    if "jacobian" in wanted:
        affine = own["jacobian"] @ torch.linalg.inv(wanted["jacobian"])
        away = (affine.view(count, points, *spread, dims, dims) @ away.unsqueeze(-1)).squeeze(-1)
    moving = away + own["value"].view(count, points, *spread, dims)
    return torch.cat([places.expand(count, 1, *places.shape), moving], 1)


def seen_by_each(x: Tensor, motions: Tensor, corners: bool) -> Tensor:
    """Return maps (N, C, ...) moved by each motion (N, K, ..., dims): (N, K, C, ...)."""
    each = x.unsqueeze(1).expand(-1, motions.shape[1], *(-1,) * (x.ndim - 1)).flatten(0, 1)
    return warp(each.float(), motions.flatten(0, 1), "unit", align_corners=corners).unflatten(0, motions.shape[:2])


class Generator(nn.Module):
    """A source (N, 3, H, W) in [-1, 1], its keypoints and the wanted ones -> the source moved (section 3.3)."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        sizes, self.config = widths(config.width, config.most, config.downs), config
        self.dense_motion_network = DenseMotion(config)
        self.first = Same(config.channels, sizes[0], 7)
        self.down_blocks = nn.ModuleList(Down(a, b) for a, b in pairwise(sizes))
        self.up_blocks = nn.ModuleList(Up(b, a) for a, b in reversed(list(pairwise(sizes))))
        self.bottleneck = nn.ModuleDict({f"r{n}": Residual(sizes[-1]) for n in range(config.blocks)})
        self.final = nn.Conv2d(sizes[0], config.channels, 7, padding=3)

    def forward(self, source: Tensor, own: Points, wanted: Points) -> Moved:
        unit = (source + 1) / 2
        flow, occlusion, mask, sparse = self.dense_motion_network(unit, own, wanted)
        x = self.first(unit)
        for block in self.down_blocks:
            x = block(x)
        x = self.sampled(x, flow)
        if occlusion is not None:
            x = x * F.interpolate(occlusion, size=x.shape[2:], mode="bilinear", align_corners=False)
        for block in self.bottleneck.values():
            x = block(x)
        for block in self.up_blocks:
            x = block(x)
        image = 2 * self.final(x).float().sigmoid() - 1
        return Moved(image, flow, occlusion, mask, sparse, 2 * self.sampled(unit, flow) - 1)

    def sampled(self, maps: Tensor, flow: Tensor) -> Tensor:
        """Return maps seen where the flow, brought to their size, points."""
        return warp(maps.float(), resized(flow, maps.shape[2:]), "unit", align_corners=self.config.corners)


def relative(source: Points, driving: Points, initial: Points, adapt: bool = False) -> Points:
    """Give the source the change of the driving keypoints since the initial ones (section 3.4); `adapt` scales it by the hulls' sizes."""
    scale: Tensor | float = 1.0
    if adapt:
        areas = [torch.stack([hull(one) for one in points["value"]]).sqrt().view(-1, 1, 1) for points in (source, initial)]
        scale = areas[0] / areas[1]
    moved = {"value": source["value"] + scale * (driving["value"] - initial["value"])}
    if "jacobian" in source:
        moved["jacobian"] = driving["jacobian"] @ torch.linalg.inv(initial["jacobian"]) @ source["jacobian"]
    return moved


class Animator:
    """Detector and generator together, as `limn animate` uses them."""

    template = "ffhq"
    parts = ("generator", "kp_detector")

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.generator, self.detector = networks["generator"], networks["kp_detector"]
        self.size: int = self.generator.config.size  # type: ignore[union-attr,assignment]

    @torch.inference_mode()
    def motion(self, images: Tensor) -> Points:
        """Return the keypoints of images (N, 3, S, S) in [-1, 1]."""
        found: Points = self.detector(images)
        return found

    def transferred(self, own: Points, driving: Points, initial: Points) -> Points:
        """Return the keypoints wanted of a source that moves as the driving ones did since the initial ones."""
        return relative(own, driving, initial)

    @torch.inference_mode()
    def moved(self, source: Tensor, own: Points, wanted: Points) -> Moved:
        """Return the source moved, with the flow that did it."""
        made: Moved = self.generator(source, own, wanted)
        return made

    def animate(self, source: Tensor, own: Points, wanted: Points) -> Tensor:
        """Return the source (N, 3, S, S) moved."""
        return self.moved(source, own, wanted).image


# ---------------------------------------------------------------------------------------------------------------------- objective


def discriminator(config: Config) -> Discriminator:
    """Build the discriminator of a configuration."""
    return Discriminator(config.channels, config.judge, config.variance)


class Objective:
    """Trains detector and generator to rebuild one frame of a clip from another."""

    averaged = ("generator", "kp_detector")

    def __init__(self, config: Config, features: Any, weights: Weights, scales: Sequence[float], lr: float) -> None:
        self.config, self.weights, self.lr = config, weights, lr
        self.compare = Comparison(config.channels, features, weights, scales, config.judge)
        parts: dict[str, nn.Module] = {"generator": Generator(config), "kp_detector": KeypointDetector(config)}
        if weights.judged:
            parts["discriminator"] = discriminator(config)
        self.networks = nn.ModuleDict(parts)
        self.shown: tuple[Tensor, Tensor] | None = None

    def phases(self) -> list[Phase]:
        """Return generator with detector, and the discriminator where there is one."""
        adam = Adam(self.lr, (0.5, 0.999))
        made = [Phase("generator", self.players, self.generator_loss, adam, clip=10.0)]
        if self.weights.judged:
            made.append(Phase("discriminator", self.networks["discriminator"].parameters, self.discriminator_loss, adam))
        return made

    def players(self) -> list[nn.Parameter]:
        """Return the parameters of generator and detector."""
        return [*self.networks["generator"].parameters(), *self.networks["kp_detector"].parameters()]

    def rebuilt(self, source: Tensor, target: Tensor) -> tuple[Moved, Points]:
        """Rebuild targets from sources; also return the targets' keypoints."""
        own, wanted = self.networks["kp_detector"](source), self.networks["kp_detector"](target)
        return self.networks["generator"](source, own, wanted), wanted

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Features, pixels, the discriminator's opinion, and equivariance (section 3.4)."""
        source, target = frames_of(batch)
        self.shown = source[:4].detach(), target[:4].detach()
        made, wanted = self.rebuilt(source, target)
        losses = self.compare.resemblance(made.image, target, made.warped)
        if self.weights.judged:
            losses |= self.compare.opinion(self.networks["discriminator"], made.image, target, wanted["value"].detach())
        return losses | self.equivariance(target, wanted, ThinPlate.drawn(len(target), rng).to(target.device))

    def equivariance(self, target: Tensor, wanted: Points, transform: ThinPlate) -> Losses:
        """A picture seen through a known map must have its keypoints, and their Jacobians, there (eqs. 9 and 10)."""
        seen = self.networks["kp_detector"](transform.images(target.float() + 1, self.config.corners) - 1)  # zero is black
        return equivariant(self.weights, transform, wanted, seen)

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Real for targets, not for what was rebuilt."""
        source, target = frames_of(batch)
        with torch.no_grad():
            made, wanted = self.rebuilt(source, target)
        return {"gan": self.compare.verdict(self.networks["discriminator"], made.image, target, wanted["value"])}

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Return sources, targets, what was rebuilt, and the sources only warped, in rows."""
        if self.shown is None:
            return torch.zeros(1, 3, self.config.size, self.config.size)
        source, target = self.shown
        made = networks["generator"](source, networks["kp_detector"](source), networks["kp_detector"](target))
        return torch.cat([source, target, made.image, made.warped])


def objective(
    config: Config = Config(),
    seed: int = 0,
    *,
    features: Any = None,
    scales: Sequence[float] = (1.0, 0.5, 0.25, 0.125),
    lr: float = 2e-4,
    **weights: Any,
) -> Objective:
    """Make the objective; `features` is a frozen network to compare in, `weights` those of `Weights`."""
    with drawing(seed):
        return Objective(config, features, Weights(**weights), scales, lr)


# ---------------------------------------------------------------------------------------------------------------------- published


def hour_of(state: State, prefix: str, reduce: str) -> Hour:
    """Infer an hourglass and the scale at which it sees images; the widest level stands for the limit of widths."""
    levels = levels_of(state, f"{prefix}.encoder.down_blocks.")
    width = state[f"{prefix}.decoder.up_blocks.{levels - 1}.conv.weight"].shape[0]
    most = state[f"{prefix}.encoder.down_blocks.{levels - 1}.conv.weight"].shape[0]
    return Hour(width, most, levels, scale_of(state[reduce]) if reduce in state else 1.0)


def detector_of(state: State) -> Config:
    """Infer the configuration of a keypoint detector."""
    points = state["kp.weight"].shape[0]
    jacobian = state.get("jacobian.weight")
    return Config(
        channels=state["predictor.encoder.down_blocks.0.conv.weight"].shape[1],
        points=points,
        jacobian=jacobian is not None,
        single_map=jacobian is not None and points > 1 and jacobian.shape[0] == 4,
        keypoints=hour_of(state, "predictor", "down.weight"),
    )


def generator_of(state: State) -> Config:
    """Infer the configuration of a generator; whether keypoints have Jacobians, it does not mind."""
    downs = levels_of(state, "down_blocks.")
    return Config(
        channels=state["first.conv.weight"].shape[1],
        points=state["dense_motion_network.mask.weight"].shape[0] - 1,
        motion=hour_of(state, "dense_motion_network.hourglass", "dense_motion_network.down.weight"),
        occlusion="dense_motion_network.occlusion.weight" in state,
        width=state["first.conv.weight"].shape[0],
        most=state[f"down_blocks.{downs - 1}.conv.weight"].shape[0] if downs else state["first.conv.weight"].shape[0],
        downs=downs,
        blocks=levels_of(state, "bottleneck."),
    )


def discriminator_of(state: State) -> Config:
    """Infer the configuration of a discriminator."""
    judge = judge_of(state)
    return Config(points=judge.points or 10, judge=judge)


def flat(state: State, name: str) -> bool:
    """Tell whether a name is there and is of a convolution of pictures, not of volumes."""
    return name in state and state[name].ndim == 4


NETWORKS = {"generator": Generator, "kp_detector": KeypointDetector, "discriminator": discriminator}

SMALL = Config(
    size=64,
    padding=3,
    keypoints=Hour(16, 96, 4, 0.5),
    motion=Hour(16, 96, 4, 0.5),
    width=20,
    most=40,
    downs=1,
    blocks=2,
    judge=Judge(width=16, most=96, levels=3),
)

PRESETS = {
    "vox-256": Preset(Config(), data="clips", batch=40, steps=187_500),
    "vox-adv-256": Preset(Config(judge=Judge(spectral=False, points=10)), data="clips", batch=36, steps=400_000, objective={"gan": 1.0}),
    "talking64": Preset(
        SMALL,
        data="clips",
        batch=8,
        steps=2500,
        objective={
            "features": "limn-identity",
            "perceptual": 0.5,
            "pixel": 20.0,
            "warped": 10.0,
            "matching": 0.0,
            "scales": (1.0, 0.5, 0.25),
            "lr": 1e-3,
        },
        ema_kimg=1.0,
        decay="half",
        reading={"faces": True, "frames": 2, "fps": 25.0, "seconds": 4.0},
        reaches="after 1957 steps, 12 minutes on one shared CPU thread, on 7 GRID clips and portraits128: mesh error of a held-out "
        "speaker's frames 2.1 % of the distance between the irises (source left still: 3.6 %), of held-out portraits 4.2 % (23.5 %)",
    ),
}

PUBLISHED = [
    Published(
        "generator",
        "published",
        lambda state: flat(state, "dense_motion_network.mask.weight") and "bottleneck.r0.conv1.weight" in state,
        generator_of,
        Generator,
    ),
    Published(
        "kp_detector",
        "published",
        lambda state: flat(state, "kp.weight") and "predictor.encoder.down_blocks.0.conv.weight" in state,
        detector_of,
        KeypointDetector,
    ),
    Published(
        "discriminator",
        "published",
        lambda state: bool(state) and all(name.startswith("discs.") for name in state) and any(".down_blocks.0.conv." in n for n in state),
        discriminator_of,
        discriminator,
        SPECTRAL,
    ),
]

CARD = Card(
    name="fomm",
    title="First Order Motion Model",
    chapter="animation",
    year=2019,
    arxiv="2003.00196",
    verbs=("animate", "train"),
    weights_licence="MIT code; the weights are given without a licence of their own, VoxCeleb is for research",
    source="AliaksandrSiarohin/first-order-model",
)

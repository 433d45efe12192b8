"""face-vid2vid: a talking head of one photograph, as a volume of features moved by keypoints in three dimensions.

Keypoints of a neutral, frontal head are found in the source; head pose, translation and change of expression, estimated from any
picture, put them where that picture has them; the source's volume is warped from its own to the wanted keypoints and decoded. Since pose
is known apart from expression, the head can be turned at will.
Wang, Mallya, Liu: One-Shot Free-View Neural Talking-Head Synthesis for Video Conferencing. CVPR 2021, arXiv 2011.15126.
Differs: NVIDIA published no code; layouts and weights are those of the port by zhanglonghao1992, whose pose head gives roll as yaw and
yaw as roll (`swapped`). Images are [-1, 1] outside, [0, 1] inside. Reproduced: the port's networks and losses (tests/parity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from limn.blocks.hourglass import Down, Hourglass, Residual, Same, Up, widths
from limn.blocks.warp import Reduce, ThinPlate, expected, resized, scale_of, warp
from limn.models.animation import judges
from limn.models.animation.fomm import Hour, heat, hour_of, relative, seen_by_each, sparse_motions
from limn.models.animation.judges import SPECTRAL, Comparison, Discriminator, Judge, Points, equivariant, frames_of, levels_of
from limn.models.perception.hopenet import degrees
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing

PI = 3.14  # of the published conversion to radians
DEPTHS = (3, 4, 6, 3)  # bottlenecks of the four stages of the pose estimator


KEYPOINTS, MOTION, JUDGE = Hour(32, 1024, 5, 0.25), Hour(32, 1024, 5, 1.0), Judge()


@dataclass(frozen=True)
class Config:
    size: int = 256  # pixels of the images it was made for
    channels: int = 3
    points: int = 15  # keypoints; 20 in the paper
    jacobian: bool = False
    features: int = 32  # channels of the volume
    depth: int = 16  # its layers
    temperature: float = 0.1  # of the soft arg max
    variance: float = 0.01  # of the Gaussians about keypoints, units squared
    keypoints: Hour = KEYPOINTS
    keypoint_channels: int = 16384  # of the coarsest map, which becomes a volume of `keypoint_depth` layers
    keypoint_depth: int = 16
    stem: int = 64  # channels after the pose estimator's first convolution
    stages: tuple[int, ...] = (256, 512, 1024, 2048)  # and after each of its four stages
    bins: int = 66  # of each angle
    swapped: bool = True  # what is called yaw comes from the head named roll, and the reverse
    motion: Hour = MOTION
    compress: int = 4  # channels of the volume that the motion network sees
    occlusion: bool = True
    width: int = 64  # channels of the generator's first map
    most: int = 512
    downs: int = 2
    first: int = 3  # pixels a side of its first convolution
    blocks: int = 6  # residual blocks, in the volume and after it
    spade: bool = False  # the decoder of "Vox-256-New"
    corners: bool = False  # sampling: -1 and 1 are the centres of the end pixels
    judge: Judge = JUDGE


class KeypointHourglass(nn.Module):
    """(N, channels, H, W) -> (N, width, depth, H, W): down in the plane, up in the volume, nothing joined on the way."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hour = config.keypoints
        sizes = [config.channels, *widths(hour.width, hour.most, hour.levels)[1:]]
        self.down_blocks = nn.ModuleDict({f"down{n}": Down(a, b) for n, (a, b) in enumerate(pairwise(sizes))})
        self.conv = nn.Conv2d(sizes[-1], config.keypoint_channels, 1)
        self.depth = config.keypoint_depth
        rising = [config.keypoint_channels // self.depth, *widths(hour.width, hour.most, hour.levels)[-2::-1]]
        self.up_blocks = nn.ModuleDict({f"up{n}": Up(a, b, dims=3) for n, (a, b) in enumerate(pairwise(rising))})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.down_blocks.values():
            x = block(x)
        x = self.conv(x).unflatten(1, (-1, self.depth))
        for block in self.up_blocks.values():
            x = block(x)
        return x


class KeypointDetector(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] -> the keypoints (N, K, 3) of the head as it would be, neutral, before the camera."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.predictor = KeypointHourglass(config)
        width = min(config.keypoints.most, config.keypoints.width)
        self.kp = nn.Conv3d(width, config.points, 3, padding=1)
        self.jacobian = nn.Conv3d(width, 9 * config.points, 3, padding=1) if config.jacobian else None
        self.down = Reduce(config.channels, config.keypoints.scale) if config.keypoints.scale != 1 else None

    def forward(self, images: Tensor) -> Points:
        x = (images + 1) / 2
        x = self.predictor(x if self.down is None else self.down(x))
        logits = self.kp(x).float()
        bumps = (logits.flatten(2) / self.config.temperature).softmax(2).view_as(logits)
        found = {"value": expected(bumps)}
        if self.jacobian is not None:
            maps = self.jacobian(x).float().unflatten(1, (-1, 9))
            found["jacobian"] = (bumps.unsqueeze(2) * maps).flatten(3).sum(3).unflatten(2, (3, 3))
        return found


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 beside a shortcut, which has a convolution where the stride is not 1."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1, self.conv2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, inner, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(inner, channels, 1)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(n) for n in (inner, inner, channels))
        self.skip = nn.Conv2d(channels, channels, 1, stride) if stride != 1 else None
        self.norm4 = nn.BatchNorm2d(channels) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm3(self.conv3(F.relu(self.norm2(self.conv2(y)))))
        return F.relu(y + (x if self.skip is None or self.norm4 is None else self.norm4(self.skip(x))))


class PoseEstimator(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] -> logits of "yaw", "pitch" and "roll" (N, bins), "t" (N, 3) and "exp" (N, 3 K)."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.conv1, self.norm1 = nn.Conv2d(config.channels, config.stem, 7, 2, padding=3), nn.BatchNorm2d(config.stem)
        inputs = config.stem
        for stage, (channels, depth) in enumerate(zip(config.stages, DEPTHS, strict=True)):
            self.add_module(f"conv{stage + 2}", nn.Conv2d(inputs, channels, 1))
            self.add_module(f"norm{stage + 2}", nn.BatchNorm2d(channels))
            number = 2 * stage + 1
            if stage:
                self.add_module(f"block{number - 1}", Bottleneck(channels, 2))
            self.add_module(f"block{number}", sequence({f"b{number}_{n}": Bottleneck(channels, 1) for n in range(depth - bool(stage))}))
            inputs = channels
        self.fc_roll, self.fc_pitch, self.fc_yaw = (nn.Linear(inputs, config.bins) for _ in range(3))
        self.fc_t, self.fc_exp = nn.Linear(inputs, 3), nn.Linear(inputs, 3 * config.points)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        parts = dict(self.named_children())
        x = F.max_pool2d(F.relu(self.norm1(self.conv1((images + 1) / 2))), 3, 2, padding=1)
        for stage in range(len(DEPTHS)):
            x = F.relu(parts[f"norm{stage + 2}"](parts[f"conv{stage + 2}"](x)))
            x = parts[f"block{2 * stage}"](x) if stage else x
            x = parts[f"block{2 * stage + 1}"](x)
        x = x.mean((2, 3))
        yaw, roll = (self.fc_roll, self.fc_yaw) if self.config.swapped else (self.fc_yaw, self.fc_roll)
        found = {"yaw": yaw(x), "pitch": self.fc_pitch(x), "roll": roll(x), "t": self.fc_t(x), "exp": self.fc_exp(x)}
        return {name: value.float() for name, value in found.items()}


def sequence(named: Mapping[str, nn.Module]) -> nn.Sequential:
    """Return modules in a row, under their names."""
    made = nn.Sequential()
    for name, module in named.items():
        made.add_module(name, module)
    return made


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Return the matrices (N, 3, 3) of angles (N,) in degrees: pitch about x, times yaw about y, times roll about z."""
    turns = []
    for angle, (a, b) in ((pitch, (1, 2)), (yaw, (2, 0)), (roll, (0, 1))):
        radians = angle / 180 * PI
        turn = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
        turn[:, a, a] = turn[:, b, b] = radians.cos()
        turn[:, b, a], turn[:, a, b] = radians.sin(), -radians.sin()
        turns.append(turn)
    return turns[0] @ turns[1] @ turns[2]


def turned(canonical: Points, pose: Mapping[str, Tensor], angles: tuple[Tensor, Tensor, Tensor] | None = None) -> Points:
    """Put canonical keypoints where a pose has them (eq. 2); `angles` (yaw, pitch, roll in degrees) take the place of the estimated."""
    turn = rotation(*(angles or tuple(degrees(pose[name]) for name in ("yaw", "pitch", "roll"))))
    points = torch.einsum("nij,nkj->nki", turn, canonical["value"])
    placed = {"value": points + pose["t"].unsqueeze(1) + pose["exp"].unflatten(1, (-1, 3))}
    if "jacobian" in canonical:
        placed["jacobian"] = turn.unsqueeze(1) @ canonical["jacobian"]
    return placed


class DenseMotion(nn.Module):
    """A volume of features and two sets of keypoints -> backward flow in the volume, masks, and the occlusion of the plane."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hour, self.config = config.motion, config
        self.hourglass = Hourglass((config.points + 1) * (config.compress + 1), hour.width, hour.most, hour.levels, 3, finished=True)
        self.mask = nn.Conv3d(self.hourglass.channels, config.points + 1, 7, padding=3)
        self.compress, self.norm = nn.Conv3d(config.features, config.compress, 1), nn.BatchNorm3d(config.compress)
        self.occlusion = nn.Conv2d(self.hourglass.channels * config.depth, 1, 7, padding=3) if config.occlusion else None

    def forward(self, volume: Tensor, own: Points, wanted: Points) -> tuple[Tensor, Tensor | None, Tensor]:
        x = F.relu(self.norm(self.compress(volume)))
        sides = x.shape[2:]
        motions = sparse_motions(own, wanted, sides)
        bumps = heat(own["value"], wanted["value"], sides, self.config.variance).unsqueeze(2)
        features = self.hourglass(torch.cat([bumps, seen_by_each(x, motions, self.config.corners)], 2).flatten(1, 2))
        mask = self.mask(features).float().softmax(1)
        flow = (motions * mask.unsqueeze(-1)).sum(1)
        occlusion = None if self.occlusion is None else self.occlusion(features.flatten(1, 2)).float().sigmoid()
        return flow, occlusion, mask


class Spade(nn.Module):
    """Instance norm whose scale and shift are read from a map."""

    def __init__(self, channels: int, seen: int, hidden: int = 128) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(seen, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(hidden, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        shared = self.mlp_shared(F.interpolate(seen, size=x.shape[2:], mode="nearest"))
        return F.instance_norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class SpadeBlock(nn.Module):
    """Two convolutions with SPADE before each, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, seen: int) -> None:
        super().__init__()
        inner = min(inputs, outputs)
        self.conv_0, self.conv_1 = (spectral_norm(nn.Conv2d(a, b, 3, padding=1)) for a, b in ((inputs, inner), (inner, outputs)))
        self.norm_0, self.norm_1 = Spade(inputs, seen), Spade(inner, seen)
        learnt = inputs != outputs
        self.conv_s = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False)) if learnt else None
        self.norm_s = Spade(inputs, seen) if learnt else None

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        short = x if self.conv_s is None or self.norm_s is None else self.conv_s(self.norm_s(x, seen))
        y = self.conv_0(F.leaky_relu(self.norm_0(x, seen), 0.2))
        return short + self.conv_1(F.leaky_relu(self.norm_1(y, seen), 0.2))


class SpadeDecoder(nn.Module):
    """(N, channels, h, w) -> (N, 3, 4 h, 4 w) before the sigmoid; the map itself modulates every block."""

    def __init__(self, channels: int, inner: int = 512) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, inner, 3, padding=1)
        for n in range(6):
            self.add_module(f"G_middle_{n}", SpadeBlock(inner, inner, channels))
        self.up_0, self.up_1 = SpadeBlock(inner, inner // 2, channels), SpadeBlock(inner // 2, inner // 8, channels)
        self.conv_img = nn.Conv2d(inner // 8, 3, 3, padding=1)

    def forward(self, seen: Tensor) -> Tensor:
        parts = dict(self.named_children())
        x = self.fc(seen)
        for n in range(6):
            x = parts[f"G_middle_{n}"](x, seen)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2), seen)
        return self.conv_img(F.leaky_relu(x, 0.2))


@dataclass(frozen=True)
class Moved:
    """What the generator made, and how."""

    image: Tensor  # (N, 3, H, W) in [-1, 1]
    flow: Tensor  # (N, depth, h, w, 3) in units: where each voxel comes from
    mask: Tensor  # (N, K + 1, depth, h, w)
    occlusion: Tensor | None  # (N, 1, h, w)


class Generator(nn.Module):
    """A source (N, 3, H, W) in [-1, 1], its keypoints and the wanted ones -> the source moved."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        sizes, self.config = widths(config.width, config.most, config.downs), config
        flat = config.features * config.depth
        self.dense_motion_network = DenseMotion(config)
        self.first = Same(config.channels, sizes[0], config.first)
        self.down_blocks = nn.ModuleList(Down(a, b) for a, b in pairwise(sizes))
        self.second = nn.Conv2d(sizes[-1], flat, 1)
        self.resblocks_3d = sequence({f"3dr{n}": Residual(config.features, 3) for n in range(config.blocks)})
        self.third, self.fourth = Same(flat, sizes[-1], 3, slope=0.01), nn.Conv2d(sizes[-1], sizes[-1], 1)
        if config.spade:
            self.decoder = SpadeDecoder(sizes[-1])
        else:
            self.resblocks_2d = sequence({f"2dr{n}": Residual(sizes[-1]) for n in range(config.blocks)})
            self.up_blocks = nn.ModuleList(Up(b, a) for a, b in reversed(list(pairwise(sizes))))
            self.final = nn.Conv2d(sizes[0], config.channels, 7, padding=3)

    def volume(self, source: Tensor) -> Tensor:
        """Return the source's volume of features (N, features, depth, H/4, W/4)."""
        x = self.first((source + 1) / 2)
        for block in self.down_blocks:
            x = block(x)
        lifted: Tensor = self.resblocks_3d(self.second(x).unflatten(1, (self.config.features, self.config.depth)))
        return lifted

    def forward(self, source: Tensor, own: Points, wanted: Points) -> Moved:
        volume = self.volume(source)
        flow, occlusion, mask = self.dense_motion_network(volume, own, wanted)
        flow = resized(flow, volume.shape[2:])
        x = self.fourth(self.third(warp(volume.float(), flow, "unit", align_corners=self.config.corners).flatten(1, 2)))
        if occlusion is not None:
            x = x * F.interpolate(occlusion, size=x.shape[2:], mode="bilinear", align_corners=False)
        return Moved(2 * self.decoded(x).float().sigmoid() - 1, flow, mask, occlusion)

    def decoded(self, x: Tensor) -> Tensor:
        """Return the picture, before the sigmoid, of the plane's features."""
        if self.config.spade:
            made: Tensor = self.decoder(x)
            return made
        x = self.resblocks_2d(x)
        for block in self.up_blocks:
            x = block(x)
        last: Tensor = self.final(x)
        return last


class Animator:
    """The four networks together, as `limn animate` uses them."""

    template = "ffhq"
    parts = ("generator", "kp_detector", "he_estimator")

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.generator, self.detector, self.pose = (networks[name] for name in ("generator", "kp_detector", "he_estimator"))
        self.size: int = self.generator.config.size  # type: ignore[union-attr,assignment]

    @torch.inference_mode()
    def motion(self, images: Tensor) -> dict[str, Tensor]:
        """Return the canonical keypoints of images (N, 3, S, S) in [-1, 1], and pose, translation and expression."""
        return {f"canonical.{name}": value for name, value in self.detector(images).items()} | self.pose(images)

    def transferred(self, own: dict[str, Tensor], driving: dict[str, Tensor], initial: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the motion wanted of a source that moves as the driving one did since the initial one."""
        canonical = canonical_of(own)
        source, moved, before = (turned(canonical, pose) for pose in (own, driving, initial))
        return relative(source, moved, before)

    @torch.inference_mode()
    def animate(self, source: Tensor, own: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
        """Return the source (N, 3, S, S) moved: to keypoints, or as a motion read from another picture has them."""
        canonical = canonical_of(own)
        there = wanted if "value" in wanted else turned(canonical, wanted)
        made: Moved = self.generator(source, turned(canonical, own), there)
        return made.image


def canonical_of(motion: Mapping[str, Tensor]) -> Points:
    """Return the canonical keypoints among what `Animator.motion` read."""
    return {name.removeprefix("canonical."): value for name, value in motion.items() if name.startswith("canonical.")}


# ---------------------------------------------------------------------------------------------------------------------- objective


@dataclass(frozen=True)
class Weights(judges.Weights):
    """Factors of the losses; the defaults are the port's, which are the paper's but for equivariance (20)."""

    gan: float = 1.0
    game: str = "hinge"
    prior: float = 10.0  # keypoints keep apart and at one depth
    pose: float = 20.0
    expression: float = 5.0


def discriminator(config: Config) -> Discriminator:
    """Build the discriminator of a configuration."""
    return Discriminator(config.channels, config.judge)


class Objective:
    """Trains all networks to rebuild one frame of a clip from another.

    `pose` is a frozen network with `degrees(images)` (Hopenet); without it its term is left out.
    """

    averaged = ("generator", "kp_detector", "he_estimator")

    def __init__(self, config: Config, features: Any, pose: Any, weights: Weights, scales: Sequence[float], lr: float) -> None:
        self.config, self.pose, self.weights, self.lr = config, pose, weights, lr
        self.compare = Comparison(config.channels, features, weights, scales, config.judge)
        parts: dict[str, nn.Module] = {"generator": Generator(config), "kp_detector": KeypointDetector(config)}
        parts["he_estimator"] = PoseEstimator(config)
        self.networks = nn.ModuleDict({**parts, "discriminator": discriminator(config)})

    def phases(self) -> list[Phase]:
        """Return generator with both detectors, and the discriminator."""
        adam = Adam(self.lr, (0.5, 0.999))
        return [
            Phase("generator", self.players, self.generator_loss, adam, clip=10.0),
            Phase("discriminator", self.networks["discriminator"].parameters, self.discriminator_loss, adam),
        ]

    def players(self) -> list[nn.Parameter]:
        """Return the parameters of all but the discriminator."""
        return [parameter for name in self.averaged for parameter in self.networks[name].parameters()]

    def rebuilt(self, source: Tensor, target: Tensor) -> tuple[Moved, Points, Points, dict[str, Tensor]]:
        """Rebuild targets; also return the canonical keypoints, those wanted, and the pose of the targets."""
        canonical: Points = self.networks["kp_detector"](source)
        pose: dict[str, Tensor] = self.networks["he_estimator"](target)
        own, wanted = turned(canonical, self.networks["he_estimator"](source)), turned(canonical, pose)
        return self.networks["generator"](source, own, wanted), canonical, wanted, pose

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """All terms (section 3.4 and appendix A)."""
        source, target = frames_of(batch)
        made, canonical, wanted, pose = self.rebuilt(source, target)
        losses = self.compare.resemblance(made.image, target) | self.compare.opinion(self.networks["discriminator"], made.image, target)
        losses |= self.equivariance(target, canonical, wanted, ThinPlate.drawn(len(target), rng).to(target.device))
        return losses | self.priors(target, wanted, pose)

    def equivariance(self, target: Tensor, canonical: Points, wanted: Points, transform: ThinPlate) -> Losses:
        """A picture seen through a known map of the plane must have its keypoints there."""
        seen = self.networks["he_estimator"](transform.images(target.float() + 1, self.config.corners) - 1)
        return equivariant(self.weights, transform, wanted, turned(canonical, seen))

    def priors(self, target: Tensor, wanted: Points, pose: Mapping[str, Tensor]) -> Losses:
        """Keypoints keep their distance and depth, the pose is what a network for it says, expressions are small."""
        points = wanted["value"]
        apart = (points.unsqueeze(1) - points.unsqueeze(2) + 1e-6).square().sum(-1)
        crowded = F.relu(0.1 - apart).mean(0).sum()
        losses = {"prior": self.weights.prior * (crowded + (points[..., 2].mean(1) - 0.33).abs().mean())}
        losses["expression"] = self.weights.expression * pose["exp"].abs().sum(1).mean()
        if self.pose is not None and self.weights.pose:
            with torch.no_grad():
                true = self.pose.degrees(target)
            found = torch.stack([degrees(pose[name]) for name in ("yaw", "pitch", "roll")], 1)
            losses["pose"] = self.weights.pose * (found - true).abs().mean(0).sum()
        return losses

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Real for targets, not for what was rebuilt."""
        source, target = frames_of(batch)
        with torch.no_grad():
            made = self.rebuilt(source, target)[0]
        return {"gan": self.compare.verdict(self.networks["discriminator"], made.image, target)}


def objective(
    config: Config = Config(),
    seed: int = 0,
    *,
    features: Any = None,
    pose: Any = None,
    scales: Sequence[float] = (1.0, 0.5, 0.25, 0.125),
    lr: float = 2e-4,
    **weights: Any,
) -> Objective:
    """Make the objective; `features` and `pose` are frozen networks, `weights` those of `Weights`."""
    with drawing(seed):
        return Objective(config, features, pose, Weights(**weights), scales, lr)


# ---------------------------------------------------------------------------------------------------------------------- published


def detector_of(state: State) -> Config:
    """Infer the configuration of a keypoint detector."""
    levels = levels_of(state, "predictor.down_blocks.")
    down = state["predictor.down_blocks.down0.conv.weight"]
    flat = state["predictor.conv.weight"].shape[0]
    width, most = state["kp.weight"].shape[1], state["predictor.conv.weight"].shape[1]
    return Config(
        channels=down.shape[1],
        points=state["kp.weight"].shape[0],
        jacobian="jacobian.weight" in state,
        keypoints=Hour(width, most, levels, scale_of(state["down.weight"]) if "down.weight" in state else 1.0),
        keypoint_channels=flat,
        keypoint_depth=flat // state["predictor.up_blocks.up0.conv.weight"].shape[1],
    )


def pose_of(state: State) -> Config:
    """Infer the configuration of a pose estimator."""
    return Config(
        channels=state["conv1.weight"].shape[1],
        points=state["fc_exp.weight"].shape[0] // 3,
        stem=state["conv1.weight"].shape[0],
        stages=tuple(state[f"conv{stage + 2}.weight"].shape[0] for stage in range(len(DEPTHS))),
        bins=state["fc_yaw.weight"].shape[0],
    )


def generator_of(state: State) -> Config:
    """Infer the configuration of a generator, of either decoder."""
    downs, flat = levels_of(state, "down_blocks."), state["second.weight"].shape[0]
    motion, features = "dense_motion_network.", state["dense_motion_network.compress.weight"].shape[1]
    width = state["first.conv.weight"].shape[0]
    return Config(
        channels=state["first.conv.weight"].shape[1],
        points=state[f"{motion}mask.weight"].shape[0] - 1,
        features=features,
        depth=flat // features,
        motion=hour_of(state, f"{motion}hourglass", f"{motion}down.weight"),
        compress=state[f"{motion}compress.weight"].shape[0],
        occlusion=f"{motion}occlusion.weight" in state,
        width=width,
        most=state[f"down_blocks.{downs - 1}.conv.weight"].shape[0] if downs else width,
        downs=downs,
        first=state["first.conv.weight"].shape[-1],
        blocks=levels_of(state, "resblocks_3d."),
        spade="decoder.fc.weight" in state,
    )


NETWORKS = {"generator": Generator, "kp_detector": KeypointDetector, "he_estimator": PoseEstimator, "discriminator": discriminator}

PRESETS = {
    "vox-256": Preset(Config(spade=True), data="clips", batch=32, steps=175_000),
}

PUBLISHED = [
    Published(
        "generator",
        "port",
        lambda state: "dense_motion_network.compress.weight" in state and "resblocks_3d.3dr0.conv1.weight" in state,
        generator_of,
        Generator,
        SPECTRAL,
    ),
    Published(
        "kp_detector",
        "port",
        lambda state: "predictor.down_blocks.down0.conv.weight" in state and "predictor.up_blocks.up0.conv.weight" in state,
        detector_of,
        KeypointDetector,
    ),
    Published(
        "he_estimator",
        "port",
        lambda state: "fc_exp.weight" in state and "fc_t.weight" in state and "block7.b7_0.conv1.weight" in state,
        pose_of,
        PoseEstimator,
    ),
]

CARD = Card(
    name="face-vid2vid",
    title="One-shot free-view talking heads",
    chapter="animation",
    year=2021,
    arxiv="2011.15126",
    verbs=("animate", "train"),
    weights_licence="port CC BY-NC 4.0; VoxCeleb is for research",
    source="zhanglonghao1992/One-Shot_Free-View_Neural_Talking_Head_Synthesis",
)

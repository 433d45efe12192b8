"""What rebuilt frames are judged by: discriminators over scales, features, pixels, and whether keypoints follow a known map.

The animators learn by these losses: First Order Motion Model (arXiv 2003.00196, section 3.4) and those that came after it.
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

from limn.blocks.hourglass import widths
from limn.blocks.warp import Reduce, ThinPlate, gaussians
from limn.losses.games import GAMES
from limn.models.records import Losses, State

Points = dict[str, Tensor]  # "value" (N, K, 2 or 3) in units, and "jacobian" (N, K, 2, 2 or 3, 3) where there are such


@dataclass(frozen=True)
class Judge:
    """The discriminator."""

    scales: tuple[float, ...] = (1.0,)
    width: int = 32
    most: int = 512
    levels: int = 4
    spectral: bool = True
    points: int = 0  # keypoints whose Gaussians it sees beside the image


class Critic(nn.Module):
    """One discriminator: 4x4 convolutions without padding, instance norm but in the first, halved but in the last."""

    def __init__(self, channels: int, judge: Judge) -> None:
        super().__init__()
        sizes = [channels + judge.points, *widths(judge.width, judge.most, judge.levels)[1:]]
        self.down_blocks = nn.ModuleList(CriticBlock(a, b, n > 0, judge) for n, (a, b) in enumerate(pairwise(sizes)))
        conv = nn.Conv2d(sizes[-1], 1, 1)
        self.conv = spectral_norm(conv) if judge.spectral else conv

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = []
        for block in self.down_blocks:
            x = F.leaky_relu(block(x), 0.2)
            x = x if block is self.down_blocks[-1] else F.avg_pool2d(x, 2)
            maps.append(x)
        return maps, self.conv(x)


class CriticBlock(nn.Module):
    """Convolution, and instance norm where asked for."""

    def __init__(self, inputs: int, outputs: int, norm: bool, judge: Judge) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 4)
        self.conv = spectral_norm(conv) if judge.spectral else conv
        self.norm = nn.InstanceNorm2d(outputs, affine=True) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


class Discriminator(nn.Module):
    """A pyramid of images in [0, 1] by scale -> feature maps and logits by scale; `points` are the keypoints, where it sees them."""

    def __init__(self, channels: int, judge: Judge, variance: float = 0.01) -> None:
        super().__init__()
        self.judge, self.variance = judge, variance
        self.discs = nn.ModuleDict({name_of(scale): Critic(channels, judge) for scale in judge.scales})

    def forward(self, pyramid: Mapping[float, Tensor], points: Tensor | None = None) -> dict[float, tuple[list[Tensor], Tensor]]:
        made = {}
        for scale in self.judge.scales:
            x = pyramid[scale]
            if self.judge.points and points is not None:
                x = torch.cat([x, gaussians(points, x.shape[2:], self.variance)], 1)
            made[scale] = self.discs[name_of(scale)](x)
        return made


def name_of(scale: float) -> str:
    """Return how the published file names the network of a scale: 0.5 is 0-5."""
    return f"{scale:g}".replace(".", "-")


class Pyramid(nn.Module):
    """Images at several scales, without aliasing."""

    def __init__(self, channels: int, scales: Sequence[float]) -> None:
        super().__init__()
        self.scales = tuple(dict.fromkeys(scales))
        self.reduces = nn.ModuleList(Reduce(channels, scale) for scale in self.scales)

    def forward(self, images: Tensor) -> dict[float, Tensor]:
        return {scale: reduce(images) for scale, reduce in zip(self.scales, self.reduces, strict=True)}


@dataclass(frozen=True)
class Weights:
    """Factors of the losses; the defaults are those of vox-256 (feature matching needs the discriminator, so it plays along)."""

    perceptual: float = 10.0
    pixel: float = 0.0  # mean absolute difference over the scales, beside the features
    warped: float = 0.0  # the same of the source that was only warped: the flow must do the work
    gan: float = 0.0  # 1 for vox-adv
    matching: float = 10.0
    value: float = 10.0  # equivariance of keypoints
    jacobian: float = 10.0  # and of Jacobians
    game: str = "least_squares"  # that generator and discriminator play

    @property
    def judged(self) -> bool:
        """Whether there is a discriminator."""
        return bool(self.gan or self.matching)


class Comparison:
    """Compares what was rebuilt with what it should be: over scales, by features, by pixels, and by a discriminator's opinion."""

    def __init__(self, channels: int, features: Any, weights: Weights, scales: Sequence[float], judge: Judge) -> None:
        self.features, self.weights, self.scales = features, weights, tuple(scales)
        self.pyramid = Pyramid(channels, (*scales, *judge.scales))

    def unit(self, images: Tensor) -> dict[float, Tensor]:
        """Return images (N, 3, H, W) in [-1, 1] as a pyramid in [0, 1]."""
        made: dict[float, Tensor] = self.pyramid.to(images.device)((images + 1) / 2)
        return made

    def resemblance(self, image: Tensor, target: Tensor, warped: Tensor | None = None) -> Losses:
        """Compare features of a frozen network, pixels, and pixels of the warped source."""
        real, fake, losses = self.unit(target), self.unit(image), {}
        if self.features is not None and self.weights.perceptual:
            apart = [self.apart(2 * fake[scale] - 1, 2 * real[scale] - 1) for scale in self.scales]
            losses["perceptual"] = self.weights.perceptual * torch.stack(apart).sum()
        for name, made in (("pixel", fake), ("warped", None if warped is None else self.unit(warped))):
            if made is not None and getattr(self.weights, name):
                losses[name] = getattr(self.weights, name) * torch.stack([F.l1_loss(made[s], real[s]) for s in self.scales]).mean()
        return losses

    def apart(self, images: Tensor, targets: Tensor) -> Tensor:
        """Sum of the mean absolute differences of feature maps."""
        with torch.no_grad():
            wanted = self.features.features(targets)
        return torch.stack([F.l1_loss(x, y) for x, y in zip(self.features.features(images), wanted, strict=True)]).sum()

    def opinion(self, judge: nn.Module, image: Tensor, target: Tensor, points: Tensor | None = None) -> Losses:
        """What the discriminator sees should match, and it should believe."""
        fakes, reals, losses = judge(self.unit(image), points), judge(self.unit(target), points), {}
        if self.weights.matching:
            pairs = [zip(reals[scale][0], fakes[scale][0], strict=True) for scale in reals]
            losses["matching"] = self.weights.matching * torch.stack([F.l1_loss(x, y) for each in pairs for x, y in each]).sum()
        if self.weights.gan:
            game = GAMES[self.weights.game]
            losses["gan"] = self.weights.gan * torch.stack([game(logits, True, True) for _, logits in fakes.values()]).sum()
        return losses

    def verdict(self, judge: nn.Module, image: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
        """Sum over the scales of what the discriminator minimises."""
        fakes, reals, game = judge(self.unit(image.detach()), points), judge(self.unit(target), points), GAMES[self.weights.game]
        return torch.stack([game(reals[scale][1], True) + game(fakes[scale][1], False) for scale in reals]).sum()


def frames_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return source and target of a batch: the first and the last of its `frames` (N, F, 3, S, S), or what bears these names."""
    if "frames" in batch:
        return batch["frames"][:, 0], batch["frames"][:, -1]
    return batch["source"], batch["target"]


def equivariant(weights: Weights, transform: ThinPlate, wanted: Points, seen: Points) -> Losses:
    """Compare keypoints of a picture with those of its image under a map, brought back; in the plane where they are of space."""
    points = seen["value"][..., :2]
    losses = {"value": weights.value * (wanted["value"][..., :2] - transform.points(points)).abs().mean()}
    if "jacobian" in seen and weights.jacobian:
        there = transform.jacobian(points) @ seen["jacobian"][..., :2, :2]
        apart = torch.eye(2, device=points.device) - torch.linalg.inv(wanted["jacobian"][..., :2, :2]) @ there
        losses["jacobian"] = weights.jacobian * apart.abs().mean()
    return losses


def levels_of(state: State, prefix: str) -> int:
    """Count the numbered blocks under a prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def judge_of(state: State) -> Judge:
    """Infer the shape of a discriminator; what it sees beside three colours are keypoints."""
    scales = sorted({name.split(".")[1] for name in state}, key=lambda name: -float(name.replace("-", ".")))
    prefix = f"discs.{scales[0]}.down_blocks."
    levels, spectral = levels_of(state, prefix), f"{prefix}0.conv.weight_orig" in state
    weights = [state[f"{prefix}{level}.conv.weight{'_orig' if spectral else ''}"] for level in range(levels)]
    most, points = weights[-1].shape[0], weights[0].shape[1] - 3
    width = max(weights[0].shape[0] // 2, 1)
    return Judge(tuple(float(s.replace("-", ".")) for s in scales), width, most, levels, spectral, points)


SPECTRAL = [  # torch's older spectral norm -> its parametrisation
    (r"(.+)\.weight_orig", r"\1.parametrizations.weight.original"),
    (r"(.+)\.weight_(u|v)", r"\1.parametrizations.weight.0._\2"),
]

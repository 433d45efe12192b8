"""Hopenet: the pose of a head as three angles, each a mean over bins, from a ResNet-50.

Ruiz, Chong, Rehg: Fine-Grained Head Pose Estimation Without Keypoints. CVPR workshop 2018, arXiv 1710.00925.
Differs: nothing; `fc_finetune`, which nothing reads, is kept so that published files load. Reproduced: the case face-vid2vid/losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.models.perception.vgg import prepared
from limn.models.records import Card, Published, State

DEPTHS = (3, 4, 6, 3)
STEP, FIRST = 3.0, -99.0  # degrees per bin, and of the first


@dataclass(frozen=True)
class Config:
    bins: int = 66  # of each angle, 3 degrees each
    width: int = 64  # channels after the first convolution
    size: int = 224  # pixels to which images are brought


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, four times as wide outside."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        plain = stride == 1 and inputs == 4 * width
        short = None if plain else nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
        self.downsample = short

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Hopenet(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] of one face each -> logits (N, 3, bins) of yaw, pitch and roll."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, depth in enumerate(DEPTHS):
            channels, blocks = width << stage, []
            for place in range(depth):
                blocks.append(Bottleneck(inputs, channels, 2 if stage and not place else 1))
                inputs = 4 * channels
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc_yaw, self.fc_pitch, self.fc_roll = (nn.Linear(inputs, config.bins) for _ in range(3))
        self.fc_finetune = nn.Linear(inputs + 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        size, shrinks = self.config.size, max(images.shape[2:]) > self.config.size
        if tuple(images.shape[2:]) != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(prepared(images, "imagenet")))), 3, 2, padding=1)
        parts = dict(self.named_children())
        for stage in range(len(DEPTHS)):
            x = parts[f"layer{stage + 1}"](x)
        x = x.mean((2, 3))
        return torch.stack([self.fc_yaw(x), self.fc_pitch(x), self.fc_roll(x)], 1)

    def degrees(self, images: Tensor) -> Tensor:
        """Return yaw, pitch and roll (N, 3) in degrees."""
        return degrees(self(images))


def degrees(logits: Tensor) -> Tensor:
    """Return the mean angles (...) of logits (..., bins)."""
    places = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return STEP * (logits.softmax(-1) * places).sum(-1) + FIRST


def config_of(state: State) -> Config:
    """Infer bins and width."""
    return Config(state["fc_yaw.weight"].shape[0], state["conv1.weight"].shape[0])


NETWORKS = {"pose": Hopenet}

PRESETS: dict[str, Any] = {}

PUBLISHED = [
    Published(
        "pose",
        "published",
        lambda state: {"fc_yaw.weight", "fc_finetune.weight", "layer4.2.bn3.weight", "bn1.weight"} <= set(state),
        config_of,
        Hopenet,
    )
]

CARD = Card(
    name="hopenet",
    title="Hopenet",
    chapter="perception",
    year=2018,
    arxiv="1710.00925",
    verbs=(),
    weights_licence="Apache-2.0 code; trained on 300W-LP, which is for research",
    source="natanielruiz/deep-head-pose",
)

"""The identity network of SimSwap's checkpoints: an improved residual network with squeeze-and-excitation, ImageNet-normalised input.

A relative of ArcFace's networks (Deng et al., CVPR 2019, arXiv 1801.07698), with one slope for both activations of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.models.records import State

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


@dataclass(frozen=True)
class Backbone:
    """What the identity network is made of."""

    units: tuple[int, ...] = (3, 4, 23, 3)  # blocks of the four stages
    squeeze: bool = True
    embedding: int = 512
    size: int = 112  # pixels


class Squeeze(nn.Module):
    """Weigh the channels by what the whole map says."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = channels // reduction
        self.fc = nn.Sequential(nn.Linear(channels, narrow), nn.PReLU(), nn.Linear(narrow, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[..., None, None]


class Block(nn.Module):
    """BN, 3×3, BN, PReLU, 3×3 with the stride, BN, squeeze, sum, and the same PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.bn0, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(inputs), nn.PReLU()
        self.conv2, self.bn2 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.se: nn.Module = Squeeze(outputs) if squeeze else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(self.bn0(x))))))
        return self.prelu(self.se(y) + self.downsample(x))


class ResNet(nn.Module):
    """ImageNet-normalised RGB (N, 3, size, size) -> embeddings (N, embedding), not of unit length."""

    def __init__(self, config: Backbone = Backbone()) -> None:
        super().__init__()
        self.config = config
        self.conv1, self.bn1, self.prelu = nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64), nn.PReLU()
        inputs = 64
        for stage, count in enumerate(config.units, 1):
            outputs = 32 << stage
            sizes = [(inputs, 1 if stage == 1 else 2), *((outputs, 1) for _ in range(count - 1))]
            self.add_module(f"layer{stage}", nn.Sequential(*(Block(size, outputs, stride, config.squeeze) for size, stride in sizes)))
            inputs = outputs
        side = config.size // 16
        self.bn2, self.dropout = nn.BatchNorm2d(inputs), nn.Dropout(0.5)
        self.fc, self.bn3 = nn.Linear(inputs * side * side, config.embedding), nn.BatchNorm1d(config.embedding)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the map after every stage."""
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(images))), 2, 2)
        maps = []
        for stage in range(1, len(self.config.units) + 1):
            x = getattr(self, f"layer{stage}")(x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        x = self.dropout(self.bn2(self.stages(images)[-1]))
        return self.bn3(self.fc(x.flatten(1)))

    def embed(self, images: Tensor) -> Tensor:
        """Return unit vectors (N, embedding) of aligned images (N, 3, H, W) in [-1, 1]; the published code takes the nearest pixels."""
        return F.normalize(self(F.interpolate(to_imagenet(images), size=self.config.size)).float())


def to_imagenet(images: Tensor) -> Tensor:
    """[-1, 1] -> ImageNet-normalised."""
    mean, std = (torch.tensor(each, device=images.device, dtype=images.dtype).view(3, 1, 1) for each in (MEAN, STD))
    return ((images + 1) / 2 - mean) / std


def from_imagenet(images: Tensor) -> Tensor:
    """ImageNet-normalised -> [-1, 1]."""
    mean, std = (torch.tensor(each, device=images.device, dtype=images.dtype).view(3, 1, 1) for each in (MEAN, STD))
    return (images * std + mean) * 2 - 1


def backbone_of(state: State) -> Backbone:
    """Backbone from shapes."""
    units = tuple(sum(name.startswith(f"layer{stage}.") and name.endswith(".bn0.weight") for name in state) for stage in range(1, 5))
    embedding, flat = state["fc.weight"].shape
    side = int((flat // state["bn2.weight"].shape[0]) ** 0.5)
    return Backbone(units, "layer1.0.se.fc.0.weight" in state, embedding, 16 * side)

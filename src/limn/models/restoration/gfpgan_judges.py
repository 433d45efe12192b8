"""What GFPGAN is trained against: judges of eyes and mouth, and the network that says who it is.

Wang, Li, Zhang, Shan: GFPGAN, CVPR 2021 (arXiv 2101.04061), sections 3.4 and 3.5. The identity network is an 18-layer ArcFace on grey
pictures of 128 pixels; its embedding is used as it is, not scaled to unit length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.degradation import luma_of
from limn.blocks.equalized import EqualConv
from limn.blocks.fir import kernel
from limn.models.records import State


class ComponentJudge(nn.Module):
    """Crops (N, 3, H, W) in [-1, 1] of one part of the face -> logits (N, 1, H/4, W/4)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        taps = kernel()
        self.conv1 = EqualConv(3, width, 3, taps)
        self.conv2 = EqualConv(width, width * 2, 3, taps, down=True)
        self.conv3 = EqualConv(width * 2, width * 2, 3, taps)
        self.conv4 = EqualConv(width * 2, width * 4, 3, taps, down=True)
        self.conv5 = EqualConv(width * 4, width * 4, 3, taps)
        self.final_conv = EqualConv(width * 4, 1, 3, taps, activation=False)

    def judged(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and the maps whose correlations are compared (section 3.4)."""
        fine = self.conv3(self.conv2(self.conv1(images)))
        coarse = self.conv5(self.conv4(fine))
        return self.final_conv(coarse), [fine, coarse]

    def forward(self, images: Tensor) -> Tensor:
        return self.judged(images)[0]


def gram(maps: Tensor) -> Tensor:
    """Correlations (N, C, C) of the channels of maps (N, C, H, W), per number."""
    flat = maps.float().flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


@dataclass(frozen=True)
class Shape:
    """What an identity network is made of."""

    depths: tuple[int, ...] = (2, 2, 2, 2)  # blocks of 64, 128, 256, 512 channels
    squeeze: bool = False  # squeeze and excitation in every block


class Squeeze(nn.Module):
    """Squeeze and excitation: (N, C, H, W) -> the same, every channel scaled by what all of them say."""

    def __init__(self, width: int, less: int = 16) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, width // less), nn.PReLU(), nn.Linear(width // less, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class Block(nn.Module):
    """Two convolutions between norms, the second with the stride, one PReLU for both places, and the way around."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.bn0, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inputs, 3, 1, 1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(inputs), nn.PReLU()
        self.conv2, self.bn2 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.se: nn.Module = Squeeze(outputs) if squeeze else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.se(self.bn2(self.conv2(y))) + self.downsample(x))


class GreyIdentity(nn.Module):
    """Grey faces (N, 1, 128, 128) in [-1, 1] -> embeddings (N, 512); `embed` takes RGB of any size."""

    def __init__(self, shape: Shape = Shape()) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = nn.Conv2d(1, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU()
        width = 64
        for stage, depth in enumerate(shape.depths):
            outputs = 64 << stage
            blocks = [Block(width if i == 0 else outputs, outputs, 2 if stage and i == 0 else 1, shape.squeeze) for i in range(depth)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            width = outputs
        self.bn4, self.fc5, self.bn5 = nn.BatchNorm2d(width), nn.Linear(width * 64, 512), nn.BatchNorm1d(512)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(x))), 2)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.bn5(self.fc5(self.bn4(x).flatten(1)))

    def embed(self, images: Tensor) -> Tensor:
        """Embed RGB faces (N, 3, H, W) in [-1, 1]."""
        return self(F.interpolate(luma_of(images)[:, :1], size=(128, 128), mode="bilinear", align_corners=False))


def is_identity(state: State) -> bool:
    """Whether these are the names of GFPGAN's identity network."""
    return all(name in state for name in ("layer1.0.bn0.weight", "layer1.0.prelu.weight", "fc5.weight", "bn5.running_mean"))


def shape_of(state: State) -> Shape:
    """Read off depths and squeezing."""
    depths = tuple(sum(f"layer{stage}.{index}.conv1.weight" in state for index in range(64)) for stage in range(1, 5))
    return Shape(depths, "layer1.0.se.fc.0.weight" in state)


def boxes(size: int) -> dict[str, tuple[int, int, int, int]]:
    """Left, top, right, bottom of both eyes and the mouth in a crop of the template, in pixels of `size`.

    Centres are the template's; the sides are about what eyes times 1.4 and mouths measure in FFHQ.
    """
    places = {"left_eye": (0.377, 0.469, 0.22), "right_eye": (0.623, 0.469, 0.22), "mouth": (0.502, 0.725, 0.29)}
    corners = {name: ((x - side / 2, y - side / 2), (x + side / 2, y + side / 2)) for name, (x, y, side) in places.items()}
    return {name: tuple(round(value * size) for value in (*low, *high)) for name, (low, high) in corners.items()}  # type: ignore[misc]


def component(images: Tensor, box: tuple[int, int, int, int], side: int) -> Tensor:
    """Cut a box out of images and bring it to side x side."""
    left, top, right, bottom = box
    return F.interpolate(images[:, :, top:bottom, left:right], size=(side, side), mode="bilinear", align_corners=False)

"""Inception-v3 as FID uses it: the network that two sets of images are described by before they are compared.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision. CVPR 2016, arXiv 1512.00567.
The weights are those of the TensorFlow graph of 2015-12-05 with 1008 classes, which torchvision's are not: never substitute them.
Differs from torchvision: no auxiliary classifier, averages that do not count padding, a maximum in the pool branch of the last block.
The resize chain decides the number before the model does, so each has a name (`CHAINS`). Reproduced: cases `fid/inception*`, `fid/resize`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from limn.errors import InputError
from limn.models.records import Card, Published, State

SIZE = 299  # pixels that the network sees
POOL3, CLASSES = 2048, 1008


@dataclass(frozen=True)
class Config:
    """How pictures reach the network, which is always the same one."""

    chain: str = "clean"  # one of CHAINS


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self, channels: int, width: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def around(x: Tensor) -> Tensor:
    """Average over 3x3 places, not counting those outside."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockA(nn.Module):
    """35x35: (N, C, H, W) -> (N, 224 + pooled, H, W)."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(channels, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Convolution(channels, 48, 1), Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 64, 1), Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(around(x))], 1)


class BlockB(nn.Module):
    """35x35 to 17x17: (N, 288, H, W) -> (N, 768, H / 2, W / 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Convolution(288, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(288, 64, 1), Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17x17, with 7x7 convolutions in two passes: (N, 768, H, W) -> (N, 768, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        across, down = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        self.branch1x1 = Convolution(768, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Convolution(768, width, 1), Convolution(width, width, *across)
        self.branch7x7_3 = Convolution(width, 192, *down)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Convolution(768, width, 1), Convolution(width, width, *down)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Convolution(width, width, *across), Convolution(width, width, *down)
        self.branch7x7dbl_5 = Convolution(width, 192, *across)
        self.branch_pool = Convolution(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(around(x))], 1)


class BlockD(nn.Module):
    """17x17 to 8x8: (N, 768, H, W) -> (N, 1280, H / 2, W / 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Convolution(768, 192, 1), Convolution(192, 320, 3, 2)
        self.branch7x7x3_1 = Convolution(768, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Convolution(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8x8, branches that fork: (N, C, H, W) -> (N, 2048, H, W)."""

    def __init__(self, channels: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        across, down = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
        self.branch1x1 = Convolution(channels, 320, 1)
        self.branch3x3_1 = Convolution(channels, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Convolution(384, 384, *across), Convolution(384, 384, *down)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 448, 1), Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Convolution(384, 384, *across), Convolution(384, 384, *down)
        self.branch_pool = Convolution(channels, 192, 1)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = [self.branch3x3_2a(single), self.branch3x3_2b(single), self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(self.pool(x))], 1)


def highest(x: Tensor) -> Tensor:
    """The largest of 3x3 places: the graph of 2015 has a maximum where the paper has a mean."""
    return F.max_pool2d(x, 3, 1, 1)


class Inception(nn.Module):
    """The network of FID: `describe` pictures as they come, or `forward` ones that went through a chain."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Convolution(3, 32, 3, 2), Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Convolution(64, 80, 1), Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = BlockC(128), BlockC(160), BlockC(160), BlockC(192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = BlockD(), BlockE(1280, around), BlockE(2048, highest)
        self.fc = nn.Linear(POOL3, CLASSES)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of 64, 192, 768 channels and the vector of 2048 (N, 2048, 1, 1) of normalised images (N, 3, H, W)."""
        first = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        second = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(first)), 3, 2)
        third = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(second))))
        third = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(third))))
        last = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(third)))
        return [first, second, third, last.mean((2, 3), keepdim=True)]

    @torch.inference_mode()
    def describe(self, images: Tensor) -> Tensor:
        """Return the FID features (N, 2048) of images (N, 3, H, W) in [-1, 1], brought in by the chain of the configuration."""
        if self.config.chain not in CHAINS:
            raise InputError(f"there is no FID resize chain {self.config.chain!r}: use one of {', '.join(CHAINS)}")
        return self(CHAINS[self.config.chain]((images + 1) * 127.5))[-1].flatten(1)

    def logits(self, features: Tensor, bias: bool = False) -> Tensor:
        """Return (N, 1008) of features (N, 2048); the inception score takes them without the bias."""
        return F.linear(features, self.fc.weight, self.fc.bias if bias else None)


def tensorflow(pixels: Tensor) -> Tensor:
    """The chain of the original graph, NVlabs, torch-fidelity and clean-fid's legacy_tensorflow, from pixels (N, 3, H, W) in 0..255."""
    return (tf1_bilinear(pixels, SIZE, SIZE) - 128) / 128


def pytorch_fid(pixels: Tensor) -> Tensor:
    """The chain of pytorch-fid: bilinear without antialiasing, then [-1, 1]."""
    return F.interpolate(pixels / 255, size=(SIZE, SIZE), mode="bilinear", align_corners=False) * 2 - 1


def clean(pixels: Tensor) -> Tensor:
    """The chain of clean-fid: Pillow's antialiased bicubic in floats."""
    return (clean_bicubic(pixels, SIZE, SIZE) - 128) / 128


CHAINS: dict[str, Callable[[Tensor], Tensor]] = {"clean": clean, "pytorch-fid": pytorch_fid, "tensorflow": tensorflow}


def tf1_bilinear(pixels: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Resize (N, C, H, W) as TensorFlow 1 did: source = i * in / out, no half pixel, no antialiasing; edges repeat."""
    rows = _positions(pixels.shape[-2], height, align_corners)
    columns = _positions(pixels.shape[-1], width, align_corners)
    pixels = _between(pixels, rows, 2)
    return _between(pixels, columns, 3)


def _positions(size: int, wanted: int, align_corners: bool) -> Tensor:
    scale = (size - 1) / (wanted - 1) if align_corners and wanted > 1 else size / wanted
    return torch.arange(wanted, dtype=torch.float32) * scale


def _between(pixels: Tensor, positions: Tensor, dim: int) -> Tensor:
    """Interpolate linearly at positions along an axis."""
    last = pixels.shape[dim] - 1
    low = positions.floor().long().clamp(0, last)
    shape = [1] * pixels.ndim
    shape[dim] = -1
    share = (positions - low).to(pixels).view(shape)
    a, b = (pixels.index_select(dim, index.to(pixels.device)) for index in (low, (low + 1).clamp(max=last)))
    return a + (b - a) * share


def clean_bicubic(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, 3, H, W) as Pillow does single channels in floating point, bicubic with a = -0.5, clipped to 0..255, not rounded."""
    planes = pixels.detach().cpu().float().numpy()
    resized = np.empty((*planes.shape[:2], height, width), np.float32)
    for index in np.ndindex(planes.shape[:2]):
        resized[index] = np.asarray(Image.fromarray(planes[index]).resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized.clip(0, 255)).to(pixels.device)


def _is_fid(state: State) -> bool:
    return "Mixed_7c.branch3x3dbl_3b.conv.weight" in state and "fc.weight" in state and state["fc.weight"].shape[0] == CLASSES


NETWORKS = {"inception": Inception}
PUBLISHED = [Published("inception", "pytorch-fid", _is_fid, lambda _: Config(), Inception)]
CARD = Card(
    name="inception",
    title="Inception-v3 of the Fréchet Inception Distance",
    chapter="perception",
    year=2015,
    arxiv="1512.00567",
    verbs=("evaluate",),
    weights_licence="Apache-2.0 (TensorFlow graph of 2015-12-05, converted by mseitzer/pytorch-fid)",
    source="mseitzer/pytorch-fid",
)

"""SimSwap's discriminators: patches of two sizes (the paper's code), and projected features of EfficientNet-Lite0 (the released trainer's).

Sauer, Chitta, Müller, Geiger: Projected GANs Converge Faster. NeurIPS 2021, arXiv 2111.01007.
Tan, Le: EfficientNet. ICML 2019, arXiv 1905.11946.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from limn.blocks.patch import Patch, PatchDiscriminator
from limn.models.records import Names, State


@dataclass(frozen=True)
class Judge:
    """What a discriminator is made of."""

    kind: Literal["projected", "patch"] = "projected"
    width: int = 64  # "patch": channels of its first map; three doublings follow
    depth: int = 4  # "patch": halvings
    mixed: tuple[int, ...] = (64, 128, 256, 512)  # "projected": channels of the four maps after mixing them by themselves
    fused: tuple[int, ...] = (64, 64, 128, 256)  # and after adding the coarser ones, finest first
    heads: tuple[tuple[int, ...], ...] = ((64, 128, 256, 512), (128, 256, 512), (256, 512), (512,))  # channels of the steps of each head
    pointwise: bool = False  # every step of a head has a 1×1 convolution after it (their `patch`)


# ------------------------------------------------------------------------------------------------------------------------ patches


def patches(judge: Judge) -> PatchDiscriminator:
    """Make the discriminator of patches: all its convolutions have a bias, and all but the first batch norm."""
    steps = [judge.width << min(step, 3) for step in range(judge.depth)]
    return PatchDiscriminator(Patch(widths=(*steps, steps[-1]), bias=True))


PATCH_NAMES: Names = [
    *((rf"down{step + 1}\.{old}\.(.*)", rf"{new}.{step}.\1") for step in range(4) for old, new in enumerate(("convs", "norms"))),
    (r"conv1\.0\.(.*)", r"convs.4.\1"),  # published ones are all of depth 4
    (r"conv1\.1\.(.*)", r"norms.4.\1"),
    (r"conv2\.0\.(.*)", r"convs.5.\1"),
]


def patch_of(state: State) -> Judge:
    """Judge of a patch discriminator; a sigmoid after its logits, which the published option adds, is the caller's."""
    return Judge("patch", state["down1.0.weight"].shape[0])


# ------------------------------------------------------------------------------------------------- EfficientNet-Lite0, as TensorFlow has it


class SameConv(nn.Conv2d):
    """TensorFlow's SAME padding: what is odd goes to the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        stride, side = self.stride[0], self.kernel_size[0]
        total = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in input.shape[:1:-1]]
        padded = F.pad(input, [part for whole in total for part in (whole // 2, whole - whole // 2)])
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def norm(channels: int) -> nn.BatchNorm2d:
    """TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Separable(nn.Module):
    """Depthwise and pointwise convolution: the first block."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = SameConv(inputs, inputs, side, stride, groups=inputs, bias=False), norm(inputs)
        self.conv_pw, self.bn2 = nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))


class Inverted(nn.Module):
    """Widen, convolve each channel, narrow; added to the input where the shapes are alike."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int) -> None:
        super().__init__()
        wide = 6 * inputs
        self.around = stride == 1 and inputs == outputs
        self.conv_pw, self.bn1 = nn.Conv2d(inputs, wide, 1, bias=False), norm(wide)
        self.conv_dw, self.bn2 = SameConv(wide, wide, side, stride, groups=wide, bias=False), norm(wide)
        self.conv_pwl, self.bn3 = nn.Conv2d(wide, outputs, 1, bias=False), norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn2(self.conv_dw(F.relu6(self.bn1(self.conv_pw(x))))))
        return x + self.bn3(self.conv_pwl(y)) if self.around else self.bn3(self.conv_pwl(y))


STAGES = (  # of EfficientNet-Lite0: which of the four maps it belongs to, channels, side of the kernel, stride, blocks
    (0, 16, 3, 1, 1),
    (0, 24, 3, 2, 2),
    (1, 40, 5, 2, 2),
    (2, 80, 3, 2, 3),
    (2, 112, 5, 1, 3),
    (3, 192, 5, 2, 4),
    (3, 320, 3, 1, 1),
)
BACKBONE = (24, 40, 112, 320)  # channels of the four maps, at 1/4, 1/8, 1/16 and 1/32


def backbone() -> nn.ModuleList:
    """The four parts of the frozen feature network."""
    layers: list[list[nn.Module]] = [[SameConv(3, 32, 3, 2, bias=False), norm(32), nn.ReLU6()], [], [], []]
    channels = 32
    for part, outputs, side, stride, count in STAGES:
        kind = Separable if outputs == 16 else Inverted
        sizes = [(channels, stride), *((outputs, 1) for _ in range(count - 1))]
        layers[part].append(nn.Sequential(*(kind(inputs, outputs, side, step) for inputs, step in sizes)))
        channels = outputs
    return nn.ModuleList(nn.Sequential(*part) for part in layers)


# ---------------------------------------------------------------------------------------------------------------------- projection


class ProjectedDiscriminator(nn.Module):
    """ImageNet-normalised images (N, 3, H, W) -> logits (N, L) of all heads, and the four maps of the frozen feature network.

    Only the heads learn: features and the random mixing of them stay in eval mode and as they were drawn.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.pretrained = backbone()
        self.mix = nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in zip(BACKBONE, judge.mixed, strict=True))
        self.fuse = nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in zip(judge.mixed, judge.fused, strict=True))
        self.heads = nn.ModuleList(head(inputs, steps, judge.pointwise) for inputs, steps in zip(judge.fused, judge.heads, strict=False))
        for part in (self.pretrained, self.mix, self.fuse):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> ProjectedDiscriminator:
        super().train(mode)
        self.pretrained.eval()
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the four maps of the feature network, finest first."""
        maps = [images]
        for part in self.pretrained:
            maps.append(part(maps[-1]))
        return maps[1:]

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = self.features(images)
        return self.judged(maps), maps

    def judged(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, L): maps mixed by themselves, then each with all coarser ones, then the heads."""
        below: Tensor | None = None
        fused: list[Tensor] = []
        for mix, fuse, x in reversed(list(zip(self.mix, self.fuse, maps, strict=True))):
            y = mix(x) if below is None else below + mix(x)
            below = fuse(F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=True))
            fused.insert(0, below)
        return torch.cat([head(x).flatten(1) for head, x in zip(self.heads, fused, strict=False)], 1)


def head(inputs: int, steps: Sequence[int], pointwise: bool) -> nn.Sequential:
    """Halve the map with every step; the last convolution gives a logit for each 4×4 window."""
    layers: list[nn.Module] = []
    for outputs in steps:
        down = activated(nn.Conv2d(inputs, outputs, 4, 2, 1), outputs)
        layers.append(nn.Sequential(down, *activated(nn.Conv2d(outputs, outputs, 1, bias=False), outputs)) if pointwise else down)
        inputs = outputs
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(inputs, 1, 4, bias=False)))


def activated(convolution: nn.Conv2d, channels: int) -> nn.Sequential:
    """The convolution under spectral norm, batch norm, leaky ReLU."""
    return nn.Sequential(spectral_norm(convolution), nn.BatchNorm2d(channels), nn.LeakyReLU(0.2))


_HEAD = r"discriminator\.mini_discs\.(\d)\.main\."
_NORMED = {"orig": "original", "u": "0._u", "v": "0._v"}


_STEP = r"(\d+)\.main\."
PROJECTED_NAMES: Names = [
    (r"feature_network\.pretrained\.layer(\d)\.(.*)", r"pretrained.\1.\2"),
    (r"feature_network\.scratch\.layer(\d)_ccm\.(.*)", r"mix.\1.\2"),
    (r"feature_network\.scratch\.layer(\d)_csm\.out_conv\.(.*)", r"fuse.\1.\2"),
    *((rf"{_HEAD}{_STEP}0\.main\.0\.weight_{old}", rf"heads.\1.\2.0.0.parametrizations.weight.{new}") for old, new in _NORMED.items()),
    *((rf"{_HEAD}{_STEP}(\d)\.weight_{old}", rf"heads.\1.\2.\3.parametrizations.weight.{new}") for old, new in _NORMED.items()),
    *((rf"{_HEAD}(\d+)\.weight_{old}", rf"heads.\1.\2.parametrizations.weight.{new}") for old, new in _NORMED.items()),
    (rf"{_HEAD}{_STEP}0\.main\.(\d)\.(.*)", r"heads.\1.\2.0.\3.\4"),
    (rf"{_HEAD}{_STEP}(.*)", r"heads.\1.\2.\3"),
]


def projected_of(state: State) -> Judge:
    """Judge of a projected discriminator from its shapes."""
    mixed = tuple(state[f"feature_network.scratch.layer{part}_ccm.weight"].shape[0] for part in range(4))
    fused = tuple(state[f"feature_network.scratch.layer{part}_csm.out_conv.weight"].shape[0] for part in range(4))
    pointwise = "discriminator.mini_discs.0.main.0.main.0.main.0.weight_orig" in state
    inner = "main.0.main.0.weight_orig" if pointwise else "main.0.weight_orig"
    heads: list[tuple[int, ...]] = []
    while f"discriminator.mini_discs.{len(heads)}.main.0.{inner}" in state:
        prefix = f"discriminator.mini_discs.{len(heads)}.main."
        steps: list[int] = []
        while f"{prefix}{len(steps)}.{inner}" in state:
            steps.append(state[f"{prefix}{len(steps)}.{inner}"].shape[0])
        heads.append(tuple(steps))
    return Judge("projected", mixed=mixed, fused=fused, heads=tuple(heads), pointwise=pointwise)

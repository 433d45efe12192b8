"""BiSeNet: names what every pixel of a face shows, from a context path that sees far and a shallow one that sees sharply.

A ResNet-18 goes down to a thirty-second of the picture; attention weighs the channels of its two coarsest maps, which come up again
and are fused with the sharp map at an eighth. Two more heads judge the coarser maps while it learns.
Yu et al.: BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation. ECCV 2018, arXiv 1808.00897; as trained for
faces by zllrunning/face-parsing.PyTorch and shipped by facexlib.
Differs: as that port, it has no spatial path, the ResNet's own map at an eighth takes its place; Adam in place of SGD, one rate for all
layers. Reproduced: the three heads of the port and its loss within 2e-4 (tests/parity).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing

# Names are those of `limn.faces.parse`; which side is left, the labels of CelebAMask-HQ decided, and mirrored training blurred
CLASSES = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "glasses",
    "left_ear",
    "right_ear",
    "earring",
    "nose",
    "inner_mouth",
    "upper_lip",
    "lower_lip",
    "neck",
    "necklace",
    "clothes",
    "hair",
    "hat",
)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


@dataclass(frozen=True)
class Config:
    """Architecture; the defaults are those of the published file."""

    classes: int = 19
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of the ResNet at a quarter, an eighth, a sixteenth, a thirty-second
    depths: tuple[int, ...] = (2, 2, 2, 2)  # residual blocks at each
    context: int = 128  # channels of the context path
    fused: int = 256  # channels after the fusion
    side: int = 64  # channels inside the two heads of training
    size: int = 512  # side of the aligned crops, pixels


class Convolution(nn.Module):
    """A convolution, its batch norm and a ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, 1, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """The basic block of a ResNet: x, or a 1x1 projection of it, plus two 3x3 convolutions."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.downsample(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    """(N, 3, H, W) -> its maps at an eighth, a sixteenth and a thirty-second."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        channels = config.widths[0]
        self.conv1, self.bn1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)
        for number, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True), 1):
            blocks = [Residual(channels if n == 0 else width, width, 2 if number > 1 and n == 0 else 1) for n in range(depth)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = width
        self.levels = len(config.widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1), []
        for number in range(1, self.levels + 1):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps[-3:]


class Attention(nn.Module):
    """The attention refinement module (section 3.2): channels are weighed by what the whole map shows."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, out)
        self.conv_atten = nn.Conv2d(out, out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))).sigmoid()


class ContextPath(nn.Module):
    """Pictures -> the ResNet's map at an eighth, and two of `context` channels at an eighth and a sixteenth."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.resnet = ResNet(config)
        self.arm16 = Attention(config.widths[-2], config.context)
        self.arm32 = Attention(config.widths[-1], config.context)
        self.conv_head32 = Convolution(config.context, config.context)
        self.conv_head16 = Convolution(config.context, config.context)
        self.conv_avg = Convolution(config.widths[-1], config.context, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, last = self.resnet(images)
        coarse = self.arm32(last) + self.conv_avg(last.mean((2, 3), keepdim=True))
        coarse = self.conv_head32(F.interpolate(coarse, sixteenth.shape[2:], mode="nearest"))
        middle = self.arm16(sixteenth) + coarse
        return eighth, self.conv_head16(F.interpolate(middle, eighth.shape[2:], mode="nearest")), coarse


class Fusion(nn.Module):
    """The feature fusion module (section 3.3): the sharp and the knowing map are joined, and their channels weighed."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convblk = Convolution(channels, out, 1)
        self.conv1 = nn.Conv2d(out, out // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(out // 4, out, 1, bias=False)

    def forward(self, sharp: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([sharp, context], 1))
        return x + x * self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True)))).sigmoid()


class Head(nn.Module):
    """A map -> logits of the classes at its resolution."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, width)
        self.conv_out = nn.Conv2d(width, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """(N, 3, H, W), normalised by MEAN and DEVIATION of ImageNet -> logits (N, classes, H, W) of the head that counts and of two more."""

    template = "ffhq"  # CelebA-HQ's alignment, nearly

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.cp = ContextPath(config)
        self.ffm = Fusion(config.widths[1] + config.context, config.fused)
        self.conv_out = Head(config.fused, config.fused, config.classes)
        self.conv_out16 = Head(config.context, config.side, config.classes)
        self.conv_out32 = Head(config.context, config.side, config.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: those of CelebAMask-HQ in the port's order, or numbers where there are others."""
        return CLASSES if self.config.classes == len(CLASSES) else tuple(f"class{n}" for n in range(self.config.classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, middle, coarse = self.cp(images)
        maps = self.conv_out(self.ffm(eighth, middle)), self.conv_out16(middle), self.conv_out32(coarse)
        first, second, third = (F.interpolate(m, images.shape[2:], mode="bilinear", align_corners=True) for m in maps)
        return first, second, third

    def parse(self, images: Tensor) -> Tensor:
        """Return logits (N, classes, S, S) of aligned faces (N, 3, S, S) in [-1, 1]; S should be `config.size`."""
        return self(normalised(images))[0]


def normalised(images: Tensor) -> Tensor:
    """Bring images from [-1, 1] to what a network of ImageNet reads."""
    mean, deviation = (images.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (images / 2 + 0.5 - mean) / deviation


def hard_cross_entropy(logits: Tensor, labels: Tensor, score: float, least: int, ignored: int = -100) -> Tensor:
    """Online hard example mining: the mean of the cross entropies of all pixels whose right class has less than `score`.

    logits (N, C, H, W), labels (N, H, W); where fewer than `least` pixels are so hard, the mean is over the `least` hardest.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="none").flatten().sort(descending=True).values
    bound, least = -math.log(score), min(least, losses.numel() - 1)
    return losses[losses > bound].mean() if losses[least] > bound else losses[:least].mean()


class Objective:
    """What BiSeNet minimises: the hard pixels' cross entropy of its three heads (section 3.3, eq. 1), each with weight one."""

    averaged = ("parser",)

    def __init__(self, config: Config, lr: float = 1e-3, score: float = 0.7, share: float = 1 / 16) -> None:
        self.parser = BiSeNet(config)
        self.networks = nn.ModuleDict({"parser": self.parser})
        self.lr, self.score, self.share = lr, score, share

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Losses of a batch with `image` (N, 3, S, S) in [-1, 1] and `mask`, class numbers (N, S, S)."""
        heads = self.parser(normalised(batch["image"]))
        least = int(self.share * batch["mask"].numel())
        names = ("eighth", "middle", "coarse")
        return {n: hard_cross_entropy(head.float(), batch["mask"], self.score, least) for n, head in zip(names, heads, strict=True)}

    def phases(self) -> list[Phase]:
        """One player, one phase."""
        return [Phase("parser", self.parser.parameters, self.loss, Adam(self.lr, weight_decay=5e-4), clip=10.0)]


def objective(config: Config = Config(), seed: int = 0, **settings: Any) -> Objective:
    """Build the network from a seed, without touching the global random state."""
    with drawing(seed):
        return Objective(config, **settings)


def is_bisenet(state: State) -> bool:
    """Tell whether these are the keys of the port."""
    return all(f"{name}.weight" in state for name in ("cp.resnet.conv1", "cp.arm16.conv.conv", "ffm.convblk.conv", "conv_out32.conv_out"))


def config_of(state: State) -> Config:
    """Infer the configuration from shapes; the side of the crops, which they do not tell, is the published one."""
    depths = tuple(sum(f"cp.resnet.layer{n}.{block}.conv1.weight" in state for block in range(100)) for n in range(1, 5))
    return Config(
        classes=state["conv_out.conv_out.weight"].shape[0],
        widths=tuple(state[f"cp.resnet.layer{n}.0.conv1.weight"].shape[0] for n in range(1, 5)),
        depths=depths,
        context=state["cp.conv_avg.conv.weight"].shape[0],
        fused=state["ffm.convblk.conv.weight"].shape[0],
        side=state["conv_out16.conv.conv.weight"].shape[0],
    )


def counted(state: State) -> State:
    """Give each batch norm the count of batches that older files lack."""
    stems = [name.removesuffix("running_var") for name in state if name.endswith(".running_var")]
    return {**{f"{stem}num_batches_tracked": torch.tensor(0) for stem in stems}, **state}


NETWORKS = {"parser": BiSeNet}

SMALL = Config(classes=13, widths=(16, 32, 64, 128), depths=(1, 1, 1, 1), context=48, fused=64, side=24, size=128)

PRESETS = {
    "celebamask-hq": Preset(Config(), data="parsing", batch=16, steps=80_000, objective={"lr": 1e-3}, decay="cosine"),
    "portraits128": Preset(
        SMALL,
        data="parsing",
        batch=16,
        steps=700,
        objective={"lr": 2e-3},
        ema_kimg=2.0,
        decay="cosine",
        reaches="with --steps 60, mean IoU 1.6 -> 23.1 % (hair 5 -> 56 %) on held-out portraits, 20 s of one CPU thread",
    ),
}

PUBLISHED = [Published("parser", "face-parsing", is_bisenet, config_of, BiSeNet, prepare=counted)]

CARD = Card(
    name="bisenet",
    title="BiSeNet for faces",
    chapter="perception",
    year=2018,
    arxiv="1808.00897",
    verbs=("parse", "train"),
    weights_licence="MIT code; trained on CelebAMask-HQ: for non-commercial research and education only",
    source="zllrunning/face-parsing.PyTorch",
)

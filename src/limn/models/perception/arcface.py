"""ArcFace: a residual network whose embeddings of one person lie within a small angle, and of two people do not.

Softmax over people with a margin added to the angle between an embedding and its person's centre makes the angles comparable between
people who were never seen. The networks here are the identity losses and identity encoders of most of the face-editing literature.
Deng, Guo, Xue, Zafeiriou: ArcFace: Additive Angular Margin Loss for Deep Face Recognition. CVPR 2019, arXiv 1801.07698.
Wang et al.: CosFace. CVPR 2018, arXiv 1801.09414. Differs: no partial sampling of classes; one process. Reproduced: the embeddings of
three published families within 1e-4 (tests/parity).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks import irse
from limn.blocks.irse import Trunk
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing

Family = Literal["ir", "iresnet", "mobile"]


@dataclass(frozen=True)
class Config:
    family: Family = "iresnet"  # "ir": without BN between the convolutions, output of unit length; "mobile": MobileFaceNet
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of the stages
    units: tuple[int, ...] = (3, 4, 14, 3)  # residual units of the stages: "50"; MobileFaceNet (1, 4, 6, 2)
    squeeze: bool = False  # squeeze-and-excitation; "ir" only
    embedding: int = 512
    size: int = 112  # pixels; faces aligned to the template `arcface-112`


# ------------------------------------------------------------------------------------------------------------------- IR and IR-SE


class IRNet(nn.Module):
    """Images (N, 3, size, size) in [-1, 1] -> embeddings (N, embedding) of unit length."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        trunk = Trunk(3, config.widths[0], tuple(config.widths), tuple(config.units), config.squeeze)
        width, side = config.widths[-1], config.size // 16
        self.input_layer, self.body = irse.stem(trunk), irse.body(trunk)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(width * side * side, config.embedding),
            nn.BatchNorm1d(config.embedding),
        )

    def forward(self, images: Tensor) -> Tensor:
        return irse.unit_length(self.output_layer(self.body(self.input_layer(images))))


# ----------------------------------------------------------------------------------------------------------------------- IResNet


class Residual(nn.Module):
    """BN, 3×3, BN, PReLU, 3×3 with the stride, BN, added to the input; nothing after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
        return self.bn3(y) + self.downsample(x)


class IResNet(nn.Module):
    """Images (N, 3, size, size) in [-1, 1] -> embeddings (N, embedding), not of unit length."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        inputs, width, side = config.widths[0], config.widths[-1], config.size // 16
        self.conv1 = nn.Conv2d(3, inputs, 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(inputs), nn.PReLU(inputs)
        for index, (outputs, count) in enumerate(zip(config.widths, config.units, strict=True), 1):
            units = [Residual(inputs if unit == 0 else outputs, outputs, 2 if unit == 0 else 1) for unit in range(count)]
            self.add_module(f"layer{index}", nn.Sequential(*units))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width * side * side, config.embedding)
        self.features = nn.BatchNorm1d(config.embedding)
        self.features.weight.requires_grad = False

    def forward(self, images: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(images)))
        for index in range(1, len(self.config.widths) + 1):
            x = getattr(self, f"layer{index}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


# ----------------------------------------------------------------------------------------------------------------- MobileFaceNet


class Layers(nn.Module):
    """Layers in a row under the name `layers`, as the published state dicts have it; `around` adds the input."""

    def __init__(self, *layers: nn.Module, around: bool = False) -> None:
        super().__init__()
        self.layers, self.around = nn.Sequential(*layers), around

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.around else self.layers(x)


def conv_block(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1, activation: bool = True) -> Layers:
    """Convolution, BN and PReLU."""
    padding = 0 if size == 7 else size // 2
    layers = [nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return Layers(*layers, *([nn.PReLU(outputs)] if activation else []))


def bottleneck(inputs: int, outputs: int, stride: int, groups: int, around: bool = False) -> Layers:
    """1×1, 3×3 in `groups`, 1×1 without activation."""
    first, middle = conv_block(inputs, groups, 1), conv_block(groups, groups, 3, stride=stride, groups=groups)
    return Layers(first, middle, conv_block(groups, outputs, 1, activation=False), around=around)


class MobileFaceNet(nn.Module):
    """Images (N, 3, 112, 112) in [-1, 1] -> embeddings (N, embedding), not of unit length.

    `widths` are the channels of the stages (64, 64, 128, 128 times the published scale); the groups of the 3×3 convolutions are not scaled.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.widths
        n = config.units
        first = conv_block(a, a, 3, groups=64) if n[0] == 1 else run(a, n[0], 128)
        second = [bottleneck(a, b, 2, 128), run(b, n[1], 128)]
        third, fourth = [bottleneck(b, c, 2, 256), run(c, n[2], 256)], [bottleneck(c, d, 2, 512), run(d, n[3], 256)]
        self.layers = nn.ModuleList([conv_block(3, a, 3, stride=2), first, *second, *third, *fourth])
        self.conv_sep = conv_block(d, 512, 1)
        everywhere = conv_block(512, 512, 7, groups=512, activation=False)
        self.features = Layers(everywhere, nn.Flatten(), nn.Linear(512, config.embedding, bias=False), nn.BatchNorm1d(config.embedding))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


def run(channels: int, count: int, groups: int) -> Layers:
    """Residual bottlenecks of one width."""
    return Layers(*(bottleneck(channels, channels, 1, groups, around=True) for _ in range(count)))


# --------------------------------------------------------------------------------------------------------------------- objective


def cosines(embeddings: Tensor, people: Tensor) -> Tensor:
    """Cosines (N, classes) between embeddings (N, D) and the centres of people (classes, D)."""
    return F.linear(F.normalize(embeddings), F.normalize(people)).clamp(-1, 1)


def combined_margin(
    cosine: Tensor,
    label: Tensor,
    scale: float = 64.0,
    *,
    angle: float = 0.5,
    offset: float = 0.0,
    ceiling: float = 0.0,
    factor: float = 1.0,
) -> Tensor:
    """Scaled logits: the own person's cos t becomes cos(factor t + angle) - offset (eq. 4 of ArcFace).

    The gradient passes the margin by, as in the published training code: it is that of a plain softmax at the margined logits.
    Logits of other people above `ceiling` (0: none) are set to zero.
    """
    own = F.one_hot(label, cosine.shape[1]).bool()
    if ceiling > 0:
        cosine = torch.where((cosine > ceiling) & ~own, torch.zeros_like(cosine), cosine)
    with torch.no_grad():
        margined = (factor * cosine.double().acos() + angle).cos().to(cosine.dtype) if angle or factor != 1 else cosine
        shift = torch.where(own, margined - offset - cosine, torch.zeros_like(cosine))
    return scale * (cosine + shift)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross entropy whose value counts no probability as less than 1e-30; the gradient is the plain one."""
    losses = F.cross_entropy(logits, label, reduction="none")
    return (losses + (losses.clamp_max(-math.log(1e-30)) - losses).detach()).mean()


def additive_angle(cosine: Tensor, label: Tensor, scale: float = 64.0, angle: float = 0.5) -> Tensor:
    """Scaled logits with an exact gradient: cos(t + angle), or cos t - angle sin(angle) where t + angle would exceed pi."""
    sine = (1 - cosine.square()).clamp_min(0).sqrt()
    margined = cosine * math.cos(angle) - sine * math.sin(angle)
    margined = torch.where(cosine > math.cos(math.pi - angle), margined, cosine - math.sin(math.pi - angle) * angle)
    return scale * torch.where(F.one_hot(label, cosine.shape[1]).bool(), margined, cosine)


def additive_cosine(cosine: Tensor, label: Tensor, scale: float = 30.0, offset: float = 0.35) -> Tensor:
    """Scaled logits of CosFace: cos t - offset for the own person."""
    return scale * (cosine - offset * F.one_hot(label, cosine.shape[1]))


class Objective:
    """Tells people apart: batches hold `image` (N, 3, size, size) and `label` (N,) below `identities`."""

    averaged = ("backbone",)

    def __init__(self, config: Config, seed: int, identities: int, adam: Adam) -> None:
        with drawing(seed):
            self.network = build(config)
            self.people = nn.ParameterDict({"weight": nn.Parameter(torch.randn(identities, config.embedding) * 0.01)})
        self.networks = nn.ModuleDict({"backbone": self.network, "people": self.people})
        self.adam = adam

    def loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Cross entropy of the margined logits."""
        cosine = cosines(self.network(batch["image"]).float(), self.people["weight"])
        return {"arcface": cross_entropy(combined_margin(cosine, batch["label"]), batch["label"])}

    def phases(self) -> list[Phase]:
        """Return the one phase."""
        return [Phase("backbone", self.networks.parameters, self.loss, self.adam, clip=5.0)]


def objective(config: Config, seed: int = 0, identities: int = 10_000, lr: float = 1e-3) -> Objective:
    """Make the objective of a backbone and its `identities` class centres."""
    return Objective(config, seed, identities, Adam(lr, weight_decay=5e-4))


def build(config: Config) -> nn.Module:
    """Make the network of the configuration's family."""
    families: dict[str, Callable[[Config], nn.Module]] = {"ir": IRNet, "iresnet": IResNet, "mobile": MobileFaceNet}
    return families[config.family](config)


# ------------------------------------------------------------------------------------------------------------- published weights


def ir_of(state: State) -> Config:
    """Config of an IR or IR-SE network from its shapes."""
    trunk = irse.trunk_of(state)
    embedding, flat = state["output_layer.3.weight"].shape
    return Config("ir", trunk.widths, trunk.units, trunk.squeeze, embedding, 16 * math.isqrt(flat // trunk.widths[-1]))


def iresnet_of(state: State) -> Config:
    """Config of an IResNet from its shapes."""
    units = tuple(count(state, f"layer{stage}.", ".conv1.weight") for stage in range(1, 5))
    widths = tuple(state[f"layer{stage}.0.conv1.weight"].shape[0] for stage in range(1, 5))
    embedding, flat = state["fc.weight"].shape
    return Config("iresnet", widths, units, False, embedding, 16 * math.isqrt(flat // widths[-1]))


def mobile_of(state: State) -> Config:
    """Config of a MobileFaceNet from its shapes."""
    outputs = ["layers.0.layers.0.weight", *(f"layers.{stage}.layers.2.layers.0.weight" for stage in (2, 4, 6))]
    units = [count(state, f"layers.{stage}.layers.", ".layers.0.layers.0.weight") for stage in (1, 3, 5, 7)]
    embedding = state["features.layers.2.weight"].shape[0]
    return Config("mobile", tuple(state[name].shape[0] for name in outputs), (max(units[0], 1), *units[1:]), False, embedding)


def count(state: State, prefix: str, suffix: str) -> int:
    """Count the names of one prefix, a number and one suffix."""
    return sum(name.startswith(prefix) and name.endswith(suffix) and name[len(prefix) : -len(suffix)].isdigit() for name in state)


NETWORKS = {"backbone": build}

PRESETS: dict[str, Any] = {"r50": Preset(Config(), data="identities", batch=128, steps=800_000)}


def has(*names: str) -> Callable[[State], bool]:
    """Make a test for names of a state dict."""
    return lambda state: all(name in state for name in names)


PUBLISHED = [
    Published("backbone", "ir", has("output_layer.3.weight", "body.0.res_layer.1.weight"), ir_of, build),
    Published("backbone", "iresnet", has("layer4.0.bn3.weight", "fc.weight", "features.weight"), iresnet_of, build),
    Published("backbone", "mobile", has("conv_sep.layers.0.weight", "features.layers.2.weight"), mobile_of, build),
]

CARD = Card(
    name="arcface",
    title="ArcFace",
    chapter="perception",
    year=2019,
    arxiv="1801.07698",
    verbs=("train", "evaluate"),
    weights_licence="arcface_torch: non-commercial research; InsightFace_Pytorch: MIT code, training data of unclear rights",
    source="deepinsight/insightface",
)

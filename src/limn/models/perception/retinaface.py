"""RetinaFace: a single-shot face detector that finds five points with each box.

A backbone, a feature pyramid and a context module give three maps; at each cell two prior squares are scored, moved and given five
points. Deng, Guo, Ververas, Kotsia, Zafeiriou: RetinaFace: Single-shot Multi-level Face Localisation in the Wild. CVPR 2020,
arXiv 1905.00641. Differs: as in the published PyTorch implementation, without the dense mesh branch and deformable convolutions.
Reproduced: the published network's outputs, losses and suppression (tests/parity), both backbones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.boxes import iou, nms
from limn.models.records import Adam, Card, Entry, Losses, Phase, Preset, Published, State, drawing

STRIDES = (8, 16, 32)
SIZES = ((16, 32), (64, 128), (256, 512))  # sides of the two prior squares at each stride, pixels
VARIANCES = (0.1, 0.2)  # scale of the regressed centres and points, and of the logarithms of sides
MOST = 2000  # candidates that enter the suppression, the best
MEAN_BGR = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class Config:
    backbone: Literal["mobile", "resnet"] = "mobile"  # MobileNet v1 or ResNet with bottlenecks
    width: int = 8  # channels after the first convolution: 8 is MobileNet 0.25; ResNet 64
    units: tuple[int, ...] = ()  # ResNet: bottlenecks of each stage, (3, 4, 6, 3) is ResNet-50
    channels: int = 64  # of the pyramid; ResNet-50 256

    @property
    def slope(self) -> float:
        """Slope of the leaky ReLUs in pyramid and context modules: plain ReLU in wide ones."""
        return 0.1 if self.channels <= 64 else 0.0


RESNET50 = Config("resnet", 64, (3, 4, 6, 3), 256)


class Raw(NamedTuple):
    """What the network says of every prior: offsets (N, P, 4), class logits (N, P, 2) and points (N, P, 10)."""

    boxes: Tensor
    classes: Tensor
    points: Tensor


# --------------------------------------------------------------------------------------------------------------------- networks


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, slope: float | None = 0.0) -> nn.Sequential:
    """Convolution and batch norm; a leaky ReLU after them unless the slope is None."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if slope is None else [nn.LeakyReLU(slope, inplace=True)]))


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Depthwise 3x3, then 1x1, each with batch norm and a leaky ReLU of 0.1."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )


class MobileNet(nn.Module):
    """MobileNet v1 to stride 32: (N, 3, H, W) -> three maps at strides 8, 16, 32 of 8, 16 and 32 times the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        first = [(w, 2 * w, 1), (2 * w, 4 * w, 2), (4 * w, 4 * w, 1), (4 * w, 8 * w, 2), (8 * w, 8 * w, 1)]
        self.stage1 = nn.Sequential(_conv(3, w, 3, 2, 0.1), *(_separable(*row) for row in first))
        self.stage2 = nn.Sequential(_separable(8 * w, 16 * w, 2), *(_separable(16 * w, 16 * w, 1) for _ in range(5)))
        self.stage3 = nn.Sequential(_separable(16 * w, 32 * w, 2), _separable(32 * w, 32 * w, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stage1(x)
        middle = self.stage2(fine)
        return [fine, middle, self.stage3(middle)]


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width, added to a shortcut (ResNet v1.5)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        shortcut = inputs != 4 * width or stride != 1
        self.downsample = _conv(inputs, 4 * width, 1, stride, None) if shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """ResNet to stride 32: (N, 3, H, W) -> three maps at strides 8, 16, 32 of 8, 16 and 32 times the width."""

    def __init__(self, width: int, units: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, count in enumerate(units):
            inner = width * 2**stage
            blocks = []
            for unit in range(count):
                blocks.append(Bottleneck(inputs, inner, 2 if unit == 0 and stage > 0 else 1))
                inputs = 4 * inner
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        maps = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps[1:]


class Pyramid(nn.Module):
    """Three maps brought to one width; coarse ones added to finer ones, to the finer one's size, and smoothed."""

    def __init__(self, inputs: int, config: Config) -> None:
        super().__init__()
        out, slope = config.channels, config.slope
        self.output1, self.output2, self.output3 = (_conv(inputs * 2**i, out, 1, 1, slope) for i in range(3))
        self.merge1, self.merge2 = _conv(out, out, slope=slope), _conv(out, out, slope=slope)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:], mode="nearest"))
        return [fine, middle, coarse]


class Context(nn.Module):
    """The context module of SSH: half the channels see 3x3, a quarter 5x5, a quarter 7x7."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inputs, quarter, slope = config.channels, config.channels // 4, config.slope
        self.conv3X3 = _conv(inputs, 2 * quarter, slope=None)
        self.conv5X5_1, self.conv5X5_2 = _conv(inputs, quarter, slope=slope), _conv(quarter, quarter, slope=None)
        self.conv7X7_2, self.conv7x7_3 = _conv(quarter, quarter, slope=slope), _conv(quarter, quarter, slope=None)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)
        return F.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))], 1))


class Head(nn.Module):
    """A 1x1 convolution to ``values`` numbers for each of the two priors: (N, C, h, w) -> (N, 2 h w, values)."""

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(channels, 2 * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)


class RetinaFace(nn.Module):
    """The detector; the names of its parts are those of the published state dicts."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        mobile = config.backbone == "mobile"
        self.body = MobileNet(config.width) if mobile else ResNet(config.width, config.units)
        self.fpn = Pyramid(8 * config.width, config)
        self.ssh1, self.ssh2, self.ssh3 = Context(config), Context(config), Context(config)
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Head(config.channels, values) for _ in STRIDES) for values in (2, 4, 10)
        )

    def forward(self, bgr: Tensor) -> Raw:
        """Return what the network says of BGR images (N, 3, H, W) of which `MEAN_BGR` is subtracted."""
        maps = self.fpn(self.body(bgr))
        maps = [ssh(level) for ssh, level in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        heads = (self.BboxHead, self.ClassHead, self.LandmarkHead)
        return Raw(*(torch.cat([head(level) for head, level in zip(heads_of, maps, strict=True)], 1) for heads_of in heads))

    @torch.inference_mode()
    def detect(self, image: Tensor, threshold: float = 0.5) -> Tensor:
        """Return faces (K, 15), best first: x0, y0, x1, y1, score and five points, in pixels of the image (1, 3, H, W) in [-1, 1]."""
        raw = self(prepared(image))
        height, width = image.shape[2:]
        prior = priors(height, width).to(image.device)
        scores = raw.classes[0].softmax(-1)[:, 1]
        rows = torch.cat([boxes_of(raw.boxes[0], prior), scores[:, None], points_of(raw.points[0], prior)], 1)
        rows[:, 0:4:2] *= width
        rows[:, 1:4:2] *= height
        rows[:, 5::2] *= width
        rows[:, 6::2] *= height
        rows = rows[scores >= threshold]
        rows = rows[rows[:, 4].topk(min(len(rows), MOST)).indices]
        return rows[nms(rows[:, :4], rows[:, 4], 0.4)]


def prepared(image: Tensor) -> Tensor:
    """Return images (N, 3, H, W), RGB in [-1, 1], as the network wants them: BGR, 0..255, less the mean."""
    return (image.flip(1) + 1) * 127.5 - image.new_tensor(MEAN_BGR)[:, None, None]


# --------------------------------------------------------------------------------------------------------- priors and their codes


def priors(height: int, width: int) -> Tensor:
    """Return the prior boxes (P, 4) of an image: centre and sides, relative to its width and height; strides, rows, columns, sizes."""
    rows = []
    for stride, sizes in zip(STRIDES, SIZES, strict=True):
        y, x = torch.meshgrid(torch.arange(ceil(height / stride)), torch.arange(ceil(width / stride)), indexing="ij")
        centres = (torch.stack([x, y], -1).reshape(-1, 1, 2) + 0.5) * stride
        sides = torch.tensor(sizes, dtype=torch.float32)[None, :, None].expand(len(centres), -1, 2)
        rows.append(torch.cat([centres.expand(-1, len(sizes), -1), sides], -1).reshape(-1, 4))
    return torch.cat(rows) / torch.tensor([width, height, width, height])


def boxes_of(offsets: Tensor, prior: Tensor) -> Tensor:
    """Decode offsets (P, 4) into boxes x0, y0, x1, y1, relative as the priors are."""
    centre = prior[:, :2] + offsets[:, :2] * VARIANCES[0] * prior[:, 2:]
    half = prior[:, 2:] * (offsets[:, 2:] * VARIANCES[1]).exp() / 2
    return torch.cat([centre - half, centre + half], 1)


def points_of(offsets: Tensor, prior: Tensor) -> Tensor:
    """Decode offsets (P, 10) into five points, relative as the priors are."""
    return prior[:, :2].repeat(1, 5) + offsets * VARIANCES[0] * prior[:, 2:].repeat(1, 5)


def codes(boxes: Tensor, points: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Encode boxes (P, 4) and points (P, 10), the inverse of `boxes_of` and `points_of`."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 - prior[:, :2]) / (VARIANCES[0] * prior[:, 2:])
    sides = ((boxes[:, 2:] - boxes[:, :2]) / prior[:, 2:]).clamp(min=1e-9).log() / VARIANCES[1]
    offsets = (points - prior[:, :2].repeat(1, 5)) / (VARIANCES[0] * prior[:, 2:].repeat(1, 5))
    return torch.cat([centre, sides], 1), offsets


# -------------------------------------------------------------------------------------------------------------------- objective


def match(targets: Tensor, prior: Tensor, overlap: float = 0.35, least: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return for each prior (P,) the target row it answers for, and its label: 1, -1 (a face without points) or 0 (background).

    A prior answers for the target it overlaps most, if by ``overlap``; the best prior of each target does so if by ``least``.
    """
    corners = torch.cat([prior[:, :2] - prior[:, 2:] / 2, prior[:, :2] + prior[:, 2:] / 2], 1)
    overlaps = iou(targets[:, :4], corners)
    best, prior_of = overlaps.max(1)
    share, target = overlaps.max(0)
    if not (best >= least).any():
        return target, torch.zeros_like(target)
    share[prior_of[best >= least]] = 2.0
    for row, index in enumerate(prior_of.tolist()):
        target[index] = row
    return target, torch.where(share < overlap, 0, targets[target, 14].long())


def multibox_loss(raw: Raw, prior: Tensor, targets: list[Tensor], overlap: float = 0.35, negatives: int = 7) -> Losses:
    """Return smooth L1 of boxes and points and cross entropy of classes, each summed and divided by the number of its positives.

    ``targets``: per image rows x0, y0, x1, y1, five points (relative) and the label; ``negatives`` background priors for each face
    are asked, the hardest.
    """
    found = [match(rows, prior, overlap) for rows in targets]
    wanted = [codes(rows[:, :4][target], rows[:, 4:14][target], prior) for rows, (target, _) in zip(targets, found, strict=True)]
    label = torch.stack([each[1] for each in found])
    face, pointed = label != 0, label > 0
    boxes, points = (torch.stack([each[i] for each in wanted]) for i in (0, 1))
    truth = face.long()
    entropy = F.cross_entropy(raw.classes.transpose(1, 2), truth, reduction="none")
    rank = entropy.detach().masked_fill(face, 0).argsort(1, descending=True).argsort(1)
    asked = face | (rank < (negatives * face.sum(1, keepdim=True)).clamp(max=label.shape[1] - 1))
    count = face.sum().clamp(min=1)
    return {
        "box": F.smooth_l1_loss(raw.boxes[face], boxes[face], reduction="sum") / count,
        "class": entropy[asked].sum() / count,
        "points": F.smooth_l1_loss(raw.points[pointed], points[pointed], reduction="sum") / pointed.sum().clamp(min=1),
    }


class RetinaFaceObjective:
    """What the detector minimises: the multi-box loss, boxes counted twice."""

    averaged = ("detector",)

    def __init__(self, config: Config, lr: float = 1e-3, box_weight: float = 2.0) -> None:
        self.networks = nn.ModuleDict({"detector": RetinaFace(config)})
        self.lr, self.box_weight = lr, box_weight

    def phases(self) -> list[Phase]:
        """One player, one phase."""
        network = self.networks["detector"]
        return [Phase("detector", network.parameters, self.loss, Adam(self.lr, weight_decay=5e-4), clip=10.0)]

    def loss(self, batch: Mapping[str, Any], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Return the losses of a batch of the data kind "scenes": image, boxes (N, G, 4) and points (N, G, 10) in pixels, kind (N, G)."""
        image = batch["image"]
        height, width = image.shape[2:]
        scale = image.new_tensor([width, height])
        boxes, points = batch["boxes"] / scale.repeat(2), batch["points"].flatten(2) / scale.repeat(5)
        rows = torch.cat([boxes, points, (batch["kind"] > 0)[..., None].float()], -1)
        targets = [row[kind > 0] for row, kind in zip(rows, batch["kind"], strict=True)]
        nobody = rows.new_zeros(1, 15)  # a box without area matches no prior
        losses = multibox_loss(
            self.networks["detector"](prepared(image)),
            priors(height, width).to(image.device),
            [row if len(row) else nobody for row in targets],
        )
        return losses | {"box": self.box_weight * losses["box"]}


def objective(config: Config = Config(), seed: int = 0, **settings: Any) -> RetinaFaceObjective:
    """Build the network from a seed, without touching the global random state."""
    with drawing(seed):
        return RetinaFaceObjective(config, **settings)


# -------------------------------------------------------------------------------------------------------------------- published


def _plain(state: State) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _config_of(state: State) -> Config:
    """Infer the configuration from shapes; a ResNet's stages are counted."""
    plain = _plain(state)
    channels = plain["fpn.merge1.0.weight"].shape[0]
    if "body.stage1.0.0.weight" in plain:
        return Config("mobile", plain["body.stage1.0.0.weight"].shape[0], (), channels)
    units = []
    for stage in range(1, 5):
        units.append(sum(f"body.layer{stage}.{unit}.conv1.weight" in plain for unit in range(200)))
    return Config("resnet", plain["body.conv1.weight"].shape[0], tuple(units), channels)


def _recognise(state: State) -> bool:
    return {"ClassHead.0.conv1x1.weight", "LandmarkHead.2.conv1x1.bias", "ssh1.conv7x7_3.0.weight"} <= set(_plain(state))


NETWORKS = {"detector": RetinaFace}

# The published recipe (WIDER FACE, which is for research only): SGD 1e-3, momentum 0.9, batch 32, 250 epochs, crops of 640.
PRESETS = {"scenes": Preset(Config(), data="scenes", batch=32, steps=20_000, reading={"size": 640}, reaches="not measured")}

PUBLISHED = [
    Published(
        part="detector",
        layout="biubug6",
        recognise=_recognise,
        infer=_config_of,
        build=RetinaFace,
        names=[(r"(?:module\.)?body\.fc\..*", None), (r"module\.(.*)", r"\1")],
    )
]

CARD = Card(
    name="retinaface",
    title="RetinaFace: Single-shot Multi-level Face Localisation in the Wild",
    chapter="perception",
    year=2020,
    arxiv="1905.00641",
    verbs=("detect", "train"),
    weights_licence="MIT (the files); trained on WIDER FACE, whose pictures are for research only",
    entries=(
        Entry(
            "https://github.com/biubug6/Face-Detector-1MB-with-landmark/raw/7f49cebe8c46c0d36debf2f4776dff35dd59a071/weights/mobilenet0.25_Final.pth",
            "5f88f7957d9eaef82b49b9e0202bc56e97292e2aede2999209accd34442cc4df",
            1786259,
            "MIT; trained on WIDER FACE, whose pictures are for research only",
        ),
    ),
    source="biubug6/Pytorch_Retinaface",
)

"""YuNet: a face detector with five points in 76 thousand parameters.

Depthwise units make three maps; each cell of each map is one anchor-free prediction of class, objectness, box and points; training
gives every face to the cells that predict it best. Wu, Peng, Yu: YuNet: A Tiny Millisecond-level Face Detector. Machine Intelligence
Research 20, 2023. Losses: Peng, Yu, A Systematic IoU-Related Method (extended IoU), 2021; Ge et al., YOLOX (SimOTA), arXiv 2107.08430.
Differs: nothing. Reproduced: the published network's outputs and OpenCV's scores (tests/parity); its ONNX files load too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.boxes import iou, nms
from limn.models.records import Adam, Card, Entry, Losses, Phase, Preset, Published, State, drawing

STRIDES = (8, 16, 32)
MOST = 2000  # candidates that enter the suppression, the best


@dataclass(frozen=True)
class Config:
    stages: tuple[tuple[int, ...], ...] = ((3, 16, 16), (16, 64), (64, 64), (64, 64), (64, 64), (64, 64))  # channels: yunet_n
    halved: tuple[int, ...] = (0, 2, 3, 4)  # stages after which a max-pool halves the map; the first stage halves it too
    outputs: tuple[int, ...] = (3, 4, 5)  # stages whose maps are used, strides 8, 16, 32
    channels: int = 64  # of the head
    shared: int = 1  # units in the head before it branches
    branch: int = 0  # further units of each branch: one for the class, one for the rest


SMALL = Config(stages=((3, 16, 16), (16, 32), (32, 64), (64, 64), (64, 64), (64, 64)), shared=0)  # yunet_s


class Raw(NamedTuple):
    """What the network says of every cell: logits (N, P, 1) of class and objectness, box codes (N, P, 4), point codes (N, P, 10)."""

    classes: Tensor
    objects: Tensor
    boxes: Tensor
    points: Tensor


# --------------------------------------------------------------------------------------------------------------------- networks


class Unit(nn.Module):
    """1x1, then depthwise 3x3, both with bias; batch norm and ReLU after them unless it is the last of a branch."""

    def __init__(self, inputs: int, outputs: int, last: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)
        self.bn = nn.Identity() if last else nn.BatchNorm2d(outputs)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv2(self.conv1(x)))
        return x if self.last else F.relu(x, inplace=True)


class Stem(nn.Module):
    """A full 3x3 convolution with stride 2 and a unit."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, middle, 3, 2, 1), nn.BatchNorm2d(middle)
        self.conv2 = Unit(middle, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True))


class Pair(nn.Module):
    """Two units, the second changes the number of channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Unit(inputs, inputs), Unit(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Backbone(nn.Module):
    """(N, 3, H, W) -> maps at strides 8, 16, 32; sides are multiples of 32."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.halved, self.outputs, self.count = config.halved, config.outputs, len(config.stages)
        for index, channels in enumerate(config.stages):
            self.add_module(f"model{index}", Stem(*channels) if index == 0 else Pair(*channels))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index in range(self.count):
            x = self.get_submodule(f"model{index}")(x)
            if index in self.outputs:
                maps.append(x)
            if index in self.halved:
                x = F.max_pool2d(x, 2)
        return maps


class Neck(nn.Module):
    """A unit per map; coarser maps are added to finer ones, nearest neighbour, before the finer one's unit."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(Unit(config.stages[index][-1], config.stages[index][-1]) for index in config.outputs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        done = [self.lateral_convs[-1](maps[-1])]
        for unit, level in zip(reversed(self.lateral_convs[:-1]), reversed(maps[:-1]), strict=True):
            done.insert(0, unit(level + F.interpolate(done[0], size=level.shape[2:], mode="nearest")))
        return done


def _tower(inputs: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Unit(inputs if index == 0 else channels, channels) for index in range(count)))


class Head(nn.Module):
    """Class, box, objectness and points of each map, each by a unit of its own."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inputs = [config.stages[index][-1] for index in config.outputs]
        if config.shared:
            self.multi_level_share_convs = nn.ModuleList(_tower(width, config.channels, config.shared) for width in inputs)
            inputs = [config.channels] * len(inputs)
        if config.branch:
            self.multi_level_cls_convs = nn.ModuleList(_tower(width, config.channels, config.branch) for width in inputs)
            self.multi_level_reg_convs = nn.ModuleList(_tower(width, config.channels, config.branch) for width in inputs)
            inputs = [config.channels] * len(inputs)
        self.multi_level_cls, self.multi_level_bbox, self.multi_level_obj, self.multi_level_kps = (
            nn.ModuleList(Unit(width, values, last=True) for width in inputs) for values in (1, 4, 1, 10)
        )

    def forward(self, maps: list[Tensor]) -> Raw:
        shared, of_class, of_rest = (getattr(self, f"multi_level_{name}_convs", None) for name in ("share", "cls", "reg"))
        maps = _each(shared, maps)
        seen, rest = _each(of_class, maps), _each(of_rest, maps)
        parts = (
            (self.multi_level_cls, seen),
            (self.multi_level_obj, rest),
            (self.multi_level_bbox, rest),
            (self.multi_level_kps, rest),
        )
        return Raw(*(torch.cat([x.flatten(2).transpose(1, 2) for x in _each(units, levels)], 1) for units, levels in parts))


def _each(units: nn.ModuleList | None, maps: list[Tensor]) -> list[Tensor]:
    return maps if units is None else [unit(level) for unit, level in zip(units, maps, strict=True)]


class YuNet(nn.Module):
    """The detector; the names of its parts are those of the published state dicts."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.backbone, self.neck, self.bbox_head = Backbone(config), Neck(config), Head(config)

    def forward(self, bgr: Tensor) -> Raw:
        """Return what the network says of BGR images (N, 3, H, W) in 0..255, sides multiples of 32."""
        return self.bbox_head(self.neck(self.backbone(bgr)))

    @torch.inference_mode()
    def detect(self, image: Tensor, threshold: float = 0.6) -> Tensor:
        """Return faces (K, 15), best first: x0, y0, x1, y1, score (OpenCV's) and five points, in pixels of the image (1, 3, H, W)."""
        height, width = image.shape[2:]
        bgr = F.pad((image.flip(1) + 1) * 127.5, (0, -width % 32, 0, -height % 32))
        raw = self(bgr)
        cells = grid(bgr.shape[2], bgr.shape[3]).to(image.device)
        score = (raw.classes.sigmoid() * raw.objects.sigmoid()).sqrt()[0]
        rows = torch.cat([boxes_of(raw.boxes[0], cells), score, points_of(raw.points[0], cells)], 1)
        rows = rows[score[:, 0] >= threshold]
        rows = rows[rows[:, 4].topk(min(len(rows), MOST)).indices]
        return rows[nms(rows[:, :4], rows[:, 4], 0.3)]


def grid(height: int, width: int) -> Tensor:
    """Return x, y and stride (P, 3) of every cell: strides, rows, columns; cells lie at multiples of the stride."""
    rows = []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        corner = torch.stack([x, y], -1).reshape(-1, 2) * stride
        rows.append(torch.cat([corner, torch.full((len(corner), 1), stride)], 1))
    return torch.cat(rows).float()


def boxes_of(codes: Tensor, cells: Tensor) -> Tensor:
    """Decode (..., P, 4) into boxes x0, y0, x1, y1 in pixels."""
    stride = cells[:, 2:]
    centre, half = cells[:, :2] + codes[..., :2] * stride, codes[..., 2:].exp() * stride / 2
    return torch.cat([centre - half, centre + half], -1)


def points_of(codes: Tensor, cells: Tensor) -> Tensor:
    """Decode (..., P, 10) into five points in pixels."""
    return cells[:, :2].repeat(1, 5) + codes * cells[:, 2:]


# -------------------------------------------------------------------------------------------------------------------- objective


def extended_iou_loss(boxes: Tensor, truth: Tensor, smooth: float = 0.1) -> Tensor:
    """Return the extended IoU loss (P,) of boxes (P, 4): the overlap goes on below zero for boxes apart, and is smooth near one."""
    start, stop = torch.maximum(boxes[:, :2], truth[:, :2]), torch.minimum(boxes[:, 2:], truth[:, 2:])
    origin = torch.minimum(boxes[:, :2], truth[:, :2])
    low, high = torch.minimum(start, stop) - origin, torch.maximum(start, stop) - origin
    start, stop = start - origin, stop - origin
    inner = stop.prod(1) + low.prod(1) - (start * high.flip(1)).sum(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1)
    loss = 1 - inner / (area - inner).clamp(min=1e-7)
    return torch.where(loss < smooth, loss**2 / (2 * smooth), loss - smooth / 2)


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, truth: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return which face (P,) each cell answers for (-1: none) and how well its box fits it (P,): SimOTA for one class.

    A face goes to as many of the cells in or near it as the sum of its ten best overlaps says, to those of the least cost
    (cross entropy + 3 times the negative logarithm of the overlap; cells not both in the box and near its middle cost more).
    """
    nothing = torch.full((len(cells),), -1, device=cells.device)
    if not len(truth):
        return nothing, torch.zeros(len(cells), device=cells.device)
    at = cells[:, None, :2] + cells[:, None, 2:] / 2
    within = ((at > truth[None, :, :2]) & (at < truth[None, :, 2:])).all(-1)
    near = ((at - (truth[:, :2] + truth[:, 2:])[None] / 2).abs() < 2.5 * cells[:, None, 2:]).all(-1)
    possible = (within | near).any(1)
    overlaps = iou(boxes, truth)
    cost = -scores.clamp(1e-7, 1).log()[:, None] - 3 * (overlaps + 1e-7).log() + 1e5 * ~(within & near) + 1e9 * ~possible[:, None]
    count = overlaps.masked_fill(~possible[:, None], 0).topk(min(10, len(cells)), 0).values.sum(0).int().clamp(min=1)
    chosen = cost.argsort(0).argsort(0) < count
    chosen &= possible[:, None]
    best = cost.masked_fill(~chosen, torch.inf).min(1)
    face = torch.where(best.values.isfinite(), best.indices, nothing)
    return face, overlaps.gather(1, face.clamp(min=0)[:, None])[:, 0] * (face >= 0)


def losses(raw: Raw, cells: Tensor, truth: list[tuple[Tensor, Tensor]]) -> Losses:
    """Return the four losses of a batch, each divided by the number of cells that answer for a face.

    ``truth``: per image boxes (G, 4) and points (G, 10) in pixels. The class is trained to the overlap reached, objectness to 1.
    """
    boxes = boxes_of(raw.boxes, cells)
    scores = raw.classes.detach().sigmoid()[..., 0] * raw.objects.detach().sigmoid()[..., 0]
    parts: dict[str, list[Tensor]] = {"class": [], "object": [], "box": [], "points": []}
    count = 0
    for n, (true_boxes, true_points) in enumerate(truth):
        face, fit = assign(scores[n].sqrt(), boxes[n].detach(), true_boxes, cells)
        hit = face >= 0
        count += int(hit.sum())
        codes = (true_points[face[hit]] - cells[hit, :2].repeat(1, 5)) / cells[hit, 2:]
        parts["class"].append(F.binary_cross_entropy_with_logits(raw.classes[n, hit, 0], fit[hit], reduction="sum"))
        parts["object"].append(F.binary_cross_entropy_with_logits(raw.objects[n, :, 0], hit.float(), reduction="sum"))
        parts["box"].append(5 * extended_iou_loss(boxes[n, hit], true_boxes[face[hit]]).sum())
        parts["points"].append(0.1 * F.smooth_l1_loss(raw.points[n, hit], codes, reduction="sum", beta=1 / 9))
    return {name: torch.stack(values).sum() / max(count, 1) for name, values in parts.items()}


class YuNetObjective:
    """What the detector minimises: class, objectness, extended IoU and points of the cells that answer for a face."""

    averaged = ("detector",)

    def __init__(self, config: Config, lr: float = 2e-3) -> None:
        self.networks = nn.ModuleDict({"detector": YuNet(config)})
        self.lr = lr

    def phases(self) -> list[Phase]:
        """One player, one phase."""
        network = self.networks["detector"]
        return [Phase("detector", network.parameters, self.loss, Adam(self.lr, weight_decay=5e-4), clip=35.0)]

    def loss(self, batch: Mapping[str, Any], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Return the losses of a batch of the data kind "scenes": image, boxes (N, G, 4) and points (N, G, 10) in pixels, kind (N, G)."""
        image = batch["image"]
        shown = batch["kind"] > 0
        truth = [(boxes[face], points[face]) for boxes, points, face in zip(batch["boxes"], batch["points"], shown, strict=True)]
        raw = self.networks["detector"]((image.flip(1) + 1) * 127.5)
        return losses(raw, grid(image.shape[2], image.shape[3]).to(image.device), truth)


def objective(config: Config = Config(), seed: int = 0, **settings: Any) -> YuNetObjective:
    """Build the network from a seed, without touching the global random state."""
    with drawing(seed):
        return YuNetObjective(config, **settings)


# -------------------------------------------------------------------------------------------------------------------- published


def _is_onnx(state: State) -> bool:
    """Whether these are the initialisers of the published ONNX files: normalised convolutions have numbers for names there."""
    return "backbone.model0.conv2.conv1.weight" in state and "backbone.model0.conv1.weight" not in state


def _is_pytorch(state: State) -> bool:
    return {"backbone.model0.conv1.weight", "backbone.model0.conv2.conv1.weight", "bbox_head.multi_level_kps.0.conv2.weight"} <= set(state)


def _count(state: State, pattern: str) -> int:
    return next(index for index in range(100) if pattern.format(index) not in state)


def _config_of(state: State) -> Config:
    """Infer the configuration from shapes; where maps are halved and used cannot be seen, and is as published."""

    def channels(name: str, axis: int) -> int:
        return state[f"{name}.conv1.weight"].shape[axis]

    stem = channels("backbone.model0.conv2", 1), channels("backbone.model0.conv2", 0)
    stages: list[tuple[int, ...]] = [(3, *stem)]
    for index in range(1, _count(state, "backbone.model{}.conv2.conv1.weight")):
        stages.append((channels(f"backbone.model{index}.conv1", 1), channels(f"backbone.model{index}.conv2", 0)))
    return Config(
        stages=tuple(stages),
        channels=channels("bbox_head.multi_level_cls.0", 1),
        shared=_count(state, "bbox_head.multi_level_share_convs.0.{}.conv1.weight"),
        branch=_count(state, "bbox_head.multi_level_cls_convs.0.{}.conv1.weight"),
    )


def _unfolded(state: State) -> dict[str, Tensor]:
    """Give the numbered, normalised convolutions of an ONNX file their names, and batch norms that do nothing.

    They are numbered in the order of computing: stem, stages, neck from the coarsest map, shared units of the head.
    """
    config = _config_of(state)
    named = {name: tensor for name, tensor in state.items() if not name.isdigit()}
    weights = sorted((int(name) for name, tensor in state.items() if name.isdigit() and tensor.dim() == 4))
    units = [f"backbone.model{stage}.{part}" for stage in range(1, len(config.stages)) for part in ("conv1", "conv2")]
    units += [f"neck.lateral_convs.{level}" for level in (2, 1, 0)]
    units += [f"bbox_head.multi_level_share_convs.{level}.{unit}" for level in range(3) for unit in range(config.shared)]
    places = [("backbone.model0.conv1", "backbone.model0.bn1")]
    places += [(f"{unit}.conv2", f"{unit}.bn") for unit in ["backbone.model0.conv2", *units]]
    for (convolution, norm), number in zip(places, weights, strict=True):
        named[f"{convolution}.weight"], named[f"{convolution}.bias"] = state[str(number)], state[str(number + 1)]
        width = len(state[str(number)])
        named |= {f"{norm}.{name}": torch.zeros(width) for name in ("bias", "running_mean")}
        named |= {f"{norm}.weight": torch.ones(width), f"{norm}.running_var": torch.full((width,), 1 - nn.BatchNorm2d(1).eps)}
        named[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return named


NETWORKS = {"detector": YuNet}

# The published recipe (WIDER FACE, which is for research only): SGD 0.01, momentum 0.9, batch 16, 640 epochs, pictures of 640.
PRESETS = {
    "scenes": Preset(Config(), data="scenes", batch=32, steps=20_000, reading={"size": 640}, reaches="not measured"),
    "scenes-small": Preset(SMALL, data="scenes", batch=32, steps=20_000, reading={"size": 640}, reaches="not measured"),
}

PUBLISHED = [
    Published(part="detector", layout="libfacedetection", recognise=_is_pytorch, infer=_config_of, build=YuNet),
    Published(part="detector", layout="onnx", recognise=_is_onnx, infer=_config_of, build=YuNet, prepare=_unfolded),
]

CARD = Card(
    name="yunet",
    title="YuNet: A Tiny Millisecond-level Face Detector",
    chapter="perception",
    year=2023,
    arxiv="",
    verbs=("detect", "train"),
    weights_licence="Apache-2.0 (the training repository), MIT (opencv_zoo); trained on WIDER FACE, whose pictures are for research only",
    entries=(
        Entry(
            "https://github.com/ShiqiYu/libfacedetection.train/raw/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/yunet_n_640_640.onnx",
            "25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
            317466,
            "Apache-2.0; trained on WIDER FACE, whose pictures are for research only",
        ),
    ),
    source="ShiqiYu/libfacedetection.train",
)

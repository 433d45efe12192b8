"""limn's own face detector: boxes, scores and five points from a small residual network over three scales.

Each cell of the maps at strides 8, 16 and 32 says whether the middle of a face lies near it, where the face's sides are and
where eyes, nose and mouth corners are (FCOS: Tian, Shen, Chen, He, ICCV 2019, arXiv 1904.01355; the points as in RetinaFace:
Deng et al., CVPR 2020, arXiv 1905.00641). The score is trained to rise with the overlap of the predicted box and the face, from
a half to one (quality focal loss: Li et al., NeurIPS 2020, arXiv 2006.04388), so that the best-placed of many predictions wins.
A second, tiny network then looks at each face found and places its five points (a cascade: MTCNN, Zhang et al., 2016, 1604.02878).
Differs: one head for all scales, full convolutions of few channels (fast on a CPU), faces of one picture composed from portraits.
Reproduced: benchmarks/faces.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.boxes import nms
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, drawing

STRIDES = (8, 16, 32)
FLIPPED = (1, 0, 2, 4, 3)  # the five points after left and right are exchanged
AROUND = 1.2  # side of the square in which the points of a face are looked for, of the longer side of its box
RANGES = ((0.0, 44.0), (30.0, 100.0), (72.0, 1e6))  # sqrt(width * height) of the faces that each stride answers for, pixels


@dataclass(frozen=True)
class Config:
    """Architecture and how a photograph is looked at."""

    stem: int = 16  # channels at stride 2
    widths: tuple[int, ...] = (32, 48, 96, 128)  # channels at strides 4, 8, 16, 32
    depths: tuple[int, ...] = (1, 2, 2, 2)  # residual blocks at each
    head: int = 48  # channels of the pyramid and of the head
    crop: int = 64  # side of what the points are found in, pixels
    points: tuple[int, ...] = (16, 32, 64)  # channels of the network that finds them, at a half, a quarter, an eighth
    folded: bool = False  # batch norms folded into the convolutions: for inference, `fold` makes it so
    size: int = 224  # side of the training pictures, pixels
    overview: int = 256  # a photograph is looked at with its long side so small, for faces that fill it, pixels
    usual: int = 640  # ... and so
    finest: int = 1280  # ... and so where all faces found are small
    small: float = 0.12  # of the long side of the photograph: what is small


class Convolution(nn.Module):
    """A convolution, its normalisation and a ReLU; `folded` has the normalisation in its weights."""

    def __init__(self, channels: int, out: int, stride: int = 1, *, kernel: int = 3, folded: bool = False, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(out)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.active else x


class Residual(nn.Module):
    """x + two 3x3 convolutions through half as many channels."""

    def __init__(self, channels: int, folded: bool = False) -> None:
        super().__init__()
        self.narrow = Convolution(channels, channels // 2, folded=folded)
        self.widen = Convolution(channels // 2, channels, folded=folded, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.widen(self.narrow(x)), inplace=True)


class Points(nn.Module):
    """(N, 3, crop, crop) of faces -> five points (N, 5, 2) in units of the crop's side from its middle."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, folded = 3, config.folded
        for width in config.points:
            layers += [Convolution(channels, width, 2, folded=folded), Residual(width, folded)]
            channels = width
        self.trunk = nn.Sequential(*layers, Convolution(channels, 16, kernel=1, folded=folded))
        self.narrow = nn.Linear(16 * (config.crop // 2 ** len(config.points)) ** 2, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, crops: Tensor) -> Tensor:
        return self.out(F.relu(self.narrow(self.trunk(crops).flatten(1)))).unflatten(1, (5, 2))


class Detector(nn.Module):
    """(N, 3, H, W) in [-1, 1], sides multiples of 32 -> for each stride a map (N, 15, h, w): score, four sides, five points."""

    several_sizes = True  # `detect` looks at a large picture at several sizes by itself

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        folded, channels = config.folded, config.stem
        self.stem = Convolution(3, channels, 2, folded=folded)
        self.stages = nn.ModuleList()
        for width, depth in zip(config.widths, config.depths, strict=True):
            blocks = [Residual(width, folded) for _ in range(depth)]
            self.stages.append(nn.Sequential(Convolution(channels, width, 2, folded=folded), *blocks))
            channels = width
        self.laterals = nn.ModuleList(Convolution(width, config.head, kernel=1, folded=folded) for width in config.widths[1:])
        self.shared = Convolution(config.head, config.head, folded=folded)
        self.tower = Convolution(config.head, config.head, folded=folded)
        self.points = Points(config)
        self.out = nn.Conv2d(config.head, 15, 1)
        self.out.weight.data.mul_(0.1)
        start = torch.tensor([-math.log(99.0)] + [0.6] * 4 + [0.0] * 10)  # one cell in a hundred is a face, about four cells wide
        self.out.bias = nn.Parameter(start)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, levels = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        maps = [lateral(level) for lateral, level in zip(self.laterals, levels[1:], strict=True)]
        for i in (1, 0):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], scale_factor=2.0, mode="nearest")
        return [self.out(self.tower(self.shared(m))) for m in maps]

    @torch.inference_mode()
    def detect(self, image: Tensor, threshold: float = 0.5) -> Tensor:
        """Return faces (K, 15), best first: x0, y0, x1, y1, score and five points, in pixels of the image (1, 3, H, W)."""
        longest = max(image.shape[-2:])
        rows = self._look(image, min(1.0, self.config.usual / longest), threshold)
        if longest > 1.25 * self.config.overview:
            rows = torch.cat([rows, self._look(image, self.config.overview / longest, threshold)])
        if longest > self.config.usual and not ((rows[:, 2:4] - rows[:, :2]) > self.config.small * longest).any():
            rows = torch.cat([rows, self._look(image, min(1.0, self.config.finest / longest), threshold)])
        keep = nms(rows[:, :4], rows[:, 4], 0.4)
        return self._refined(image, _voted(rows, keep[~_swallowed(rows[keep, :4])]))

    def _refined(self, image: Tensor, rows: Tensor) -> Tensor:
        """Place the points anew by a closer look at each face and at its mirror image."""
        if not len(rows):
            return rows
        middle, side = frames(rows[:, :4])
        crops = cut(image.float(), torch.zeros(len(rows), dtype=torch.long), middle, side, self.config.crop)
        both = torch.cat([crops, crops.flip(-1)]).contiguous(memory_format=torch.channels_last).to(self.out.weight.dtype)
        seen, mirrored = self.points(both).float().chunk(2)
        mean = (seen + mirrored[:, FLIPPED] * seen.new_tensor([-1.0, 1.0])) / 2
        return torch.cat([rows[:, :5], (middle[:, None] + mean * side[:, None, None]).flatten(1)], 1)

    def _look(self, image: Tensor, scale: float, threshold: float) -> Tensor:
        """Look once, at one scale; rows above the threshold, in pixels of the image."""
        height, width = (max(round(side * scale), 1) for side in image.shape[-2:])
        if scale != 1:
            image = F.interpolate(image, (height, width), mode="bilinear", antialias=True, align_corners=False)
        image = F.pad(image, (0, -width % 32, 0, -height % 32)).contiguous(memory_format=torch.channels_last)
        weight = self.out.weight
        rows = torch.cat([decode(level, stride)[0] for level, stride in zip(self(image.to(weight.dtype)), STRIDES, strict=True)]).float()
        rows = rows[rows[:, 4] >= threshold]
        return torch.cat([rows[:, :4] / scale, rows[:, 4:5], rows[:, 5:] / scale], 1)


def centres(level: Tensor, stride: int) -> Tensor:
    """Return the middles (h*w, 2) of a map's cells, x and y in pixels."""
    h, w = level.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h, device=level.device), torch.arange(w, device=level.device), indexing="ij")
    return (torch.stack([x, y], -1).reshape(-1, 2).float() + 0.5) * stride


def decode(level: Tensor, stride: int) -> Tensor:
    """Return rows (N, h*w, 15): box, score, points in pixels, of a map of the network."""
    raw, middle = level.flatten(2).transpose(1, 2).float(), centres(level, stride)
    sides = raw[..., 1:5].clamp(max=6).exp() * stride
    points = raw[..., 5:] * (2 * stride) + middle.repeat(1, 5)
    return torch.cat([middle - sides[..., :2], middle + sides[..., 2:], raw[..., :1].sigmoid(), points], -1)


def frames(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the middles (K, 2) and sides (K) of the squares in which the points of boxes (K, 4) are looked for."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, AROUND * (boxes[:, 2:] - boxes[:, :2]).amax(1).clamp(min=4)


def cut(images: Tensor, index: Tensor, middle: Tensor, side: Tensor, size: int) -> Tensor:
    """Cut squares (K, 3, size, size) out of images (N, 3, H, W), one for each index (K); a pixel is the mean of 3x3 samples."""
    fine = 3
    steps = (torch.arange(size * fine, device=images.device) + 0.5) / (size * fine) - 0.5
    extent = images.new_tensor(images.shape[:-3:-1])  # width, height
    x, y = ((middle[:, axis, None] + steps * side[:, None] + 0.5) * 2 / extent[axis] - 1 for axis in (0, 1))  # pixel 0 lies at 0.5
    at = torch.stack([x[:, None, :].expand(-1, len(steps), -1), y[:, :, None].expand(-1, -1, len(steps))], -1)
    pieces = [
        F.grid_sample(images[i : i + 1], one[None], padding_mode="border", align_corners=False) for i, one in zip(index, at, strict=True)
    ]
    return F.avg_pool2d(torch.cat(pieces), fine)


def fold(network: Detector, threshold: float = 0.5) -> Detector:
    """Return the same function with every batch norm folded into the convolution before it.

    Scores are moved so that what was `threshold`, the score that divides faces from the rest best, becomes a half.
    """
    state = folded_state(network)
    shift = torch.zeros(15)
    shift[0] = math.log(threshold / (1 - threshold))
    folded = Detector(replace(network.config, folded=True))
    folded.load_state_dict({**state, "out.bias": state["out.bias"] - shift}, strict=True)
    return folded.eval()


def folded_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's state dict with each `norm` multiplied into the `conv` beside it."""
    state = dict(network.state_dict())
    for name in [key.removesuffix("norm.weight") for key in state if key.endswith("norm.weight")]:
        norm = {key: state.pop(f"{name}norm.{key}") for key in ("weight", "bias", "running_mean", "running_var")}
        state.pop(f"{name}norm.num_batches_tracked")
        gain = norm["weight"] / (norm["running_var"] + nn.BatchNorm2d(1).eps).sqrt()
        state[f"{name}conv.weight"] = state[f"{name}conv.weight"] * gain[:, None, None, None]
        state[f"{name}conv.bias"] = norm["bias"] - norm["running_mean"] * gain
    return state


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU of boxes (..., 4), pair by pair."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    union = (area[0] + area[1] - inner).clamp(min=1e-6)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1).clamp(min=1e-6)
    return inner / union, inner / union - (hull - union) / hull


def assign(batch: Mapping[str, Tensor], level: Tensor, stride: int, sizes: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return which face each cell answers for (N, h*w; -1 none) and which cells are not asked at all (N, h*w)."""
    boxes, kind = batch["boxes"][:, None], batch["kind"][:, None]  # (N, 1, G, ...)
    cell = centres(level, stride)[None, :, None]  # (1, A, 1, 2)
    inside = ((cell > boxes[..., :2]) & (cell < boxes[..., 2:])).all(-1)
    extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    size = extent.prod(-1).sqrt()
    distance = (cell - (boxes[..., :2] + boxes[..., 2:]) / 2).abs().amax(-1)
    near = distance <= torch.maximum(torch.full_like(size, 0.75 * stride), (0.16 * size).clamp(max=1.5 * stride))
    fits = inside & near & (size >= sizes[0]) & (size < sizes[1]) & (kind > 0)
    best, face = torch.where(fits, distance, torch.inf).min(-1)
    ignored = (inside & ((kind < 0) | (near & (kind > 0)))).any(-1)  # hidden faces, and faces of a neighbouring scale
    return torch.where(best.isfinite(), face, -1), ignored & ~best.isfinite()


class DetectorObjective:
    """What the detector minimises: quality focal loss of the score, generalised IoU of the box, smooth L1 of the points."""

    averaged = ("detector",)

    def __init__(
        self,
        config: Config,
        part: Literal["faces", "points"] = "faces",
        lr: float = 2e-3,
        box_weight: float = 2.0,
        point_weight: float = 10.0,
    ) -> None:
        self.networks = nn.ModuleDict({"detector": Detector(config)})
        self.detector: Detector = self.networks["detector"]  # type: ignore[assignment]
        self.part, self.lr, self.box_weight, self.point_weight = part, lr, box_weight, point_weight

    def phases(self) -> list[Phase]:
        """One player, trained in two runs: to find faces in scenes, then to place points in crops."""
        adam, near = Adam(self.lr, weight_decay=1e-3), self.part == "points"
        chosen = [weight for name, weight in self.detector.named_parameters() if name.startswith("points.") == near]
        return [Phase(self.part, lambda: chosen, self.points_loss if near else self.loss, adam, clip=10.0)]

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Sum over the three scales, divided by the number of cells that answer for a face."""
        maps = self.detector(batch["image"])
        parts = [self._level(level.float(), batch, i) for i, level in enumerate(maps)]
        count = torch.stack([part[0] for part in parts]).sum().clamp(min=1)
        score, box, points = (torch.stack([part[i] for part in parts]).sum() / count for i in (1, 2, 3))
        return {"score": score, "box": self.box_weight * box, "points": self.point_weight * points}

    def points_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Smooth L1 of the five points, in units of the crop's side."""
        off = F.smooth_l1_loss(self.detector.points(batch["image"]).float(), batch["points"], reduction="none", beta=0.01)
        return {"points": 10 * (batch["trust"] * off.mean((1, 2))).sum() / batch["trust"].sum()}

    def _level(self, level: Tensor, batch: Mapping[str, Tensor], index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        face, ignored = assign(batch, level, STRIDES[index], RANGES[index])
        rows, logit = decode(level, STRIDES[index]), level[:, 0].flatten(1)
        n, a = (face >= 0).nonzero(as_tuple=True)
        found, g = rows[n, a], face[n, a]
        box, trust = batch["boxes"][n, g], batch["trust"][n, g]
        iou, generalised = overlap(found[:, :4], box)
        quality = torch.zeros_like(logit).index_put((n, a), 0.5 + iou.detach() / 2)
        focal = (quality - logit.sigmoid()).abs() ** 2 * F.binary_cross_entropy_with_logits(logit, quality, reduction="none")
        extent = (box[:, 2:] - box[:, :2]).prod(-1).sqrt()[:, None]
        off = F.smooth_l1_loss(found[:, 5:] / extent, batch["points"][n, g] / extent, reduction="none", beta=0.02).mean(-1)
        return torch.tensor(float(len(n))), (focal * ~ignored).sum(), (1 - generalised).sum(), (trust * off).sum()


def objective(config: Config = Config(), seed: int = 0, **settings: Any) -> DetectorObjective:
    """Build the network from a seed, without touching the global random state."""
    with drawing(seed):
        return DetectorObjective(config, **settings)


def _swallowed(boxes: Tensor) -> Tensor:
    """Say which boxes (K, 4), best first, lie by four fifths inside a better one: an eye or a mouth, not a face before a face."""
    low, high = torch.maximum(boxes[:, None, :2], boxes[None, :, :2]), torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    share = (high - low).clamp(min=0).prod(-1) / (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1).clamp(min=1e-6)[:, None]
    return (share.tril(-1) > 0.8).any(1)


def _voted(rows: Tensor, keep: Tensor) -> Tensor:
    """Average each kept row with the rows that overlap it by two thirds, weighted by score: steadier boxes and points."""
    kept = rows[keep]
    if not len(kept):
        return kept
    weight = torch.where(overlap(kept[:, None, :4], rows[None, :, :4])[0] > 0.66, rows[None, :, 4] ** 2, 0.0)
    mean = weight @ rows / weight.sum(1, keepdim=True)
    return torch.cat([mean[:, :4], kept[:, 4:5], mean[:, 5:]], 1)


NETWORKS = {"detector": Detector}

PRESETS = {
    "scenes": Preset(Config(), "scenes", 16, 6000, ema_kimg=5.0, decay="cosine", warmup=200, reaches="see the model card in the box"),
    "points": Preset(
        Config(), "points", 64, 6000, {"part": "points"}, ema_kimg=20.0, decay="cosine", warmup=100, reaches="see the model card"
    ),
}

PUBLISHED: list[Published] = []  # only our native layout

CARD = Card(
    name="limn-detector",
    title="limn's face detector with five points",
    chapter="perception",
    year=2026,
    arxiv="",
    verbs=("detect", "train"),
    weights_licence="Apache-2.0; trained on pictures under CC BY 3.0, CC BY 4.0, CC0 and in the public domain",
)

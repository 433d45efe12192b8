"""RAFT: optical flow refined step by step from the correlation of every pixel of one frame with every pixel of the next.

Both frames are encoded at an eighth of their size, all pairs of features correlated and pooled to a pyramid; a recurrent unit looks
up a window about where the flow so far points and corrects it; a learnt convex combination (or bilinear) brings it to full size.
Teed, Deng: RAFT: Recurrent All-Pairs Field Transforms for Optical Flow. ECCV 2020, arXiv 2003.12039.
Differs: levels of the pyramid that shrink to one pixel or to nothing are looked up as what they are, so frames of 16 pixels a side and
more work where the published code gives NaN below 128. Reproduced: the published networks and losses (tests/parity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.warp import moved, pixels, warp
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing

Norm = Literal["instance", "batch", "none"]
Pad = tuple[int, int, int, int]  # left, right, top, bottom
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": nn.InstanceNorm2d,
    "batch": nn.BatchNorm2d,
    "none": lambda _: nn.Identity(),
}


@dataclass(frozen=True)
class Config:
    small: bool = False  # bottleneck blocks, one 3x3 recurrent unit, bilinear upsampling
    widths: tuple[int, int, int] = (64, 96, 128)  # channels of the encoders' stages
    features: int = 256  # channels that are correlated
    hidden: int = 128  # channels of the recurrent state
    context: int = 128  # channels of the first frame's context
    levels: int = 4  # of the correlation pyramid
    radius: int = 4  # of the window that is looked up at each
    correlation: tuple[int, ...] = (256, 192)  # channels after each convolution of what was looked up
    motion: tuple[int, int] = (128, 64)  # channels after each convolution of the flow
    joined: int = 128  # channels of both, the flow itself among them
    head: int = 256  # channels inside the heads
    iterations: int = 12
    size: int = 64  # pixels of the pictures it is trained on here; any size works


SMALL = Config(True, (32, 64, 96), 128, 96, 64, 4, 3, (96,), (64, 32), 82, 128)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; `downsample` holds the shortcut's convolution and norm where the stride is not 1."""

    def __init__(self, inputs: int, width: int, norm: Norm, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1, self.norm2 = NORMS[norm](width), NORMS[norm](width)
        self.downsample = shortcut(inputs, width, norm, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu((x if self.downsample is None else self.downsample(x)) + y)


class Bottleneck(nn.Module):
    """1x1, 3x3 at a quarter of the width, 1x1, beside a shortcut."""

    def __init__(self, inputs: int, width: int, norm: Norm, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width // 4, 1)
        self.conv2 = nn.Conv2d(width // 4, width // 4, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(width // 4, width, 1)
        self.norm1, self.norm2, self.norm3 = (NORMS[norm](n) for n in (width // 4, width // 4, width))
        self.downsample = shortcut(inputs, width, norm, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = F.relu(self.norm3(self.conv3(y)))
        return F.relu((x if self.downsample is None else self.downsample(x)) + y)


def shortcut(inputs: int, width: int, norm: Norm, stride: int) -> nn.Sequential | None:
    """Return the shortcut of a block that halves the size."""
    return None if stride == 1 else nn.Sequential(nn.Conv2d(inputs, width, 1, stride), NORMS[norm](width))


class Encoder(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] -> (N, outputs, H/8, W/8)."""

    def __init__(self, config: Config, outputs: int, norm: Norm) -> None:
        super().__init__()
        first, second, third = config.widths
        self.conv1 = nn.Conv2d(3, first, 7, 2, padding=3)
        self.norm1 = NORMS[norm](first)
        block = Bottleneck if config.small else Residual
        self.layer1 = nn.Sequential(block(first, first, norm, 1), block(first, first, norm, 1))
        self.layer2 = nn.Sequential(block(first, second, norm, 2), block(second, second, norm, 1))
        self.layer3 = nn.Sequential(block(second, third, norm, 2), block(third, third, norm, 1))
        self.conv2 = nn.Conv2d(third, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(images)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class Correlation:
    """The correlation of all pixels of one feature map with all of another, at several scales of the other (section 3.2)."""

    def __init__(self, first: Tensor, second: Tensor, levels: int, radius: int) -> None:
        count, channels, *self.sides = first.shape
        self.radius = radius
        volume = torch.einsum("nca,ncb->nab", first.flatten(2), second.flatten(2)) / channels**0.5
        self.pyramid = list(pooled(volume.reshape(-1, 1, *second.shape[2:]), levels))
        self.count = count

    def __call__(self, at: Tensor) -> Tensor:
        """Look up windows about coordinates (N, 2, H, W), in pixels: (N, levels * (2 radius + 1)², H, W)."""
        centres = at.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found = []
        for level, volume in enumerate(self.pyramid):
            seen = looked(volume, centres / 2**level + window(self.radius, at))
            found.append(seen.reshape(self.count, *self.sides, -1))
        return torch.cat(found, -1).permute(0, 3, 1, 2).contiguous()


class OnDemand:
    """The same numbers in little memory: features are correlated where they are looked up, one offset at a time."""

    def __init__(self, first: Tensor, second: Tensor, levels: int, radius: int) -> None:
        self.first, self.radius = first / first.shape[1] ** 0.5, radius
        self.pyramid = list(pooled(second, levels))

    def __call__(self, at: Tensor) -> Tensor:
        """Look up as `Correlation` does."""
        offsets = window(self.radius, at).reshape(-1, 2)
        found = []
        for level, features in enumerate(self.pyramid):
            centres = at.permute(0, 2, 3, 1) / 2**level
            found += [(self.first * looked(features, centres + offset)).sum(1) for offset in offsets]
        return torch.stack(found, 1)


def window(radius: int, like: Tensor) -> Tensor:
    """Return the offsets (2 radius + 1, 2 radius + 1, 2) of a window, in which x is the slow axis, as the published weights expect."""
    steps = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)


def pooled(maps: Tensor, levels: int) -> list[Tensor]:
    """Return maps at `levels` scales, each half of the one before; a side that cannot be halved leaves nothing."""
    made = [maps]
    while len(made) < levels:
        last = made[-1]
        made.append(F.avg_pool2d(last, 2) if min(last.shape[2:]) > 1 else last[:, :, :0, :0])
    return made


def looked(maps: Tensor, at: Tensor) -> Tensor:
    """Sample maps (N, C, h, w) at pixels (N, ..., 2); zeros outside, and everywhere where there is no map."""
    if not maps.numel():
        return maps.new_zeros(len(maps), maps.shape[1], *at.shape[1:-1])
    return warp(maps, at, "pixels")


class MotionEncoder(nn.Module):
    """What was looked up and the flow so far -> (N, joined, H, W), of which the last two channels are the flow."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        looked_up = config.levels * (2 * config.radius + 1) ** 2
        self.convc1 = nn.Conv2d(looked_up, config.correlation[0], 1)
        self.convc2 = nn.Conv2d(*config.correlation, 3, padding=1) if len(config.correlation) == 2 else None
        self.convf1 = nn.Conv2d(2, config.motion[0], 7, padding=3)
        self.convf2 = nn.Conv2d(*config.motion, 3, padding=1)
        self.conv = nn.Conv2d(config.correlation[-1] + config.motion[1], config.joined - 2, 3, padding=1)

    def forward(self, flow: Tensor, seen: Tensor) -> Tensor:
        seen = F.relu(self.convc1(seen))
        seen = seen if self.convc2 is None else F.relu(self.convc2(seen))
        way = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([seen, way], 1))), flow], 1)


class Gates(nn.Module):
    """A convolutional recurrent unit."""

    def __init__(self, hidden: int, inputs: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz, self.convr, self.convq = (nn.Conv2d(hidden + inputs, hidden, kernel, padding=padding) for _ in range(3))

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([state, x], 1)
        keep, reset = self.convz(both).sigmoid(), self.convr(both).sigmoid()
        new = self.convq(torch.cat([reset * state, x], 1)).tanh()
        return (1 - keep) * state + keep * new


class FlowHead(nn.Module):
    """State -> change of the flow."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(config.hidden, config.head, 3, padding=1)
        self.conv2 = nn.Conv2d(config.head, 2, 3, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(state)))


class Update(nn.Module):
    """One step: looks at what was found, renews the state, corrects the flow (section 3.3)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        kernels = [(3, 3)] if config.small else [(1, 5), (5, 1)]  # in the full model along rows, then along columns
        self.encoder = MotionEncoder(config)
        self.gru = nn.ModuleList(Gates(config.hidden, config.context + config.joined, kernel) for kernel in kernels)
        self.flow_head = FlowHead(config)
        heads = [nn.Conv2d(config.hidden, config.head, 3, padding=1), nn.ReLU(), nn.Conv2d(config.head, 64 * 9, 1)]
        self.mask = None if config.small else nn.Sequential(*heads)

    def forward(self, state: Tensor, context: Tensor, seen: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([context, self.encoder(flow, seen)], 1)
        for gates in self.gru:
            state = gates(state, x)
        return state, self.flow_head(state)


class Raft(nn.Module):
    """`flow(first, second)` is the whole of it; `refine` gives every step."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.fnet = Encoder(config, config.features, "instance")
        self.cnet = Encoder(config, config.hidden + config.context, "none" if config.small else "batch")
        self.update_block = Update(config)

    def refine(
        self, first: Tensor, second: Tensor, iterations: int = 0, start: Tensor | None = None, frugal: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the flow at an eighth of the size (N, 2, H/8, W/8), in its pixels, and that of every step at full size.

        H and W are multiples of 8. `start` is a flow at an eighth to begin with; `frugal` trades time for memory.
        """
        config = self.config
        one, two = self.fnet(torch.cat([first, second])).float().chunk(2)
        find = (OnDemand if frugal else Correlation)(one, two, config.levels, config.radius)
        hidden, context = self.cnet(first).split([config.hidden, config.context], 1)
        state, context = hidden.tanh(), context.relu()
        home = pixels(one.shape[2:], one).permute(2, 0, 1)
        flow = one.new_zeros(len(one), 2, *one.shape[2:]) if start is None else start
        made = []
        for _ in range(iterations or config.iterations):
            flow = flow.detach()
            state, change = self.update_block(state, context, find(home + flow), flow)
            flow = flow + change.float()
            mask = self.update_block.mask
            made.append(enlarged(flow) if mask is None else combined(flow, 0.25 * mask(state).float()))
        return flow, made

    @torch.inference_mode()
    def flow(self, first: Tensor, second: Tensor, iterations: int = 20) -> Tensor:
        """Return the flow (N, 2, H, W) in pixels, x before y, from first to second images of any size of 16 pixels a side and more."""
        pad = padding(first.shape[2:])
        _, made = self.refine(padded(first, pad), padded(second, pad), iterations)
        return cropped(made[-1], pad)

    forward = flow


def padding(sides: Sequence[int], bottom: bool = False, least: int = 16) -> Pad:
    """Return what brings (H, W) to multiples of 8, split between both sides; with `bottom` (KITTI) all rows go below."""
    rows, columns = (max(least - side, -side % 8) if side < least else -side % 8 for side in sides)
    top = 0 if bottom else rows // 2
    return columns // 2, columns - columns // 2, top, rows - top


def padded(images: Tensor, pad: Pad) -> Tensor:
    """Repeat the edge pixels outwards."""
    return F.pad(images, pad, mode="replicate")


def cropped(maps: Tensor, pad: Pad) -> Tensor:
    """Cut the padding off again."""
    left, right, top, bottom = pad
    return maps[..., top : maps.shape[-2] - bottom, left : maps.shape[-1] - right]


def enlarged(flow: Tensor) -> Tensor:
    """Bring a flow to eight times the size bilinearly, corners on corners."""
    return 8 * F.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)


def combined(flow: Tensor, mask: Tensor) -> Tensor:
    """Bring a flow (N, 2, h, w) to eight times the size: each pixel a convex combination of nine, by `mask` (N, 64 * 9, h, w)."""
    count, _, height, width = flow.shape
    weights = mask.view(count, 1, 9, 8, 8, height, width).softmax(2)
    near = F.unfold(8 * flow, 3, padding=1).view(count, 2, 9, 1, 1, height, width)
    return (weights * near).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(count, 2, 8 * height, 8 * width)


def carried_on(flow: Tensor) -> Tensor:
    """Carry a flow (2, H, W) along itself, to begin the next pair with: every pixel takes the flow that lands nearest to it."""
    home = pixels(flow.shape[1:], flow).reshape(-1, 2)
    landed = home + flow.flatten(1).T
    sides = flow.new_tensor([flow.shape[2], flow.shape[1]])
    inside = ((landed > 0) & (landed < sides)).all(1)
    if not inside.any():
        return flow
    nearest = torch.cat([torch.cdist(part, landed[inside]).argmin(1) for part in home.split(4096)])
    return flow.flatten(1)[:, inside][:, nearest].view_as(flow)


# ---------------------------------------------------------------------------------------------------------------------- objective


def sequence_loss(made: Sequence[Tensor], target: Tensor, valid: Tensor | None = None, gamma: float = 0.8, most: float = 400.0) -> Tensor:
    """Absolute errors of every step, later ones weighing more (eq. 7); pixels that are not valid count as right."""
    known = target.norm(dim=1) < most
    known = (known if valid is None else known & (valid >= 0.5)).unsqueeze(1)
    errors = [(known * (flow - target).abs()).mean() for flow in made]
    return torch.stack([gamma ** (len(made) - 1 - step) * error for step, error in enumerate(errors)]).sum()


def end_point_errors(flow: Tensor, target: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
    """Return the mean end-point error in pixels, and the shares of pixels with errors below 1, 3 and 5."""
    errors = (flow - target).norm(dim=1)
    errors = errors.flatten() if valid is None else errors[valid >= 0.5]
    return {"epe": errors.mean()} | {f"{most}px": (errors < most).float().mean() for most in (1, 3, 5)}


def waves(count: int, size: int, rng: torch.Generator, reach: float) -> Tensor:
    """Draw smooth flows (count, 2, size, size): shift, scale and turn, bumps of three sizes; `reach` is about their length in pixels."""
    places = 2 * pixels((size, size), torch.empty(())).permute(2, 0, 1) / (size - 1) - 1
    affine = 0.4 * torch.randn(count, 2, 2, generator=rng)
    flow = torch.einsum("nij,jhw->nihw", affine, places) + 0.7 * torch.randn(count, 2, 1, 1, generator=rng)
    for nodes, height in ((3, 0.5), (6, 0.3), (12, 0.12)):
        bumps = height * torch.randn(count, 2, nodes, nodes, generator=rng)
        flow = flow + F.interpolate(bumps, size=(size, size), mode="bicubic", align_corners=True)
    return flow * reach * torch.rand(count, 1, 1, 1, generator=rng)


def pairs(images: Tensor, rng: torch.Generator, reach: float = 6.0) -> tuple[Tensor, Tensor, Tensor]:
    """Make frames with a known flow: images are the second ones, of which the first are warped; lit a little differently."""
    flow = waves(len(images), images.shape[-1], rng, reach).to(images.device)
    light = 1 + 0.1 * torch.randn(2, len(images), 3, 1, 1, generator=rng).to(images.device)
    first, second = moved(images, flow, padding="border") * light[0], images * light[1]
    return first.clamp(-1, 1), second.clamp(-1, 1), flow


class Objective:
    """Trains on pairs with a `flow`, (`first`, `second`), or on single pictures (`image`), of which pairs are made by warping."""

    averaged = ("flow",)

    def __init__(self, config: Config, lr: float, weight_decay: float, gamma: float, reach: float) -> None:
        self.config, self.gamma, self.reach = config, gamma, reach
        self.adam = Adam(lr, weight_decay=weight_decay)
        self.networks = nn.ModuleDict({"flow": Raft(config)})

    def phases(self) -> list[Phase]:
        """Return the one player."""
        return [Phase("flow", self.networks["flow"].parameters, self.loss, self.adam, clip=1.0)]

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Eq. 7 of a batch."""
        if "flow" in batch:
            first, second, target = batch["first"], batch["second"], batch["flow"]
        else:
            first, second, target = pairs(batch["image"], rng, self.reach)
        _, made = self.networks["flow"].refine(first, second)  # type: ignore[operator]
        return {"sequence": sequence_loss(made, target, batch.get("valid"), self.gamma)}


def objective(
    config: Config = Config(), seed: int = 0, *, lr: float = 4e-4, weight_decay: float = 1e-4, gamma: float = 0.8, reach: float = 6.0
) -> Objective:
    """Make the objective; `reach` is how far, in pixels, made pairs move."""
    with drawing(seed):
        return Objective(config, lr, weight_decay, gamma, reach)


# ---------------------------------------------------------------------------------------------------------------------- published


def config_of(state: State) -> Config:
    """Infer the configuration; files of DataParallel have `module.` before every name."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    small = "update_block.mask.0.weight" not in state
    outputs = {
        name: state[f"{name}.weight"].shape[0] for name in (name.removesuffix(".weight") for name in state if name.endswith(".weight"))
    }
    block = "update_block."
    gate = block + ("gru.convz" if small else "gru.convz1")
    levels = 4
    side = round((state[f"{block}encoder.convc1.weight"].shape[1] / levels) ** 0.5)
    correlation = tuple(outputs[f"{block}encoder.convc{n}"] for n in (1, 2) if f"{block}encoder.convc{n}" in outputs)
    return Config(
        small=small,
        widths=(
            outputs["fnet.conv1"],
            outputs["fnet.layer2.1.conv3" if small else "fnet.layer2.1.conv2"],
            state["fnet.conv2.weight"].shape[1],
        ),
        features=outputs["fnet.conv2"],
        hidden=outputs[gate],
        context=outputs["cnet.conv2"] - outputs[gate],
        levels=levels,
        radius=(side - 1) // 2,
        correlation=correlation,
        motion=(outputs[f"{block}encoder.convf1"], outputs[f"{block}encoder.convf2"]),
        joined=outputs[f"{block}encoder.conv"] + 2,
        head=outputs[f"{block}flow_head.conv1"],
    )


def names(config: Config) -> list[tuple[str, str | None]]:
    """Return the rows from published names to ours."""
    rows: list[tuple[str, str | None]] = [
        (r"(?:module\.)?update_block\.gru\.conv([zrq])\.(.+)", r"update_block.gru.0.conv\1.\2"),
        (r"(?:module\.)?update_block\.gru\.conv([zrq])1\.(.+)", r"update_block.gru.0.conv\1.\2"),
        (r"(?:module\.)?update_block\.gru\.conv([zrq])2\.(.+)", r"update_block.gru.1.conv\1.\2"),
        (r"(?:module\.)?(.+)", r"\1"),
    ]
    twice = (r"(?:module\.)?(.+)\.norm3\.(.+)", r"\1.downsample.1.\2")  # one norm under two names, which must agree
    return rows if config.small else [twice, *rows]


NETWORKS = {"flow": Raft}

PRESETS = {
    "chairs": Preset(Config(), data="images", batch=10, steps=100_000, decay="linear", warmup=5_000),
    "small-chairs": Preset(SMALL, data="images", batch=10, steps=100_000, decay="linear", warmup=5_000),
    "portraits64": Preset(
        replace(SMALL, iterations=6, size=64),
        data="images",
        batch=8,
        steps=1200,
        objective={"lr": 1e-3, "reach": 14.0},
        decay="half",
        ema_kimg=0.5,
    ),
}

PUBLISHED = [
    Published(
        "flow",
        "published",
        lambda state: any(
            f"{prefix}update_block.encoder.convc1.weight" in state and f"{prefix}fnet.layer1.0.conv1.weight" in state
            for prefix in ("", "module.")
        ),
        config_of,
        Raft,
        names,
    )
]

CARD = Card(
    name="raft",
    title="RAFT",
    chapter="perception",
    year=2020,
    arxiv="2003.12039",
    verbs=("train",),
    weights_licence="BSD-3-Clause code and weights; the data they were trained on have terms of their own",
    source="princeton-vl/RAFT",
)

"""ParseNet: the residual face parser by which GFPGAN, CodeFormer and GPEN paste faces back.

Strided residual blocks go down, a deep body works at the coarsest size with a skip around the whole of it, nearest upsampling goes up;
two heads give the classes and, as a second task, the picture itself.
Chen et al.: Progressive Semantic-Aware Style Transformation for Blind Face Restoration (PSFR-GAN). CVPR 2021, arXiv 2009.08709.
Differs: nothing of the network; there is no recipe. Reproduced: both heads within 1e-4 (tests/parity).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from limn.models.perception.bisenet import counted
from limn.models.records import Card, Preset, Published, State

# The order of CelebAMask-HQ, which is not BiSeNet's; names as in `limn.faces.parse`
CLASSES = (
    "background",
    "skin",
    "nose",
    "glasses",
    "left_eye",
    "right_eye",
    "left_brow",
    "right_brow",
    "left_ear",
    "right_ear",
    "inner_mouth",
    "upper_lip",
    "lower_lip",
    "hair",
    "hat",
    "earring",
    "necklace",
    "neck",
    "clothes",
)


@dataclass(frozen=True)
class Config:
    """Architecture; the defaults are those of the published file."""

    classes: int = 19
    stem: int = 64  # channels at full size
    down: tuple[int, ...] = (128, 256, 256, 256)  # channels after each halving
    depth: int = 10  # residual blocks at the coarsest size
    up: tuple[int, ...] = (256, 256, 128, 64)  # channels after each doubling
    norm: Literal["batch", "instance", "none"] = "batch"
    activation: Literal["leaky", "relu", "prelu"] = "leaky"
    size: int = 512  # side of the aligned crops, pixels


class Convolution(nn.Module):
    """Upsampling (nearest), reflection padding, a 3x3 convolution of stride 1 or 2, normalisation and activation, each if asked for."""

    def __init__(self, channels: int, out: int, scale: str = "none", norm: str = "none", activation: str = "none") -> None:
        super().__init__()
        self.scale = scale
        self.conv2d = nn.Conv2d(channels, out, 3, 2 if scale == "down" else 1, bias=norm == "none")
        norms: dict[str, nn.Module] = {"batch": nn.BatchNorm2d(out), "instance": nn.InstanceNorm2d(out)}
        activations: dict[str, nn.Module] = {"leaky": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "prelu": nn.PReLU(out)}
        self.norm, self.act = norms.get(norm, nn.Identity()), activations.get(activation, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest") if self.scale == "up" else x
        return self.act(self.norm(self.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"))))


class Residual(nn.Module):
    """x, or a plain convolution of it where the size or the channels change, plus two convolutions."""

    def __init__(self, channels: int, out: int, config: Config, scale: str = "none") -> None:
        super().__init__()
        same = scale == "none" and channels == out
        first, second = ("up", "none") if scale == "up" else ("none", scale)
        self.shortcut_func: nn.Module = nn.Identity() if same else Convolution(channels, out, scale)
        self.conv1 = Convolution(channels, out, first, config.norm, config.activation)
        self.conv2 = Convolution(out, out, second, config.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_func(x) + self.conv2(self.conv1(x))


class ParseNet(nn.Module):
    """(N, 3, H, W) in [-1, 1] -> logits (N, classes, H, W) and the picture again (N, 3, H, W)."""

    classes: tuple[str, ...]
    template = "ffhq"

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.classes = CLASSES if config.classes == len(CLASSES) else tuple(f"class{n}" for n in range(config.classes))
        down, up = (config.stem, *config.down), (config.down[-1] if config.down else config.stem, *config.up)
        narrowing = [Residual(a, b, config, "down") for a, b in pairwise(down)]
        self.encoder = nn.Sequential(Convolution(3, config.stem), *narrowing)
        self.body = nn.Sequential(*(Residual(down[-1], down[-1], config) for _ in range(config.depth)))
        self.decoder = nn.Sequential(*(Residual(a, b, config, "up") for a, b in pairwise(up)))
        self.out_img_conv = Convolution(up[-1], 3)
        self.out_mask_conv = Convolution(up[-1], config.classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoder(images)
        x = self.decoder(x + self.body(x))
        return self.out_mask_conv(x), self.out_img_conv(x)

    def parse(self, images: Tensor) -> Tensor:
        """Return logits (N, classes, S, S) of aligned faces (N, 3, S, S) in [-1, 1]; S should be `config.size`."""
        return self(images)[0]


def is_parsenet(state: State) -> bool:
    """Tell whether these are the keys of facexlib."""
    return all(f"{name}.weight" in state for name in ("out_mask_conv.conv2d", "out_img_conv.conv2d", "encoder.0.conv2d"))


def config_of(state: State) -> Config:
    """Infer the configuration from names and shapes; leaky and plain ReLU, which they do not tell apart, are taken for leaky."""

    def channels(part: str) -> tuple[int, ...]:
        known = [f"{part}.{n}.conv1.conv2d.weight" for n in range(64)]
        return tuple(state[name].shape[0] for name in known if name in state)

    convolution = next(name.removesuffix("conv2d.weight") for name in state if name.endswith(".conv1.conv2d.weight"))
    affine, biased = f"{convolution}norm.norm.weight" in state, f"{convolution}conv2d.bias" in state
    return Config(
        classes=state["out_mask_conv.conv2d.weight"].shape[0],
        stem=state["encoder.0.conv2d.weight"].shape[0],
        down=channels("encoder"),
        depth=len(channels("body")),
        up=channels("decoder"),
        norm="batch" if affine else "none" if biased else "instance",
        activation="prelu" if any(name.endswith(".relu.func.weight") for name in state) else "leaky",
    )


NETWORKS = {"parser": ParseNet}

PRESETS: dict[str, Preset] = {}

NAMES = [(r"(.*)\.norm\.norm\.(\w+)", r"\1.norm.\2"), (r"(.*)\.relu\.func\.weight", r"\1.act.weight")]

PUBLISHED = [Published("parser", "facexlib", is_parsenet, config_of, ParseNet, NAMES, counted)]

CARD = Card(
    name="parsenet",
    title="ParseNet, the parser of PSFR-GAN and facexlib",
    chapter="perception",
    year=2021,
    arxiv="2009.08709",
    verbs=("parse",),
    weights_licence="MIT code; trained on CelebAMask-HQ: for non-commercial research and education only",
    source="xinntao/facexlib",
)

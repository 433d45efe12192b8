"""limn's own face parser: which of thirteen parts every pixel of an aligned face shows, learnt without one hand-made label.

What a mesh says (brows, eyes, nose, lips, the oval of the face) is drawn; hair, neck, clothes and background are guessed picture by
picture from colours about the mesh (`limn.training.datasets.guessed`, in the manner of GrabCut: Rother, Kolmogorov, Blake, SIGGRAPH
2004). A small pyramid (Lin et al., CVPR 2017, arXiv 1612.03144) trained on many such guesses keeps what they agree on; its answers
then take the place of the first prior, and the pictures are guessed and learnt once more.
Differs: batch-normalised halving residual blocks, sums in place of concatenations, the last doubling by sub-pixels (Shi et al., CVPR
2016, arXiv 1609.05158). Reproduced: benchmarks/recipes/limn_parser.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.models.perception.limn_detector import Convolution, Residual, folded_state
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, drawing

CLASSES = (  # left and right are the picture's; skin includes the ears, brows hide what is under them
    "background",
    "skin",
    "neck",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "nose",
    "upper_lip",
    "inner_mouth",
    "lower_lip",
    "hair",
    "clothes",
)
SMALL = 2.0  # how much more a pixel of the small parts (brows to lower lip, without the nose) weighs


@dataclass(frozen=True)
class Config:
    """Architecture."""

    size: int = 128  # side of the aligned crops, template "ffhq", pixels
    stem: int = 16  # channels at half the size
    widths: tuple[int, ...] = (32, 64, 112)  # channels at a quarter, an eighth and a sixteenth
    depths: tuple[int, ...] = (1, 2, 3)  # residual blocks at each
    pyramid: int = 40  # channels on the way up
    classes: int = len(CLASSES)
    folded: bool = False  # batch norms folded into the convolutions: for inference, `fold` makes it so


class Parser(nn.Module):
    """(N, 3, size, size) in [-1, 1] -> logits (N, classes, size, size)."""

    classes = CLASSES
    template = "ffhq"

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        folded, channels, levels = config.folded, config.stem, [config.stem]
        self.stem = Convolution(3, channels, 2, folded=folded)
        self.stages = nn.ModuleList()
        for width, depth in zip(config.widths, config.depths, strict=True):
            blocks = [Residual(width, folded) for _ in range(depth)]
            self.stages.append(nn.Sequential(Convolution(channels, width, 2, folded=folded), *blocks))
            channels = width
            levels.append(width)
        self.whole = nn.Linear(channels, config.pyramid)  # what the picture is as a whole
        self.laterals = nn.ModuleList(Convolution(width, config.pyramid, kernel=1, folded=folded, active=False) for width in levels)
        self.smooth = nn.ModuleList(Convolution(config.pyramid, config.pyramid, folded=folded) for _ in levels[:-1])
        self.out = nn.Conv2d(config.pyramid, config.classes * 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        levels = [self.stem(images)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        x = F.relu(self.laterals[-1](levels[-1]) + self.whole(levels[-1].mean((2, 3)))[..., None, None])
        for lateral, smooth, level in zip(self.laterals[-2::-1], self.smooth, levels[-2::-1], strict=True):  # type: ignore[call-overload]
            x = smooth(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False) + lateral(level))
        return F.pixel_shuffle(self.out(x), 2)

    @torch.inference_mode()
    def parse(self, images: Tensor) -> Tensor:
        """Return logits (N, classes, S, S) of aligned faces (N, 3, S, S) in [-1, 1]; S may differ from its own size."""
        size, own = images.shape[2:], (self.config.size, self.config.size)
        crops = images.to(self.out.weight.dtype)
        if tuple(size) != own:
            crops = F.interpolate(crops, own, mode="bilinear", antialias=True, align_corners=False)
        logits = self(crops.contiguous(memory_format=torch.channels_last)).float()
        return logits if tuple(size) == own else F.interpolate(logits, size, mode="bilinear", align_corners=False)


def fold(network: Parser) -> Parser:
    """Return the same function with every batch norm folded into the convolution before it."""
    folded = Parser(replace(network.config, folded=True))
    folded.load_state_dict(folded_state(network), strict=True)
    return folded.eval()


class ParserObjective:
    """What the parser minimises: the cross entropy of every pixel, as far as its guess is sure, small parts more."""

    averaged = ("parser",)

    def __init__(self, config: Config, lr: float = 3e-3) -> None:
        self.networks = nn.ModuleDict({"parser": Parser(config)})
        self.lr = lr
        self.weight = torch.ones(config.classes)
        if config.classes == len(CLASSES):
            self.weight[[index for index in range(3, 11) if CLASSES[index] != "nose"]] = SMALL

    def phases(self) -> list[Phase]:
        """One player, one phase."""
        network = self.networks["parser"]
        return [Phase("parser", network.parameters, self.loss, Adam(self.lr, weight_decay=1e-3), clip=5.0)]

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Cross entropy of a batch with `image`, `mask` (N, S, S) of class numbers and `sure` (N, S, S) in [0, 1]."""
        logits = self.networks["parser"](batch["image"]).float()
        losses = F.cross_entropy(logits, batch["mask"], weight=self.weight.to(logits), reduction="none")
        return {"classes": (losses * batch["sure"]).sum() / batch["sure"].sum().clamp(min=1)}


def objective(config: Config = Config(), seed: int = 0, **settings: Any) -> ParserObjective:
    """Build the network from a seed, without touching the global random state."""
    with drawing(seed):
        return ParserObjective(config, **settings)


NETWORKS = {"parser": Parser}

PRESETS = {
    "portraits128": Preset(
        Config(),
        data="parsing",
        batch=24,
        steps=1600,
        ema_kimg=3.0,
        decay="cosine",
        reaches="see the model card in the box",
    ),
}

PUBLISHED: list[Published] = []  # only our native layout

CARD = Card(
    name="limn-parser",
    title="limn's face parser of thirteen parts",
    chapter="perception",
    year=2026,
    arxiv="",
    verbs=("parse", "train"),
    weights_licence="Apache-2.0; trained on pictures under CC BY 3.0, CC BY 4.0, CC0 and in the public domain",
)

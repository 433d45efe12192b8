"""Partial convolution: a U-Net that fills irregular holes, whose convolutions see known pixels alone.

Every convolution multiplies its input by the mask, scales its sum up by the share of the window that is known, and passes on a
mask that has grown by its reach: after some layers nothing is missing any more. The losses compare pixels (six times as heavily in
the hole), deep features and their Gram matrices, and keep the seam smooth.
Liu, Reda, Shih, Wang, Tao, Catanzaro: Image Inpainting for Irregular Holes Using Partial Convolutions. ECCV 2018, arXiv 1804.07723.
Differs: as in the usual published port, the total variation is that of the whole composite, and L1 means are over all pixels.
Masks are kept as one channel per source of features, not per feature. Reproduced: the cases `partial-conv/*`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks import holes
from limn.blocks.holes import Holes
from limn.errors import TrainingError
from limn.models.perception import vgg
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing, seeded

LAYERS = ("pool1", "pool2", "pool3")  # of VGG-16: what the published losses compare
NOTHING = 1e-8  # added to the number of known values, which may be none
WIDTHS = (1, 2, 4, 8)  # channels of the stages of the encoder, times `width`; deeper ones are as wide as the last
KERNELS = (7, 5, 5, 3)


class Features(Protocol):
    """A frozen network that compares pictures: images (N, 3, H, W) in [-1, 1] -> feature maps."""

    def features(self, images: Tensor) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class Config:
    width: int = 64  # channels after the first convolution
    depth: int = 7  # halvings; the picture's sides are multiples of 2^depth
    enlarge: Literal["nearest", "bilinear"] = "nearest"  # of features in the decoder; masks are always enlarged by repetition
    size: int = 256  # pixels of the training pictures
    template: str = ""  # alignment of the faces that it was trained on; "": whole pictures


class PartialConv(nn.Module):
    """Convolution over what is known (eqs. 1, 2): features (N, sum of sources, H, W), mask (N, len(sources), H, W) -> both anew.

    The mask is 1 where features are known: a channel for each source, or one for all. The new mask has one channel, and features
    are 0 where nothing in the window was known.
    """

    def __init__(self, sources: Sequence[int], outputs: int, kernel: int, stride: int, padding: int, bias: bool, rate: int = 1) -> None:
        super().__init__()
        self.sources, self.stride, self.padding, self.rate = tuple(sources), stride, padding, rate
        self.weight = nn.Parameter(torch.empty(outputs, sum(sources), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        one = mask.shape[1] == 1
        counts = mask.new_tensor((sum(self.sources),) if one else self.sources)
        kernel = self.weight.shape[2:]
        spread = mask if one else torch.cat([m.expand(-1, n, -1, -1) for m, n in zip(mask.split(1, 1), self.sources, strict=True)], 1)
        window = counts.view(1, -1, 1, 1).expand(1, -1, *kernel)
        known = F.conv2d(mask, window, None, self.stride, self.padding, self.rate)
        total = kernel[0] * kernel[1] * sum(self.sources)
        reached = (known > 0).to(mask.dtype)
        y = F.conv2d(x * spread, self.weight, None, self.stride, self.padding, self.rate) * (total / (known + NOTHING))
        return (y if self.bias is None else y + self.bias.view(1, -1, 1, 1)) * reached, reached


class Stage(nn.Module):
    """A partial convolution with its norm and activation."""

    def __init__(self, sources: Sequence[int], outputs: int, kernel: int, stride: int, slope: float | None, norm: bool = True) -> None:
        super().__init__()
        self.conv = PartialConv(sources, outputs, kernel, stride, kernel // 2, bias=slope is None)
        self.norm = nn.BatchNorm2d(outputs) if norm else None
        self.slope = slope  # of the activation below 0; None for no activation

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = self.conv(x, mask)
        x = x if self.norm is None else self.norm(x)
        return (x if self.slope is None else F.leaky_relu(x, self.slope)), mask


class UNet(nn.Module):
    """`inpaint(images, mask)`: images (N, 3, H, W) in [-1, 1], holes where mask (N, 1, H, W) is 1; H and W are multiples of 2^depth."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.multiple, self.template = 2**config.depth, config.template
        widths = [config.width * WIDTHS[min(stage, 3)] for stage in range(config.depth)]
        self.encoder = nn.ModuleList(
            Stage((before,), width, KERNELS[min(stage, 3)], 2, 0.0, norm=stage > 0)
            for stage, (before, width) in enumerate(zip([3, *widths], widths, strict=False))
        )
        self.decoder = nn.ModuleList()
        for stage in reversed(range(config.depth)):
            beside = widths[stage - 1] if stage else 3
            below = widths[stage]  # of the deepest stage, else of the decoder's last one, which is as wide
            self.decoder.append(Stage((below, beside), beside, 3, 1, 0.2 if stage else None, norm=stage > 0))

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return the painting (N, 3, H, W), ImageNet-normalised as `x` is, and the mask that is left; `known` (N, 1, H, W) is 1 outside."""
        x = x * known
        passed = [(x, known)]
        for stage in self.encoder:
            passed.append(stage(*passed[-1]))
        x, mask = passed.pop()
        for stage in self.decoder:
            beside, seen = passed.pop()
            x = F.interpolate(x, scale_factor=2, mode=self.config.enlarge)
            mask = torch.cat([F.interpolate(mask, scale_factor=2, mode="nearest"), seen], 1)
            x, mask = stage(torch.cat([x, beside], 1), mask)
        return x, mask

    def inpaint(self, images: Tensor, mask: Tensor, sketch: Tensor | None = None) -> Tensor:  # noqa: ARG002 - guided by no sketch
        """Return the images with their holes filled; what is known stays as it is."""
        painted = restored(self(vgg.prepared(images, "imagenet"), 1 - mask)[0])
        return painted * mask + images * (1 - mask)


def restored(images: Tensor) -> Tensor:
    """Bring (N, 3, H, W) in ImageNet's normalisation back to [-1, 1]."""
    mean, deviation = (images.new_tensor(each).view(1, 3, 1, 1) for each in (vgg.MEAN, vgg.DEVIATION))
    return 2 * (images * deviation + mean) - 1


@dataclass(frozen=True)
class Weights:
    """Weights of the losses (eq. 7)."""

    valid: float = 1.0
    hole: float = 6.0
    perceptual: float = 0.05
    style: float = 120.0
    smooth: float = 0.1


def terms(features: Callable[[Tensor], Sequence[Tensor]] | None, known: Tensor, painted: Tensor, truth: Tensor) -> Losses:
    """Return the unweighted losses (eqs. 2 to 6) of a painting against the truth, (N, 3, H, W) in the space that `features` takes.

    `known` (N, 1 or 3, H, W) is 1 outside the hole. Without features, those of pixels alone.
    """
    filled = known * truth + (1 - known) * painted
    off = (painted - truth).abs()
    found = {"valid": (known * off).mean(), "hole": ((1 - known) * off).mean(), "smooth": variation(filled)}
    if features is None:
        return found
    maps = list(zip(features(painted), features(filled), features(truth), strict=True))
    found["perceptual"] = torch.stack([F.l1_loss(x, real) for *both, real in maps for x in both]).sum()
    found["style"] = torch.stack([F.l1_loss(gram(x), gram(real)) for *both, real in maps for x in both]).sum()
    return found


def gram(maps: Tensor) -> Tensor:
    """Return how features (N, C, H, W) occur together, (N, C, C), divided by their number."""
    flat = maps.flatten(2).float()
    return torch.bmm(flat, flat.transpose(1, 2)) / (maps.shape[1] * flat.shape[2])


def variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbours across plus that of neighbours along."""
    return (images[..., :-1] - images[..., 1:]).abs().mean() + (images[:, :, :-1] - images[:, :, 1:]).abs().mean()


class Objective:
    """The U-Net alone learns; masks are those of the data, where it has some, else drawn anew at every step."""

    averaged = ("unet",)

    def __init__(self, config: Config, features: Features | None, weights: Weights, shapes: Holes, finetune: bool, adam: Adam) -> None:
        self.config, self.features, self.weights = config, features, weights
        self.shapes, self.finetune, self.adam = shapes, finetune, adam
        self.networks = nn.ModuleDict({"unet": UNet(config)})
        self.shown: Tensor | None = None  # pictures for the sample sheets: those of the last step

    def phases(self) -> list[Phase]:
        """One step of the U-Net."""
        return [Phase("unet", self.networks["unet"].parameters, self.loss, self.adam)]

    def loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        """All terms with their weights, of pictures in ImageNet's normalisation."""
        images = batch["image"]
        self.shown = images.detach()[:8]
        if "mask" in batch:
            mask = (batch["mask"] > 0.5).to(images.dtype)
        else:
            mask = holes.draw(len(images), (images.shape[2], images.shape[3]), rng, self.shapes).to(images.device)
        if self.finetune:  # section 3.3: the statistics of the encoder stay, for holes have none of their own
            encoder: Any = self.networks["unet"].encoder
            for stage in encoder:
                stage.eval()
        truth, known = vgg.prepared(images, "imagenet"), 1 - mask
        painted, _ = self.networks["unet"](truth, known)
        network = self.features
        found = terms(None if network is None else lambda x: network.features(restored(x)), known, painted, truth)
        return {name: getattr(self.weights, name) * value for name, value in found.items()}

    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Return pictures with a hole, filled, and as they were: three rows of eight (24, 3, S, S)."""
        images = torch.zeros(8, 3, self.config.size, self.config.size) if self.shown is None else self.shown
        mask = holes.draw(len(images), (images.shape[2], images.shape[3]), seeded(0), self.shapes).to(images.device)
        painter: Any = networks["unet"]
        with torch.no_grad():
            filled = painter.inpaint(images, mask)
        return torch.cat([images * (1 - mask) + mask, filled, images]).clamp(-1, 1)


def objective(
    config: Config,
    seed: int = 0,
    *,
    features: Any = None,
    weights: Weights = Weights(),
    shapes: Holes = Holes(),
    finetune: bool = False,
    adam: Adam = Adam(2e-4),
) -> Objective:
    """Make the objective; `features` is the frozen network that pictures are compared by: VGG-16, as published, or another."""
    if features is None and (weights.perceptual or weights.style):
        raise TrainingError("the perceptual and style losses compare feature maps: --set features=FILE of VGG-16, or limn-identity")
    seen: Any = None if features is None else vgg.view(features, LAYERS)
    with drawing(seed):
        return Objective(config, seen, weights, shapes, finetune, adam)


def config_of(state: State) -> Config:
    """Infer the configuration of a published U-Net; how it enlarges its features, shapes do not say: by repetition."""
    depth = sum(name.startswith("enc_") and name.endswith("input_conv.weight") for name in state)
    return Config(width=state["enc_1.conv.input_conv.weight"].shape[0], depth=depth)


def names(config: Config) -> list[tuple[str, str | None]]:
    """Number the stages in the order in which they run; the convolution of ones that counts known pixels is no weight."""
    rows: list[tuple[str, str | None]] = [(r".+\.mask_conv\.weight", None)]
    for number in range(1, config.depth + 1):
        for part, index in (("enc", number - 1), ("dec", config.depth - number)):
            ours = f"{'encoder' if part == 'enc' else 'decoder'}.{index}"
            rows += [(rf"{part}_{number}\.conv\.input_conv\.(.+)", rf"{ours}.conv.\1"), (rf"{part}_{number}\.bn\.(.+)", rf"{ours}.norm.\1")]
    return rows


def by_share(state: State) -> State:
    """Divide the convolutions by the size of their window: the published port divides by the number of known values, not by their share."""
    return {name: tensor / tensor[0].numel() if name.endswith("input_conv.weight") else tensor for name, tensor in state.items()}


NETWORKS = {"unet": UNet}

PRESETS = {
    "places2-256": Preset(Config(), "images", 16, 500_000, {"features": "vgg-vgg16"}),
    "places2-256-finetune": Preset(Config(), "images", 16, 500_000, {"features": "vgg-vgg16", "finetune": True, "adam": Adam(5e-5)}),
    "portraits64": Preset(
        Config(width=24, depth=5, size=64, template="ffhq"),
        data="images",
        batch=16,
        steps=800,
        objective={
            "features": "limn-identity",
            "weights": Weights(perceptual=0.5, style=5.0),
            "shapes": Holes(box=(0.15, 0.5), boxes=0.75, brushed=0.6),
            "adam": Adam(2e-3),
        },
        ema_kimg=0.5,
        decay="end",
        reaches="after 429 of the steps, 6 minutes of one CPU core: L1 23.6 of 255 and PSNR 18.5 dB inside holes of held-out people, "
        "identity 0.89 (OpenCV's Telea 24.5, 17.6, 0.84)",
    ),
}

PUBLISHED = [
    Published(
        "unet",
        "naoto0804",
        lambda state: "enc_1.conv.input_conv.weight" in state and "dec_1.conv.input_conv.weight" in state,
        config_of,
        UNet,
        names,
        by_share,
    )
]

CARD = Card(
    name="partial-conv",
    title="Partial convolution",
    chapter="inpainting",
    year=2018,
    arxiv="1804.07723",
    verbs=("inpaint", "train"),
    weights_licence="MIT (the usual port's, on Places2, whose images are for research); NVIDIA published none",
    source="naoto0804/pytorch-inpainting-with-partial-conv",
)

"""DeepFill v2: a hole of any shape is painted twice, by convolutions that learn where to look and by copying what is known.

Every convolution has a gate, a second convolution through a sigmoid, that says how much of each feature counts at each place: masks
and sketches need no rule of their own. A coarse network paints a first guess; the second paints it again in two branches, one of
which rebuilds the hole's features out of the best matching patches around it (contextual attention). A discriminator with spectral
norm judges every patch (SN-PatchGAN), and a drawn sketch can guide all of it.
Yu, Lin, Yang, Shen, Lu, Huang: Free-Form Image Inpainting with Gated Convolution. ICCV 2019, arXiv 1806.03589.
Differs: attention uses each picture's own mask, where the published code takes the first of the batch for all; drawn lines run in
any direction; optionally a perceptual term beside L1. Reproduced: the cases `deepfill-v2/*`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from limn.blocks import holes
from limn.blocks.holes import Holes
from limn.errors import InputError, WeightsError
from limn.losses.games import hinge
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing, seeded

Padding = Literal["tensorflow", "symmetric"]
Activation = Literal["elu", "relu", "none"]
Narrow = Literal["none", "first", "both"]  # halvings after which the width grows one layer later
SCALE = 10.0  # of the softmax over the patches that are compared
SHORTEST = 1e-4  # length below which a patch is not scaled to unit length
COLOURS = 3  # a layer with so many outputs is not gated: the published code takes it for the picture


class Features(Protocol):
    """A frozen network that compares pictures: images (N, 3, H, W) in [-1, 1] -> feature maps."""

    def features(self, images: Tensor) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class Config:
    width: int = 48  # channels before the gate of the first layer: features are width/2, width and 2 width at 1, 1/2 and 1/4
    channels_in: int = 5  # RGB, ones, mask; 6 with a sketch
    judge_width: int = 64  # channels of the discriminator's first layer; the others have 2 or 4 times as many
    padding: Padding = "tensorflow"  # of stride 2: right and bottom first, as TensorFlow does, or on both sides
    fuse: bool = True  # whether neighbouring patches are asked to match neighbouring patches
    size: int = 256  # pixels of the training pictures; the networks take any multiple of 8
    template: str = ""  # alignment of the faces that it was trained on; "": whole pictures


class GatedConv(nn.Module):
    """Features times their gate (eq. 3): (N, inputs, H, W) -> (N, outputs, H / stride, W / stride); `enlarge` doubles H and W before."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        rate: int = 1,
        padding: Padding = "tensorflow",
        activation: Activation = "elu",
        enlarge: bool = False,
    ) -> None:
        super().__init__()
        self.gated = activation != "none" and outputs != COLOURS
        self.activation: Activation = activation
        self.enlarge = enlarge
        self.before = stride > 1 and padding == "tensorflow"
        self.conv = nn.Conv2d(inputs, outputs * (1 + self.gated), kernel, stride, 0 if self.before else rate * (kernel // 2), rate)
        self.begin(inputs, outputs)

    @torch.no_grad()
    def begin(self, inputs: int, outputs: int) -> None:
        """Draw the first weights: gates half open, features twice as strong, and passed on as they are where the width stays."""
        weight = self.conv.weight
        gain = torch.full((weight.shape[0], 1, 1, 1), 2.2 if self.gated else 1.0)
        gain[outputs:] = 0.5
        weight.normal_().mul_(gain / weight[0].numel() ** 0.5)
        self.conv.bias.zero_()  # type: ignore[union-attr]
        if self.gated and inputs == outputs and self.conv.stride[0] == 1:
            weight[:outputs] = 0.3 * weight[:outputs] + 2 * nn.init.dirac_(torch.empty_like(weight[:outputs]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest") if self.enlarge else x
        x = self.conv(padded(x, self.conv.kernel_size[0]) if self.before else x)
        if not self.gated:
            return x
        features, gate = x.chunk(2, 1)
        return (F.relu(features) if self.activation == "relu" else F.elu(features)) * gate.sigmoid()


def padded(x: Tensor, kernel: int, stride: int = 2) -> Tensor:
    """Pad for a strided convolution as TensorFlow's "same" does: the odd pixel is added at the right and bottom."""
    lacking = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (x.shape[3], x.shape[2])]
    left, top = (total // 2 for total in lacking)
    return F.pad(x, (left, lacking[0] - left, top, lacking[1] - top))


def encoder(config: Config, inputs: int, narrow: Narrow, rates: Sequence[int], last: Activation = "elu") -> nn.Sequential:
    """Layers that halve the picture twice and go on at 1/4; in the `narrow` halvings the width grows one layer later."""
    half, full, twice = config.width // 2, config.width, 2 * config.width
    first = half if narrow != "none" else full
    second = full if narrow == "both" else twice
    shapes = [(inputs, half, 5, 1, 1), (half, first, 3, 2, 1), (first, full, 3, 1, 1), (full, second, 3, 2, 1), (second, twice, 3, 1, 1)]
    shapes += [(twice, twice, 3, 1, rate) for rate in rates]
    made = [GatedConv(*shape, padding=config.padding) for shape in shapes]
    made[-1].activation = last
    return nn.Sequential(*made)


def decoder(config: Config, inputs: int) -> nn.Sequential:
    """Layers from 1/4 back to the picture, which is not yet between -1 and 1."""
    half, full, twice, quarter = config.width // 2, config.width, 2 * config.width, config.width // 4
    return nn.Sequential(
        GatedConv(inputs, twice),
        GatedConv(twice, twice),
        GatedConv(twice, full, enlarge=True),
        GatedConv(full, full),
        GatedConv(full, half, enlarge=True),
        GatedConv(half, quarter),
        GatedConv(quarter, COLOURS, activation="none"),
    )


class Generator(nn.Module):
    """`inpaint(images, mask, sketch)`: images (N, 3, H, W) in [-1, 1], holes where mask (N, 1, H, W) is 1; H and W are multiples of 8."""

    multiple = 8

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        if config.channels_in not in (COLOURS + 2, COLOURS + 3):
            raise InputError(f"deepfill-v2 reads 5 channels (RGB, ones, mask), or 6 with a sketch, not {config.channels_in}")
        self.config = config
        self.template = config.template
        twice = 2 * config.width
        self.coarse = nn.Sequential(*encoder(config, config.channels_in, "none", (1, 2, 4, 8, 16)), *decoder(config, twice))
        self.imagine = encoder(config, COLOURS, "both", (1, 2, 4, 8, 16))
        self.match = encoder(config, COLOURS, "first", (1,), last="relu")
        self.copied = nn.Sequential(GatedConv(twice, twice), GatedConv(twice, twice))
        self.join = decoder(config, 2 * twice)

    @property
    def sketched(self) -> bool:
        """Whether it was made to be guided by a sketch."""
        return self.config.channels_in == COLOURS + 3

    def forward(self, images: Tensor, mask: Tensor, sketch: Tensor | None = None, attended: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the first and the second painting, each (N, 3, H, W); `attended` is another mask for the attention alone."""
        known = images * (1 - mask)
        channels = [known, torch.ones_like(mask), mask]
        if self.sketched:
            channels.insert(1, torch.zeros_like(mask) if sketch is None else sketch * mask)
        elif sketch is not None:
            raise InputError("this model was made without a sketch channel: leave the sketch out, or use a model with six channels")
        first = torch.tanh(self.coarse(torch.cat(channels, 1)))
        seen = first * mask + known
        matched = self.match(seen)
        copied = attention(matched, matched, mask if attended is None else attended, self.config)
        both = torch.cat([self.imagine(seen), self.copied(copied)], 1)
        return first, torch.tanh(self.join(both))

    def inpaint(self, images: Tensor, mask: Tensor, sketch: Tensor | None = None) -> Tensor:
        """Return the images with their holes filled; what is known stays as it is."""
        return self(images, mask, sketch)[1] * mask + images * (1 - mask)


def attention(features: Tensor, background: Tensor, mask: Tensor, config: Config, scale: float = SCALE) -> Tensor:
    """Rebuild features (N, C, H, W) as mixtures of 4x4 patches of the background, by how alike 3x3 patches are at half the size.

    `mask` (N or 1, 1, h, w), some times the background's size, is 1 in the hole: patches that touch it are not copied.
    Contextual attention, arXiv 1801.07892.
    """
    small, keys = (shrunk(x, 2, config.padding) for x in (features, background))
    height, width = small.shape[2:]
    queries, patches = F.unfold(small, 3, padding=1), F.unfold(keys, 3, padding=1)
    patches = patches / patches.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
    scores = torch.bmm(patches.transpose(1, 2), queries)  # (N, patches, places)
    if config.fuse:
        scores = fused(scores, tuple(keys.shape[2:]), (height, width))
    hole = F.unfold(shrunk(mask, mask.shape[2] // keys.shape[2], config.padding), 3, padding=1).mean(1)
    known = (hole == 0).to(scores.dtype)[..., None]
    weights = torch.softmax(scores * known * scale, 1) * known
    copies = F.unfold(background, 4, padding=1, stride=2)
    return F.fold(torch.bmm(copies, weights), (2 * height, 2 * width), 4, padding=1, stride=2) / 4


def shrunk(x: Tensor, times: int, padding: Padding) -> Tensor:
    """Take one pixel of each `times` in a row: from corner to corner as TensorFlow does, or the first of each."""
    if padding == "symmetric":
        return x[:, :, ::times, ::times]
    rows, columns = (
        torch.linspace(0, side - 1, side // times, device=x.device).add(0.5).floor().long().clamp_max(side - 1) for side in x.shape[2:]
    )
    return x[:, :, rows][:, :, :, columns]


def fused(scores: Tensor, keys: tuple[int, ...], places: tuple[int, ...]) -> Tensor:
    """Add to each score those of the neighbours on both sides, matched alike: along rows of the flattened maps, then along columns."""
    count, patches, positions = scores.shape
    along = diagonal(scores)
    turned = along.view(count, *keys, *places).permute(0, 2, 1, 4, 3).reshape(count, patches, positions)
    back = diagonal(turned).view(count, keys[1], keys[0], places[1], places[0]).permute(0, 2, 1, 4, 3)
    return back.reshape(count, patches, positions)


def diagonal(scores: Tensor) -> Tensor:
    """Convolve (N, K, L) with the 3x3 identity."""
    wide = F.pad(scores, (1, 1, 1, 1))
    return wide[:, :-2, :-2] + scores + wide[:, 2:, 2:]


class Discriminator(nn.Module):
    """SN-PatchGAN: pictures with their mask, and their sketch where there is one, -> scores (N, places x channels)."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.padding = config.padding
        shapes = [config.channels_in - 1, *(config.judge_width * times for times in (1, 2, 4, 4, 4, 4))]
        border = 0 if config.padding == "tensorflow" else 2
        self.convs = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 5, 2, border)) for a, b in pairwise(shapes))

    def forward(self, images: Tensor, mask: Tensor, sketch: Tensor | None = None) -> Tensor:
        x = torch.cat([images, mask] if sketch is None else [images, mask, sketch], 1)
        for conv in self.convs:
            x = F.leaky_relu(conv(padded(x, 5) if self.padding == "tensorflow" else x), 0.2)
        return x.flatten(1)


def edges(images: Tensor, share: float = 0.08) -> Tensor:
    """Return lines (N, 1, H, W) of 0 and 1 where the brightness of images changes most: a stand-in for what a person would sketch."""
    luma = F.avg_pool2d(F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="reflect"), 3, 1)
    slope = luma.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).view(1, 1, 3, 3)
    wide = F.pad(luma, (1, 1, 1, 1), mode="reflect")
    strength = torch.hypot(F.conv2d(wide, slope), F.conv2d(wide, slope.transpose(2, 3))).float()
    ridge = (strength >= F.max_pool2d(strength, (1, 3), 1, (0, 1))) | (strength >= F.max_pool2d(strength, (3, 1), 1, (1, 0)))
    least = torch.quantile(strength.flatten(1), 1 - 2 * share, dim=1).view(-1, 1, 1, 1)
    return (ridge & (strength > least)).float()


@dataclass(frozen=True)
class Weights:
    """Weights of the generator's losses; the published ones, and none of them perceptual."""

    l1: float = 1.0  # of both paintings, the mean over the whole picture
    known: float = 1.0  # what a pixel outside the hole counts in it
    adversarial: float = 1.0
    perceptual: float = 0.0  # L1 between feature maps, where `features` are given


@dataclass(frozen=True)
class Masks:
    """What is asked for in training."""

    shapes: Holes = field(default_factory=Holes)
    guided: float = 0.5  # share of the pictures that come with a sketch, for a model that has a channel for it


class Objective:
    """What both players minimise (section 3.4); masks are those of the data, where it has some, else drawn anew at every step."""

    averaged = ("generator",)

    def __init__(self, config: Config, features: Features | None, weights: Weights, masks: Masks, judge_every: int, adam: Adam) -> None:
        self.config, self.features, self.weights = config, features, weights
        self.masks, self.judge_every, self.adam = masks, judge_every, adam
        self.networks = nn.ModuleDict({"generator": Generator(config), "discriminator": Discriminator(config)})
        self.shown: Tensor | None = None  # pictures for the sample sheets: those of the last step

    def phases(self) -> list[Phase]:
        """Each player steps once; the discriminator may sit out some steps."""
        judge, painter = self.networks["discriminator"], self.networks["generator"]
        return [
            Phase("discriminator", judge.parameters, self.discriminator_loss, self.adam, self.judge_every),
            Phase("generator", painter.parameters, self.generator_loss, self.adam),
        ]

    def holes_of(self, batch: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Return masks and, for a guided model, sketches: the picture's own edges in a share of the pictures, none in the others."""
        images = batch["image"]
        mask = (batch["mask"] > 0.5).to(images.dtype) if "mask" in batch else None
        if mask is None:
            mask = holes.draw(len(images), (images.shape[2], images.shape[3]), rng, self.masks.shapes).to(images.device)
        if self.config.channels_in == COLOURS + 2:
            return mask, None
        told = torch.rand(len(images), 1, 1, 1, generator=rng) < self.masks.guided
        return mask, edges(images) * mask * told.to(images.device)

    def discriminator_loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        """Hinge on real pictures and on those with a filled hole, half each (eqs. 4, 5)."""
        images, (mask, sketch) = batch["image"], self.holes_of(batch, rng)
        with torch.no_grad():
            filled = self.networks["generator"](images, mask, sketch)[1] * mask + images * (1 - mask)
        double = (torch.cat([x, x]) if x is not None else None for x in (mask, sketch))
        real, fake = self.networks["discriminator"](torch.cat([images, filled]), *double).chunk(2)
        return {"hinge": 0.5 * (hinge(real, True) + hinge(fake, False))}

    def generator_loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        """L1 of both paintings, and what the discriminator says of the filled picture."""
        images, (mask, sketch) = batch["image"], self.holes_of(batch, rng)
        self.shown = images.detach()[:8]
        first, second = self.networks["generator"](images, mask, sketch)
        filled = second * mask + images * (1 - mask)
        counts = self.weights.l1 * (mask + self.weights.known * (1 - mask))
        losses = {"l1": (counts * ((first - images).abs() + (second - images).abs())).mean()}
        if self.weights.adversarial:
            losses["adversarial"] = self.weights.adversarial * hinge(
                self.networks["discriminator"](filled, mask, sketch), True, generator=True
            )
        if self.features is not None and self.weights.perceptual:
            pairs = zip(self.features.features(filled), self.features.features(images), strict=True)
            losses["perceptual"] = self.weights.perceptual * torch.stack([(a - b.detach()).abs().mean() for a, b in pairs]).sum()
        return losses

    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Return pictures with a hole, filled, and as they were: three rows of eight (24, 3, S, S)."""
        images = torch.zeros(8, 3, self.config.size, self.config.size) if self.shown is None else self.shown
        mask = holes.draw(len(images), (images.shape[2], images.shape[3]), seeded(0), self.masks.shapes).to(images.device)
        painter: Any = networks["generator"]
        with torch.no_grad():
            filled = painter.inpaint(images, mask)
        return torch.cat([images * (1 - mask) + mask, filled, images]).clamp(-1, 1)


def objective(
    config: Config,
    seed: int = 0,
    *,
    features: Features | None = None,
    weights: Weights = Weights(),
    masks: Masks = Masks(),
    judge_every: int = 1,
    adam: Adam = Adam(1e-4, (0.5, 0.999)),
) -> Objective:
    """Make the objective; `features` is the frozen network of the perceptual term, which the paper does without."""
    with drawing(seed):
        return Objective(config, features, weights, masks, judge_every, adam)


# Our layers in order, by the names of the two published layouts.
COARSE = ["conv1", "conv2_downsample", "conv3", "conv4_downsample", "conv5", "conv6", "conv7_atrous", "conv8_atrous", "conv9_atrous"]
COARSE += ["conv10_atrous", "conv11", "conv12", "conv13_upsample", "conv14", "conv15_upsample", "conv16", "conv17"]
MATCH = ["pmconv1", "pmconv2_downsample", "pmconv3", "pmconv4_downsample", "pmconv5", "pmconv6"]
OFFICIAL = {
    "coarse": COARSE,
    "imagine": [f"x{name}" for name in COARSE[:10]],
    "match": MATCH,
    "copied": ["pmconv9", "pmconv10"],
    "join": [f"all{name}" for name in COARSE[10:]],
}
DOWN = [f"down_block{block}.{layer}" for block in (1, 2) for layer in ("conv1_downsample", "conv2")]
UP = [f"up_block{block}.{layer}" for block in (1, 2) for layer in ("conv1_upsample", "conv2")]
PORT = {
    "coarse": [f"stage1.{name}" for name in ("conv1", *DOWN, *(f"conv_bn{n}" for n in range(1, 8)), *UP, "conv_to_rgb")],
    "imagine": [rf"stage2.(?:conv|b1)_{name}" for name in ("conv1", *DOWN, *(f"conv_bn{n}" for n in range(1, 6)))],
    "match": [f"stage2.(?:ca|b2)_{name}" for name in ("conv1", *DOWN, "conv_bn1")],
    "copied": [f"stage2.(?:ca|b2)_{name}" for name in ("conv_bn4", "conv_bn5")],
    "join": [f"stage2.{name}" for name in ("conv_bn6", "conv_bn7", *UP, "conv_to_rgb")],
}


def names(layout: dict[str, list[str]]) -> list[tuple[str, str | None]]:
    """Return the rows that number the layers of a layout; its upsampling layers hold their convolution one level deeper."""
    rows: list[tuple[str, str | None]] = []
    for part, layers in layout.items():
        rows += [(rf"{name}(?:\.conv)+\.(weight|bias)", rf"{part}.{index}.conv.\1") for index, name in enumerate(layers)]
    return [*rows, (r".*\.fuse_weight", None)]  # the constant identity


def generator_config(state: State) -> Config:
    """Infer the configuration of a generator; whether patches are fused goes with the layout, as the published port does it."""
    port = "stage1.conv1.conv.weight" in state
    first, second = (
        ("stage1.conv1.conv.weight", "stage1.down_block1.conv1_downsample.conv.weight")
        if port
        else ("conv1.conv.weight", "conv2_downsample.conv.weight")
    )
    width = state[second].shape[0] // 2
    return Config(width, state[first].shape[1], padding="symmetric" if port else "tensorflow", fuse=port)


def judge_config(state: State) -> Config:
    """Infer the configuration of a discriminator, whose padding goes with the way its spectral norm is kept."""
    own = "conv1.conv_sn.weight" in state
    first = state["conv1.conv_sn.weight" if own else "conv1.conv_sn.parametrizations.weight.original"]
    return Config(channels_in=first.shape[1] + 1, judge_width=first.shape[0], padding="tensorflow" if own else "symmetric")


def with_both_vectors(state: State) -> State:
    """Iterate once from the left vector that the published layer keeps, as it does at every pass, to have the right one too."""
    done: dict[str, Tensor] = dict(state)
    for name in [name for name in state if name.endswith(".weight_u")]:
        base = name.removesuffix("weight_u")
        weight = state[f"{base}weight"].flatten(1).float()
        if len(state[name]) != len(weight):
            raise WeightsError(f"{name} has {len(state[name])} numbers for the {len(weight)} channels of its weight")
        right = F.normalize(weight.t() @ state[name].float().flatten(), dim=0)
        done |= {f"{base}weight_v": right, name: F.normalize(weight @ right, dim=0)}
    return done


def judge_names(original: str, vectors: str) -> list[tuple[str, str | None]]:
    """Return the rows of a discriminator's layout: how it names the raw weight and the two vectors of the spectral norm."""
    rows: list[tuple[str, str | None]] = []
    for number in range(1, 7):
        ours = f"convs.{number - 1}"
        base = rf"conv{number}\.conv_sn\."
        rows += [(base + "bias", f"{ours}.bias"), (base + original, f"{ours}.parametrizations.weight.original")]
        rows += [(base + vectors, rf"{ours}.parametrizations.weight.0._\1")]
    return rows


NETWORKS = {"generator": Generator, "discriminator": Discriminator}

PORTRAITS = Config(width=32, channels_in=6, judge_width=24, padding="symmetric", size=64, template="ffhq")
SMALL = {
    "features": "limn-identity",
    "weights": Weights(known=0.1, adversarial=0.05, perceptual=0.25),
    "masks": Masks(Holes(box=(0.15, 0.5), boxes=0.75, brushed=0.6), guided=0.33),
    "judge_every": 4,
}

PRESETS = {
    "celebahq-256": Preset(Config(), data="images", batch=16, steps=1_000_000),
    "places2-sketch": Preset(Config(channels_in=6), data="images", batch=16, steps=1_000_000),
    "masks-256": Preset(Config(), data="masks", batch=16, steps=1_000_000),  # holes as drawn, a mask beside each picture
    "portraits64": Preset(
        PORTRAITS,
        "images",
        8,
        4000,
        SMALL | {"adam": Adam(5e-4, (0.5, 0.99))},
        ema_kimg=0.5,
        decay="cosine",
        reaches="at a rate of 1e-3, 17,000 portraits seen in 20 minutes of one CPU core: L1 21.7 of 255 and PSNR 19.0 dB inside holes of "
        "held-out people, identity 0.92 (OpenCV's Telea 24.5, 17.6, 0.84); beyond that this rate was too high and the loss rose",
    ),
    "portraits128": Preset(
        replace(PORTRAITS, size=128), "images", 8, 1000, SMALL | {"adam": Adam(5e-4, (0.5, 0.99))}, ema_kimg=0.5, decay="end"
    ),
}

PUBLISHED = [
    Published(
        "generator",
        "official",
        lambda state: "conv1.conv.weight" in state and "allconv17.conv.weight" in state,
        generator_config,
        Generator,
        names(OFFICIAL),
    ),
    Published(
        "generator",
        "port",
        lambda state: "stage1.conv1.conv.weight" in state and "stage2.conv_to_rgb.conv.weight" in state,
        generator_config,
        Generator,
        names(PORT),
    ),
    Published(
        "discriminator",
        "official",
        lambda state: "conv1.conv_sn.weight" in state and "conv6.conv_sn.weight_u" in state,
        judge_config,
        Discriminator,
        judge_names("weight", "weight_(u|v)"),
        with_both_vectors,
    ),
    Published(
        "discriminator",
        "port",
        lambda state: "conv1.conv_sn.parametrizations.weight.original" in state and "conv6.conv_sn.bias" in state,
        judge_config,
        Discriminator,
        judge_names(r"parametrizations\.weight\.original", r"parametrizations\.weight\.0\._(u|v)"),
    ),
]

CARD = Card(
    name="deepfill-v2",
    title="DeepFill v2",
    chapter="inpainting",
    year=2019,
    arxiv="1806.03589",
    verbs=("inpaint", "train"),
    weights_licence="CC BY-NC 4.0 (original and its conversions): non-commercial",
    source="JiahuiYu/generative_inpainting",
)

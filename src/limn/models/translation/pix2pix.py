"""pix2pix: a U-Net that paints what a picture of one kind looks like in another, and a discriminator that judges patches of pairs.

The generator minimises the distance to the true answer and, beside it, what a discriminator thinks that sees source and answer
together; the discriminator sees 70x70 patches only, for the distance takes care of the whole.
Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks. CVPR 2017, arXiv 1611.07004.
Differs: dropout is drawn from an explicit generator and left out without one; batch normalisation of a translated picture takes that
picture's own statistics, whatever the batch (the published test runs are batches of one in training mode: the same). Reproduced:
generators, discriminators and one step's losses of the published code within 1e-4
(tests/parity); no figure of the paper, for want of its data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.johnson import Johnson, JohnsonGenerator, Padding, dropped
from limn.blocks.norms import Norm, norm, normalised
from limn.blocks.patch import Patch, PatchDiscriminator, widths
from limn.losses.games import GAMES
from limn.models.records import Adam, Card, Losses, Names, Phase, Preset, Published, State, drawing


@dataclass(frozen=True)
class Config:
    channels_in: int = 3
    channels_out: int = 3
    size: int = 256  # pixels of the training pictures
    template: str = ""  # their alignment, where they are faces
    width: int = 64  # channels of the outermost level
    network: Literal["unet", "resnet"] = "unet"
    downs: int = 8  # halvings of the U-Net: the smallest map of a 256 picture has one pixel
    blocks: int = 9  # residual blocks of the resnet, which halves twice
    norm: Norm = "batch"
    dropout: bool = True  # in the inner levels, also of a translation that has a generator of random numbers
    padding: Padding = "reflect"  # of the resnet's blocks
    judge: Literal["patch", "pixel"] = "patch"
    judge_channels: int = 6  # that the discriminator sees: source and answer
    judge_width: int = 64
    judge_layers: int = 3  # strided convolutions of the discriminator: 3 see 70 pixels

    @property
    def johnson(self) -> Johnson:
        """Shape of the residual generator; a bias before a norm that takes the mean away is left out, save with instance norm."""
        bias = self.norm == "instance"
        return Johnson(self.channels_in, self.channels_out, self.width, 2, self.blocks, self.norm, bias, self.dropout, self.padding)

    @property
    def patch(self) -> Patch:
        """Shape of the patch discriminator."""
        return Patch(self.judge_channels, widths(self.judge_width, self.judge_layers), self.norm, self.norm == "instance")


class UNet(nn.Module):
    """Images (N, channels_in, H, W) -> (N, channels_out, H, W) in [-1, 1]; H and W are divisible by 2^downs (section 3.2.1)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, bias = config, config.norm == "instance"
        levels = [config.width * min(2**level, 8) for level in range(config.downs)]
        inputs, last = [config.channels_in, *levels[:-1]], config.downs - 1
        self.downs = nn.ModuleList(nn.Conv2d(few, many, 4, 2, 1, bias=bias) for few, many in zip(inputs, levels, strict=True))
        self.down_norms = nn.ModuleList(norm(config.norm if 0 < level < last else "none", width) for level, width in enumerate(levels))
        outputs = [config.channels_out, *levels[:-1]]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(width if level == last else 2 * width, outputs[level], 4, 2, 1, bias=bias or level == 0)
            for level, width in enumerate(levels)
        )
        self.up_norms = nn.ModuleList(norm(config.norm if level else "none", width) for level, width in enumerate(outputs))

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be divisible by."""
        return 2**self.config.downs

    def forward(self, images: Tensor, rng: torch.Generator | None = None, own: bool = False) -> Tensor:
        """Translate; `rng` draws the dropout, which is left out without it, `own` is that of `norms.normalised`."""
        skips: list[Tensor] = []
        x = images
        for level, (conv, layer) in enumerate(zip(self.downs, self.down_norms, strict=True)):
            x = normalised(layer, conv(F.leaky_relu(x, 0.2) if level else x), own)
            skips.append(x)
        x = skips.pop()
        for level in range(len(self.ups) - 1, -1, -1):
            x = normalised(self.up_norms[level], self.ups[level](F.relu(x)), own)
            if rng is not None and self.config.dropout and 4 <= level < len(self.ups) - 1:
                x = dropped(x, rng)
            x = torch.cat([skips.pop(), x], 1) if level else x
        return x.tanh()


class Generator(nn.Module):
    """The U-Net, or Johnson's residual network, that translates."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.network: UNet | JohnsonGenerator = UNet(config) if config.network == "unet" else JohnsonGenerator(config.johnson)
        self.multiple = self.network.multiple

    def forward(self, images: Tensor, rng: torch.Generator | None = None, own: bool = False) -> Tensor:
        return self.network(images, rng, own)

    def translate(self, images: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Return the pictures (N, channels_out, H, W) that belong to images (N, channels_in, H, W), both in [-1, 1]."""
        return self(images, rng, own=True)


class PixelDiscriminator(nn.Module):
    """Judges every pixel by itself: (N, channels, H, W) -> logits (N, 1, H, W)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        sizes, bias = (config.judge_width, 2 * config.judge_width), config.norm == "instance"
        self.convs = nn.ModuleList(
            [nn.Conv2d(config.judge_channels, sizes[0], 1), nn.Conv2d(*sizes, 1, bias=bias), nn.Conv2d(sizes[1], 1, 1, bias=bias)]
        )
        self.norms = nn.ModuleList([nn.Identity(), norm(config.norm, sizes[1])])

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv, layer in zip(self.convs, self.norms, strict=False):
            x = F.leaky_relu(normalised(layer, conv(x)), 0.2)
        return self.convs[-1](x)


def discriminator(config: Config) -> nn.Module:
    """Make the discriminator that the configuration names."""
    return PatchDiscriminator(config.patch) if config.judge == "patch" else PixelDiscriminator(config)


def started(network: nn.Module) -> nn.Module:
    """Draw first weights as the published trainers do: normal, 0.02 wide, about 0, or about 1 for the scales of norms."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network


class Objective:
    """Trains both on pairs, eq. 4: the discriminator first, then the generator."""

    averaged = ("generator",)

    def __init__(self, config: Config, *, game: str, l1: float, adam: Adam, seed: int) -> None:
        with drawing(seed):
            self.generator, self.discriminator = started(Generator(config)), started(discriminator(config))
        self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})
        self.config, self.game, self.l1, self.adam = config, GAMES[game], l1, adam
        self.shown: tuple[Tensor, Tensor] | None = None  # source and answer of the last batch, for the samples

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Tell pairs from translations; each of the two counts half (section 3.3)."""
        source, target = batch["source"], batch["target"]
        with torch.no_grad():
            fake = self.generator(source, rng)
        judged = {"fake": self.discriminator(torch.cat([source, fake], 1)), "real": self.discriminator(torch.cat([source, target], 1))}
        return {name: 0.5 * self.game(logits, name == "real") for name, logits in judged.items()}

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Look true beside the source, and be near the answer (eq. 4)."""
        source, target = batch["source"], batch["target"]
        self.shown = source[:4].detach(), target[:4].detach()
        fake = self.generator(source, rng)
        logits = self.discriminator(torch.cat([source, fake], 1))
        return {"gan": self.game(logits, True, True), "l1": self.l1 * F.l1_loss(fake, target)}

    def phases(self) -> list[Phase]:
        """Return the two players."""
        return [
            Phase("discriminator", self.discriminator.parameters, self.discriminator_loss, self.adam),
            Phase("generator", self.generator.parameters, self.generator_loss, self.adam),
        ]

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Return the sources, translations and answers of the last batch, one above the other."""
        source, target = self.shown or (torch.zeros(4, self.config.channels_in, self.config.size, self.config.size),) * 2
        generator = networks["generator"]
        assert isinstance(generator, Generator)
        translated = generator.translate(source)
        rows = (source, translated, target)
        return torch.cat([row if row.shape[1] == 3 else row[:, :1].expand(-1, 3, -1, -1) for row in rows])


def objective(
    config: Config,
    seed: int = 0,
    *,
    game: str = "vanilla",
    l1: float = 100.0,
    adam: Adam = Adam(2e-4, (0.5, 0.999)),
) -> Objective:
    """Make the objective: `game` is one of losses.games, `l1` the factor of the distance to the answer."""
    return Objective(config, game=game, l1=l1, adam=adam, seed=seed)


STATISTICS = r"(running_mean|running_var|num_batches_tracked)"
SEQUENCE = re.compile(rf"model\.\d+\.(conv_block\.\d+\.)?(weight|bias|{STATISTICS})")


def convolutions(state: State, prefix: str = "model.") -> list[int]:
    """Return the places of the convolutions in a published sequence."""
    places = {name: re.fullmatch(rf"{re.escape(prefix)}(\d+)\.weight", name) for name in state}
    return sorted(int(place[1]) for name, place in places.items() if place and state[name].ndim == 4)


def norm_of(state: State, name: str, bias: str) -> Norm:
    """Tell the norm from its scale `name` and from the `bias` of the convolution before it, which only instance norm leaves on."""
    return "batch" if name in state else "instance" if bias in state else "none"


def johnson_of(state: State) -> Johnson | None:
    """Infer the shape of a residual generator from the places of its layers; None where they are not those of one."""
    places = convolutions(state)
    numbered = {match[1] for name in state if (match := re.fullmatch(r"model\.(\d+)\.conv_block\..*", name))}
    blocks = sorted(map(int, numbered))
    downs = sum(place < min(blocks, default=0) for place in places) - 1
    if downs < 1 or not all(SEQUENCE.fullmatch(name) for name in state):
        return None
    first, after = 4 + 3 * downs, 4 + 3 * downs + len(blocks)
    expected = [1, *range(4, first, 3), *range(after, after + 3 * downs, 3), after + 3 * downs + 1]
    inside = convolutions(state, f"model.{first}.conv_block.")
    if places != expected or blocks != list(range(first, after)) or len(inside) != 2:
        return None
    head, stem = state[f"model.{expected[-1]}.weight"], state["model.1.weight"]
    return Johnson(
        channels_in=stem.shape[1],
        channels_out=head.shape[0],
        width=stem.shape[0],
        downs=downs,
        blocks=len(blocks),
        norm=norm_of(state, "model.2.weight", "model.1.bias"),
        bias="model.1.bias" in state,
        dropout=inside[1] - inside[0] - (inside[0] > 0) == 4,
        padding="reflect" if inside[0] else "zero",
    )


def johnson_names(shape: Johnson) -> Names:
    """Give the names of the published sequence, in which every padding, norm and activation takes a place; instance norms keep none."""
    body, last = 4 + 3 * shape.downs, 4 + 3 * shape.downs + shape.blocks
    first = 0 if shape.padding == "zero" else 1
    second = first + 3 + shape.dropout + first
    rows: list[tuple[str, str | None]] = [] if shape.norm == "batch" else [(rf".*\.{STATISTICS}", None)]
    rows += [(r"model\.1\.(.*)", r"stem.\1"), (r"model\.2\.(.*)", r"stem_norm.\1")]
    for index in range(shape.downs):
        rows += [(rf"model\.{4 + 3 * index}\.(\w+)", rf"downs.{index}.\1"), (rf"model\.{5 + 3 * index}\.(\w+)", rf"down_norms.{index}.\1")]
        rows += [
            (rf"model\.{last + 3 * index}\.(\w+)", rf"ups.{index}.\1"),
            (rf"model\.{last + 1 + 3 * index}\.(\w+)", rf"up_norms.{index}.\1"),
        ]
    for index in range(shape.blocks):
        for number, place in enumerate((first, second)):
            rows.append((rf"model\.{body + index}\.conv_block\.{place}\.(\w+)", rf"blocks.{index}.convs.{number}.\1"))
            rows.append((rf"model\.{body + index}\.conv_block\.{place + 1}\.(\w+)", rf"blocks.{index}.norms.{number}.\1"))
    return [*rows, (rf"model\.{last + 3 * shape.downs + 1}\.(\w+)", r"head.\1")]


def patch_of(state: State) -> Patch | None:
    """Infer the shape of a patch discriminator; None where the places of its layers are not those of one."""
    places = convolutions(state)
    layers = len(places) - 1
    if layers < 2 or places != [0, *range(2, 3 * layers, 3)] or not all(SEQUENCE.fullmatch(name) for name in state):
        return None
    kernels = [state[f"model.{place}.weight"] for place in places]
    if any(kernel.shape[2:] != (4, 4) for kernel in kernels) or kernels[-1].shape[0] != 1:
        return None
    sizes = tuple(kernel.shape[0] for kernel in kernels[:-1])
    return Patch(kernels[0].shape[1], sizes, norm_of(state, "model.3.weight", "model.2.bias"), "model.2.bias" in state)


def patch_names(shape: Patch) -> Names:
    """Give the names of the published sequence: convolution, norm and activation for each width but the first, which has no norm."""
    rows: list[tuple[str, str | None]] = [] if shape.norm == "batch" else [(rf".*\.{STATISTICS}", None)]
    rows.append((r"model\.0\.(\w+)", r"convs.0.\1"))
    for index in range(1, len(shape.widths) + 1):
        rows += [(rf"model\.{3 * index - 1}\.(\w+)", rf"convs.{index}.\1"), (rf"model\.{3 * index}\.(\w+)", rf"norms.{index}.\1")]
    return rows


def unet_level(level: int) -> str:
    """Return the prefix of a level's layers: each level is a sequence that holds the next, the outermost one as its second layer."""
    return "model.model" + ("" if not level else ".1.model" + ".3.model" * (level - 1))


def unet_names(config: Config) -> Names:
    """Give the names of the nested sequences: (activation,) convolution, norm, inner level, activation, convolution, norm."""
    rows: list[tuple[str, str | None]] = [] if config.norm == "batch" else [(rf".*\.{STATISTICS}", None)]
    last = config.downs - 1
    for level in range(config.downs):
        down, down_norm, up, up_norm = (0, 0, 3, 0) if not level else (1, 0, 3, 4) if level == last else (1, 2, 5, 6)
        for place, ours in ((down, "downs"), (down_norm, "down_norms"), (up, "ups"), (up_norm, "up_norms")):
            if place or ours == "downs":
                rows.append((rf"{re.escape(unet_level(level))}\.{place}\.(\w+)", rf"network.{ours}.{level}.\1"))
    return rows


def is_unet(state: State) -> bool:
    """Tell the nested names of a U-Net whose ups are transposed convolutions of 4x4 and that has a bias only beside instance norm."""
    head, up = state.get("model.model.3.weight"), state.get("model.model.1.model.5.weight")
    if head is None or up is None or head.shape[2:] != (4, 4) or head.shape[0] != 2 * state["model.model.0.weight"].shape[0]:
        return False
    mixed = "model.model.0.bias" in state and "model.model.1.model.2.weight" in state  # batch norm and a bias: BicycleGAN
    return not mixed and all(re.fullmatch(rf"model\.model\.(\d\.model\.)*\d\.(weight|bias|{STATISTICS})", name) for name in state)


def unet_of(state: State) -> Config:
    """Infer the configuration of a U-Net; whether it was trained with dropout its names do not say, so it is taken to be."""
    stem, head = state["model.model.0.weight"], state["model.model.3.weight"]
    downs = max(name.count("model.") for name in state) - 1
    kind = norm_of(state, "model.model.1.model.2.weight", "model.model.0.bias")
    return Config(stem.shape[1], head.shape[1], 2**downs, width=stem.shape[0], downs=downs, norm=kind)


def resnet_of(state: State) -> Config:
    """Infer the configuration of a residual generator."""
    shape = johnson_of(state)
    assert shape is not None, "the row that calls this has recognised it"
    return Config(
        shape.channels_in,
        shape.channels_out,
        width=shape.width,
        network="resnet",
        blocks=shape.blocks,
        norm=shape.norm,
        dropout=shape.dropout,
        padding=shape.padding,
    )


def judge_of(state: State) -> Config:
    """Infer the configuration of a discriminator from its shapes."""
    if "net.0.weight" in state:
        first, kind = state["net.0.weight"], norm_of(state, "net.3.weight", "net.2.bias")
        return Config(judge="pixel", judge_channels=first.shape[1], judge_width=first.shape[0], norm=kind)
    shape = patch_of(state)
    assert shape is not None, "the row that calls this has recognised it"
    return Config(judge_channels=shape.channels_in, judge_width=shape.widths[0], judge_layers=len(shape.widths) - 1, norm=shape.norm)


def within(names: Names) -> Names:
    """Put a generator's names where `Generator` keeps its network."""
    return [(old, None if new is None else f"network.{new}") for old, new in names]


NETWORKS = {"generator": Generator, "discriminator": discriminator}

PIXEL = [
    (r"net\.0\.(\w+)", r"convs.0.\1"),
    (r"net\.2\.(\w+)", r"convs.1.\1"),
    (r"net\.5\.(\w+)", r"convs.2.\1"),
    (r"net\.3\.(\w+)", r"norms.1.\1"),
]


# Residual generators and patch discriminators with batch norm are taken to be pix2pix's, those with instance norm CycleGAN's.
PUBLISHED = [
    Published("generator", "unet", is_unet, unet_of, Generator, unet_names),
    Published(
        "generator",
        "resnet",
        lambda state: (shape := johnson_of(state)) is not None and (shape.norm, shape.downs) == ("batch", 2),
        resnet_of,
        Generator,
        lambda config: within(johnson_names(config.johnson)),
    ),
    Published(
        "discriminator",
        "patch",
        lambda state: (shape := patch_of(state)) is not None and shape.norm == "batch",
        judge_of,
        discriminator,
        lambda config: patch_names(config.patch),
    ),
    Published(
        "discriminator",
        "pixel",
        lambda state: {name.split(".")[1] for name in state if name.startswith("net.")} in ({"0", "2", "5"}, {"0", "2", "3", "5"}),
        judge_of,
        discriminator,
        PIXEL,
    ),
]

PRESETS = {
    "facades": Preset(Config(), data="paired", batch=1, steps=80_000, decay="half", reading={"jitter": 30, "swapped": True}),
    "outlines128": Preset(
        Config(size=128, width=32, downs=7, judge_width=32, judge_layers=2),
        data="paired",
        batch=4,
        steps=1500,
        decay="half",
        ema_kimg=0.5,
        reading={"jitter": 15, "swapped": True},
        reaches="people from outlines: 21 of 255 levels off (112 untrained, 47 for white) on 7 pairs never seen; shapes are filled in "
        "with colours and a checkered grain, faces and clothes are not made out; 8 minutes on a share of one CPU core",
    ),
}

CARD = Card(
    name="pix2pix",
    title="pix2pix",
    chapter="translation",
    year=2017,
    arxiv="1611.07004",
    verbs=("translate", "train"),
    weights_licence="BSD-2-Clause code; the released models' data sets have terms of their own",
    source="junyanz/pytorch-CycleGAN-and-pix2pix",
)

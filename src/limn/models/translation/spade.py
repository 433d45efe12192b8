"""SPADE (GauGAN): pictures painted from label maps, whose layout steers the normalisation of every layer.

A generator that only reads a label map at its entrance loses it in its normalisations; here each one is followed by a scale and a
shift for every pixel, computed from the map. A style can be read out of a picture by an encoder, or drawn.
Park, Liu, Wang, Zhu: Semantic Image Synthesis with Spatially-Adaptive Normalization. CVPR 2019, arXiv 1903.07291.
Differs: without a style the size of the picture is that of the label map, not one of the options; features of any frozen network
stand in for VGG-19's. Reproduced: generators, encoder, discriminator and losses of the published code within 1e-4 (tests/parity).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from limn.blocks.norms import Norm, norm
from limn.blocks.patch import MultiScale, Patch, feature_matching
from limn.errors import TrainingError
from limn.losses.games import GAMES, over_scales
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing

EMBEDDING = 128  # channels between a label map and its scales and shifts: fixed in the paper


@dataclass(frozen=True)
class Config:
    classes: int = 184  # channels of the label map: those of COCO-Stuff, one for unknown, one for the edges of instances
    labels: str = ""  # whose classes they are: "face-mesh" are those of limn.faces.drawn; "" are numbers
    width: int = 64  # channels before the last convolution (half as many with 7 doublings), 16 times as many at the start
    ups: int = 5  # doublings: 5 "normal", 6 "more", 7 "most"
    size: int = 256  # pixels across of the training pictures
    aspect: float = 1.0  # width over height of those
    template: str = ""  # their alignment, where they are faces
    norm: Literal["batch", "instance"] = "batch"  # that the scales and shifts follow
    kernel: int = 3  # of the convolutions that read the label map
    spectral: bool = True
    z_dim: int = 0  # components of a style; 0: none, and no encoder
    encoder_width: int = 64
    encoder_size: int = 256  # pixels at which the encoder sees a picture, whatever its size
    judge_width: int = 64
    judge_layers: int = 4  # convolutions of each discriminator before the last one
    judge_norm: Norm = "instance"
    scales: int = 2  # discriminators: of the picture, of its half, ...

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the first map of a training picture."""
        across = self.size // 2**self.ups
        return max(1, round(across / self.aspect)), across

    @property
    def patch(self) -> Patch:
        """Shape of one discriminator."""
        widths = tuple(min(self.judge_width << layer, 512) for layer in range(self.judge_layers))
        return Patch(self.classes + 3, widths, self.judge_norm, self.judge_norm == "none", 2, True)


class Spade(nn.Module):
    """Normalises x (N, channels, H, W), then scales and shifts every pixel by what a label map says there (eq. 1)."""

    def __init__(self, channels: int, classes: int, kind: Norm = "batch", kernel: int = 3) -> None:
        super().__init__()
        free = nn.BatchNorm2d(channels, affine=False) if kind == "batch" else nn.InstanceNorm2d(channels)
        self.param_free_norm, pad = free, kernel // 2
        self.mlp_shared = nn.Sequential(nn.Conv2d(classes, EMBEDDING, kernel, padding=pad), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(EMBEDDING, channels, kernel, padding=pad)
        self.mlp_beta = nn.Conv2d(EMBEDDING, channels, kernel, padding=pad)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        embedded = self.mlp_shared(F.interpolate(labels, size=x.shape[2:], mode="nearest"))
        return self.param_free_norm(x) * (1 + self.mlp_gamma(embedded)) + self.mlp_beta(embedded)


class Block(nn.Module):
    """A residual block whose norms read the label map; the identity is learned where the number of channels changes (figure 4)."""

    def __init__(self, config: Config, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)

        def conv(few: int, many: int, size: int = 3) -> nn.Module:
            layer = nn.Conv2d(few, many, size, padding=size // 2, bias=size > 1)
            return spectral_norm(layer) if config.spectral else layer

        def steered(channels: int) -> Spade:
            return Spade(channels, config.classes, config.norm, config.kernel)

        self.learned = inputs != outputs
        self.conv_0, self.conv_1 = conv(inputs, middle), conv(middle, outputs)
        self.norm_0, self.norm_1 = steered(inputs), steered(middle)
        if self.learned:
            self.conv_s, self.norm_s = conv(inputs, outputs, 1), steered(inputs)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        y = self.conv_0(F.leaky_relu(self.norm_0(x, labels), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, labels), 0.2))
        return y + (self.conv_s(self.norm_s(x, labels)) if self.learned else x)


class Generator(nn.Module):
    """Label maps (N, classes, H, W) of zeros and ones, and styles (N, z_dim) if any -> images (N, 3, h, w) in [-1, 1].

    Without styles the image is as large as the map, whose sides are divisible by `multiple`; with styles it is of the `fixed` size.
    """

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config, wide = config, 16 * config.width
        height, across = config.grid
        first = nn.Linear(config.z_dim, wide * height * across) if config.z_dim else nn.Conv2d(config.classes, wide, 3, padding=1)
        self.start: nn.Module = first
        widths = [wide, wide, wide, *(wide >> level for level in range(4 if config.ups < 7 else 5))]
        widths.append(widths[-1] // 2)
        self.blocks = nn.ModuleList(Block(config, few, many) for few, many in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], 3, 3, padding=1)

    @property
    def classes(self) -> int:
        """Channels of the label maps."""
        return self.config.classes

    @property
    def multiple(self) -> int:
        """What the sides of a label map must be divisible by."""
        return int(2**self.config.ups)

    @property
    def fixed(self) -> tuple[int, int] | None:
        """Height and width of every image that is made with a style; None where that of the label map counts."""
        height, across = self.config.grid
        return (height * self.multiple, across * self.multiple) if self.config.z_dim else None

    def forward(self, labels: Tensor, z: Tensor | None = None, grid: tuple[int, int] | None = None) -> Tensor:
        """Paint a label map; `grid` is the height and width of the first map, which doubles `ups` times."""
        if self.config.z_dim:
            z = labels.new_zeros(len(labels), self.config.z_dim) if z is None else z
            x = self.start(z).unflatten(1, (-1, *self.config.grid))
        else:
            grid = grid or (labels.shape[2] // self.multiple, labels.shape[3] // self.multiple)
            x = self.start(F.interpolate(labels, size=grid, mode="nearest"))
        doubled = {1, *range(3, len(self.blocks))} | ({2} if self.config.ups > 5 else set())  # blocks before which the map doubles
        for index, block in enumerate(self.blocks):
            x = F.interpolate(x, scale_factor=2, mode="nearest") if index in doubled else x
            x = block(x, labels)
        return self.head(F.leaky_relu(x, 0.2)).tanh()

    def translate(self, images: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Paint label maps (N, classes, H, W); a style is drawn from `rng`, or the mean of all styles without it."""
        if not self.config.z_dim or rng is None:
            return self(images)
        return self(images, torch.randn(len(images), self.config.z_dim, generator=rng, device=rng.device).to(images.device))


class Encoder(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] -> mean and log variance (N, z_dim) of their styles (figure 14)."""

    def __init__(self, config: Config = Config(z_dim=256)) -> None:
        super().__init__()
        self.config = config
        convs, norms, inputs = [], [], 3
        for layer in range(round(math.log2(config.encoder_size / 4))):
            width = config.encoder_width * min(2**layer, 8)
            conv = nn.Conv2d(inputs, width, 3, 2, 1, bias=False)
            convs.append(spectral_norm(conv) if config.spectral else conv)
            norms.append(norm("instance", width))
            inputs = width
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(norms)
        self.mean, self.log_variance = nn.Linear(inputs * 16, config.z_dim), nn.Linear(inputs * 16, config.z_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = F.interpolate(images, size=(self.config.encoder_size,) * 2, mode="bilinear", align_corners=False)
        for conv, layer in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(layer(conv(x)), 0.2)
        return self.mean(x.flatten(1)), self.log_variance(x.flatten(1))


def discriminator(config: Config) -> MultiScale:
    """Make the discriminators of label map and picture."""
    return MultiScale(config.patch, config.scales)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of styles from the normal distribution, summed over batch and components."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()


def perceptual(features: Any, images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute differences of a network's maps, each coarser one counting twice as much, the coarsest fully (pix2pixHD, eq. 7)."""
    with torch.no_grad():
        wanted = features.features(targets)
    found = features.features(images)
    parts = [F.l1_loss(x, y) / 2 ** (len(wanted) - 1 - index) for index, (x, y) in enumerate(zip(found, wanted, strict=True))]
    return torch.stack(parts).sum()


def started(network: nn.Module) -> nn.Module:
    """Draw first weights as the published trainer does: Xavier's normal distribution with a gain of 0.02, and no biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            normed: Any = getattr(module, "parametrizations", None)
            nn.init.xavier_normal_(module.weight if normed is None else normed.weight.original, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


@dataclass(frozen=True)
class Weights:
    """Factors of the terms beside the adversarial one; the defaults are the paper's."""

    matching: float = 10.0  # of the discriminators' features
    perceptual: float = 10.0  # of `features`, where they are given
    divergence: float = 0.05  # of the styles


class Objective:
    """Trains generator (and encoder) and discriminators on pictures with label maps: `image` and `mask` (N, H, W) of class numbers."""

    def __init__(self, config: Config, *, features: Any, game: str, weights: Weights, adam: tuple[Adam, Adam], seed: int) -> None:
        makers = {"generator": Generator, "discriminator": discriminator} | ({"encoder": Encoder} if config.z_dim else {})
        with drawing(seed):
            self.networks = nn.ModuleDict({name: started(make(config)) for name, make in makers.items()})  # type: ignore[operator]
        self.averaged = tuple(name for name in self.networks if name != "discriminator")
        self.config, self.features, self.game, self.weights, self.adam = config, features, GAMES[game], weights, adam
        self.shown: tuple[Tensor, Tensor] | None = None  # pictures and label maps of the last batch, for the samples

    def one_hot(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the label maps as (N, classes, H, W) of zeros and ones."""
        largest = int(batch["mask"].max())
        if largest >= self.config.classes:
            raise TrainingError(f"a label map has the class {largest}: the configuration has {self.config.classes}, numbered from 0")
        return F.one_hot(batch["mask"], self.config.classes).movedim(-1, 1).float()

    def painted(self, images: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Losses]:
        """Paint label maps, in the styles of their pictures where there is an encoder, whose loss is given too."""
        if not self.config.z_dim:
            return self.networks["generator"](labels), {}
        mean, log_variance = self.networks["encoder"](images)
        noise = torch.randn(mean.shape, generator=rng, device=rng.device).to(mean.device)
        z = mean + noise * (0.5 * log_variance).exp()
        return self.networks["generator"](labels, z), {"divergence": self.weights.divergence * divergence(mean, log_variance)}

    def judged(self, labels: Tensor, fake: Tensor, real: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Return what the discriminators make of fake and real, which go through them in one batch."""
        both = self.networks["discriminator"](torch.cat([torch.cat([labels, fake], 1), torch.cat([labels, real], 1)]))
        halves = [[features.chunk(2) for features in scale] for scale in both]
        return [[pair[0] for pair in scale] for scale in halves], [[pair[1] for pair in scale] for scale in halves]

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Convince at all scales, have the features of the picture (section 3), and a style that can be drawn."""
        labels, image = self.one_hot(batch), batch["image"]
        self.shown = image[:8].detach(), labels[:8]
        painted, losses = self.painted(image, labels, rng)
        fake, real = self.judged(labels, painted, image)
        losses["gan"] = over_scales(self.game, fake, True, True)
        losses["matching"] = self.weights.matching * feature_matching(fake, real)
        if self.features is not None and self.weights.perceptual:
            losses["perceptual"] = self.weights.perceptual * perceptual(self.features, painted, image)
        return losses

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Tell painted from real at all scales; both count fully."""
        labels, image = self.one_hot(batch), batch["image"]
        with torch.no_grad():
            painted, _ = self.painted(image, labels, rng)
        fake, real = self.judged(labels, painted, image)
        return {"fake": over_scales(self.game, fake, False), "real": over_scales(self.game, real, True)}

    def phases(self) -> list[Phase]:
        """Return the two players; the generator learns at half the published rate, the discriminator at twice it (section 3)."""
        makers = [name for name in self.networks if name != "discriminator"]

        def parameters() -> list[nn.Parameter]:
            return [parameter for name in makers for parameter in self.networks[name].parameters()]

        return [
            Phase("generator", parameters, self.generator_loss, self.adam[0]),
            Phase("discriminator", self.networks["discriminator"].parameters, self.discriminator_loss, self.adam[1]),
        ]

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Return pictures of the last batch above what is painted from their label maps."""
        if self.shown is None:
            return torch.zeros(1, 3, self.config.size, self.config.size)
        image, labels = self.shown
        style = networks["encoder"](image)[0] if self.config.z_dim else None
        return torch.cat([image, networks["generator"](labels, style)])


def objective(
    config: Config,
    seed: int = 0,
    *,
    features: Any = None,
    game: str = "hinge",
    weights: Weights = Weights(),
    adam: tuple[Adam, Adam] = (Adam(1e-4, (0.0, 0.9)), Adam(4e-4, (0.0, 0.9))),
) -> Objective:
    """Make the objective; `features` is a frozen network with `features(images)`, `adam` are those of generator and discriminator."""
    return Objective(config, features=features, game=game, weights=weights, adam=adam, seed=seed)


def plain_names(state: State) -> dict[str, Tensor]:
    """Give spectral norms the names that torch has now; files from before torch 1.1 lack weight_v, which follows from the weight."""
    found = {}
    for name, tensor in state.items():
        base, _, last = name.rpartition(".")
        if last == "weight" and f"{name}_orig" in state:
            continue  # what follows from the others
        ours = {"weight_orig": "weight.original", "weight_u": "weight.0._u", "weight_v": "weight.0._v"}.get(last)
        found[f"{base}.parametrizations.{ours}" if ours else name] = tensor
        if last == "weight_u" and f"{base}.weight_v" not in state:
            found[f"{base}.parametrizations.weight.0._v"] = second_vector(state, base)
    return found


def second_vector(state: State, base: str) -> Tensor:
    """Find the v that makes u W v the number by which the file's own weight was divided, W v being along u."""
    matrix, u = state[f"{base}.weight_orig"].flatten(1), state[f"{base}.weight_u"]
    v = torch.linalg.pinv(matrix) @ u
    if f"{base}.weight" not in state:
        return F.normalize(matrix.T @ u, dim=0)
    largest = state[f"{base}.weight"].abs().argmax()
    sigma = state[f"{base}.weight_orig"].flatten()[largest] / state[f"{base}.weight"].flatten()[largest]
    return v * (sigma / (u @ matrix @ v))


def is_generator(state: State) -> bool:
    """Tell a generator whose entrance is one of the two of SPADE: from a label map, or from a style."""
    fc, shared = state.get("fc.weight"), state.get("head_0.norm_0.mlp_shared.0.weight")
    if fc is None or shared is None or "G_middle_1.norm_1.mlp_beta.weight" not in state or shared.shape[0] != EMBEDDING:
        return False
    entrance = fc.ndim == 2 or fc.shape[1] == shared.shape[1]
    tops = {name.split(".")[0] for name in state}
    return entrance and tops <= {"fc", "head_0", "G_middle_0", "G_middle_1", "conv_img", *(f"up_{n}" for n in range(5))}


def generator_of(state: State) -> Config:
    """Infer the configuration of a generator; shapes do not tell 5 doublings from 6, nor, without styles, a size."""
    fc, shared = state["fc.weight"], state["head_0.norm_0.mlp_shared.0.weight"]
    wide = state["head_0.norm_0.mlp_gamma.weight"].shape[0]
    ups, styled = 7 if "up_4.conv_0.bias" in state else 5, fc.ndim == 2
    cells = fc.shape[0] // wide if styled else 64
    across = math.isqrt(cells) if math.isqrt(cells) ** 2 == cells else math.isqrt(2 * cells)
    return Config(
        classes=shared.shape[1],
        width=wide // 16,
        ups=ups,
        size=across << ups,
        aspect=across * across / cells,
        norm="batch" if "head_0.norm_0.param_free_norm.running_mean" in state else "instance",
        kernel=shared.shape[-1],
        spectral="head_0.conv_0.weight_orig" in state,
        z_dim=fc.shape[1] if styled else 0,
    )


def encoder_of(state: State) -> Config:
    """Infer the configuration of an encoder."""
    layers = sum(bool(re.fullmatch(r"layer\d\.0\.weight(_orig)?", name)) for name in state)
    first = state.get("layer1.0.weight_orig", state.get("layer1.0.weight"))
    assert first is not None, "the row that calls this has recognised it"
    spectral = "layer1.0.weight_orig" in state
    return Config(z_dim=state["fc_mu.weight"].shape[0], encoder_width=first.shape[0], encoder_size=4 << layers, spectral=spectral)


def discriminator_of(state: State) -> Config:
    """Infer the configuration of the discriminators."""
    first = state["discriminator_0.model0.0.weight"]
    scales = len({name.split(".")[0] for name in state})
    layers = len({name.split(".")[1] for name in state if name.startswith("discriminator_0.")}) - 1
    kind: Norm = "none" if "discriminator_0.model1.0.weight_orig" in state else "instance"
    kind = "batch" if "discriminator_0.model1.0.1.running_mean" in state else kind
    return Config(first.shape[1] - 3, judge_width=first.shape[0], judge_layers=layers, judge_norm=kind, scales=scales)


def is_discriminator(state: State) -> bool:
    """Tell the names of patch discriminators whose middle convolutions are normalised by their spectrum."""
    names = ("discriminator_0.model0.0.weight", "discriminator_0.model1.0.0.weight_orig", "discriminator_0.model1.0.weight_orig")
    return names[0] in state and (names[1] in state or names[2] in state)


NETWORKS = {"generator": Generator, "discriminator": discriminator, "encoder": Encoder}

GENERATOR = [
    (r"fc\.(\w+)", r"start.\1"),
    (r"head_0\.(.*)", r"blocks.0.\1"),
    (r"G_middle_0\.(.*)", r"blocks.1.\1"),
    (r"G_middle_1\.(.*)", r"blocks.2.\1"),
    *((rf"up_{index}\.(.*)", rf"blocks.{3 + index}.\1") for index in range(5)),
    (r"conv_img\.(\w+)", r"head.\1"),
]
DISCRIMINATOR = [
    (r"discriminator_(\d)\.model(\d)\.0\.0\.(.*)", r"scales.\1.convs.\2.\3"),
    (r"discriminator_(\d)\.model(\d)\.0\.1\.(.*)", r"scales.\1.norms.\2.\3"),
    (r"discriminator_(\d)\.model(\d)\.0\.(.*)", r"scales.\1.convs.\2.\3"),
]
ENCODER = [
    *((rf"layer{layer + 1}\.0\.(.*)", rf"convs.{layer}.\1") for layer in range(9)),
    (r"fc_mu\.(\w+)", r"mean.\1"),
    (r"fc_var\.(\w+)", r"log_variance.\1"),
]

PUBLISHED = [
    Published("generator", "nvlabs", is_generator, generator_of, Generator, GENERATOR, plain_names),
    Published("discriminator", "nvlabs", is_discriminator, discriminator_of, discriminator, DISCRIMINATOR, plain_names),
    Published(
        "encoder",
        "nvlabs",
        lambda state: "fc_mu.weight" in state and "layer6.0.weight_orig" in state and {n[:5] for n in state} == {"layer", "fc_mu", "fc_va"},
        encoder_of,
        Encoder,
        ENCODER,
        plain_names,
    ),
]

PRESETS = {
    "cityscapes": Preset(
        Config(classes=36, size=512, aspect=2.0), data="masks", batch=32, steps=9300, decay="half", reading={"classes": 36}
    ),
    "portraits64": Preset(
        Config(9, "face-mesh", 8, size=64, template="ffhq", z_dim=64, encoder_width=16, encoder_size=64, judge_width=24, judge_layers=3),
        data="drawn",
        batch=8,
        steps=1500,
        objective={"features": "limn-identity", "adam": (Adam(2e-4, (0.0, 0.9)), Adam(4e-4, (0.0, 0.9)))},
        ema_kimg=1.0,
        decay="half",
        reaches="drawn styles: Fréchet distance 3.4 in limn-identity's features (81 untrained), 9.5 between thumbnails (30), sliced "
        "Wasserstein distance 55 (223); blurred, one eye often lost; 136 people held out, 12 minutes on a share of one CPU core",
    ),
}

CARD = Card(
    name="spade",
    title="SPADE (GauGAN)",
    chapter="translation",
    year=2019,
    arxiv="1903.07291",
    verbs=("translate", "train"),
    weights_licence="CC BY-NC-SA 4.0 (non-commercial)",
    source="NVlabs/SPADE",
)

"""StyleGAN2: a mapping network turns noise into a style, and the style scales every convolution of the synthesis network.

Modulating weights and demodulating them again replaces the normalisation that left droplets in StyleGAN; skip connections
replace progressive growing. ADA augments what the discriminator sees, so that a few thousand pictures suffice.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila: Analyzing and Improving the Image Quality of StyleGAN. CVPR 2020, arXiv 1912.04958.
Karras, Aittala, Hellsten, Laine, Lehtinen, Aila: Training GANs with Limited Data. NeurIPS 2020, arXiv 2006.06676.
Differs: an up-sampling step may be preceded by training at a lower resolution (presets `portraits32`, `portraits64`).
Reproduced: benchmarks/generator.py on the model in the box.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from limn.blocks.augment import PRESETS as PIPES
from limn.blocks.augment import Augment, AugmentConfig
from limn.blocks.deviation import minibatch_std
from limn.blocks.equalized import EqualConv, EqualLinear, activate
from limn.blocks.fir import BINOMIAL, downsample, kernel, upsample
from limn.blocks.modulated import folded_layer, modulated_conv
from limn.losses.adversarial import logistic, path_lengths, r1
from limn.models.generation import stylegan2_layouts as layouts
from limn.models.generation import stylegan2_settings as settings
from limn.models.generation.stylegan2_growth import silence
from limn.models.generation.stylegan2_settings import resolutions, widths
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, seeded

Noise = Literal["const", "random", "none"]
Architecture = Literal["skip", "resnet", "orig"]


@dataclass(frozen=True)
class Config:
    size: int = 1024  # pixels, a power of two
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0  # length of the label; 0: unconditional
    image_channels: int = 3
    mapping_layers: int = 8
    mapping_width: int = 0  # of the hidden mapping layers; 0: w_dim
    embed_dim: int = 0  # of the embedded label; 0: w_dim
    channels: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64, 32)  # of the resolutions 4, 8, ..., size
    architecture: Architecture = "skip"
    noise: bool = True  # per-pixel noise inputs
    clamp: float | None = None  # activations are clamped to this (256 where the model was trained in half precision)
    taps: tuple[float, ...] = BINOMIAL  # of the resampling filter
    discriminator: Architecture = "resnet"
    discriminator_channels: tuple[int, ...] = ()  # empty: like the generator's
    label_dim: int = 0  # width of the discriminator's mapped label; 0: as wide as its last layer
    label_layers: int = 8  # mapping layers of the discriminator's label
    group: int = 4  # of the minibatch standard deviation
    std_channels: int = 1


# ---------------------------------------------------------------------------------------------------------------- mapping


def normalise(x: Tensor) -> Tensor:
    """Scale each row to unit mean square."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Mapping(nn.Module):
    """z (N, z_dim) and label (N, c_dim) -> w (N, w_dim). `repeat` copies of it make W+; 0 leaves it as it is."""

    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, repeat: int, layers: int, width: int = 0, embed: int = 0) -> None:
        super().__init__()
        self.repeat, self.layers, embed = repeat, layers, embed or w_dim
        if c_dim:
            self.embed = EqualLinear(c_dim, embed)
        sizes = [z_dim + (embed if c_dim else 0), *[width or w_dim] * (layers - 1), w_dim]
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            self.add_module(f"fc{index}", EqualLinear(inputs, outputs, activation=True, rate=0.01))
        if repeat:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        """Return w repeated for every layer, (N, repeat, w_dim), or w itself where there is nothing to repeat for.

        Always in full precision: rounded styles would be another distribution than the one that inference draws from.
        """
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            w = self.style(z, label)
        return w[:, None].expand(-1, self.repeat, -1) if self.repeat else w

    def style(self, z: Tensor | None, label: Tensor | None) -> Tensor:
        """w (N, w_dim)."""
        parts = [] if z is None else [normalise(z.float())]
        if hasattr(self, "embed"):
            if label is None:
                raise ValueError("this model is conditional: a label (N, c_dim) is needed")
            parts.append(normalise(self.embed(label.float())))
        x = torch.cat(parts, 1)
        for index in range(self.layers):
            x = getattr(self, f"fc{index}")(x)
        return x

    def truncate(self, w_plus: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Move the first `cutoff` layers (all where None) of w_plus towards the average by 1 - psi (section 4.2 of StyleGAN)."""
        if psi == 1:
            return w_plus
        truncated = self.w_avg.lerp(w_plus, psi)
        return truncated if cutoff is None else torch.cat([truncated[:, :cutoff], w_plus[:, cutoff:]], 1)

    @torch.no_grad()
    def track(self, w_plus: Tensor, decay: float = 0.995) -> None:
        """Update the running average of w from a batch of training styles."""
        self.w_avg.copy_(w_plus[:, 0].detach().float().mean(0).lerp(self.w_avg, decay))


# -------------------------------------------------------------------------------------------------------------- synthesis


class Layer(nn.Module):
    """Modulated 3×3 convolution, noise, bias, activation; `style` (N, inputs) comes from `affine(w)`."""

    noise_const: Tensor
    taps: Tensor

    def __init__(self, config: Config, inputs: int, outputs: int, size: int, up: bool) -> None:
        super().__init__()
        self.affine = EqualLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("taps", kernel(config.taps), persistent=False)
        self.up, self.size, self.clamp, self.use_noise = up, size, config.clamp, config.noise
        if config.noise:
            self.register_buffer("noise_const", torch.randn(size, size))
            self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, style: Tensor, noise: Noise, rng: torch.Generator | None, gain: float = 1.0) -> Tensor:
        clamp, gain = None if self.clamp is None else self.clamp * gain, gain * math.sqrt(2)
        up = self.taps if self.up else None
        if alone(x):
            plane = self.plane(1, noise, rng) * (self.noise_strength * gain) if self.use_noise and noise != "none" else None
            x = folded_layer(x, self.weight, style, self.bias, plane, up, gain)
            return x if clamp is None else x.clamp_(-clamp, clamp)
        x = modulated_conv(x, self.weight, style, up=up, gain=gain, bias=self.bias * gain)
        if self.use_noise and noise != "none":
            x = x.add_((self.plane(len(x), noise, rng) * (self.noise_strength * gain)).to(x.dtype))
        return activate(x, clamp)

    def plane(self, count: int, noise: Noise, rng: torch.Generator | None) -> Tensor:
        if noise == "const":
            return self.noise_const
        device = self.noise_const.device if rng is None else rng.device
        return torch.randn(count, 1, self.size, self.size, generator=rng, device=device).to(self.noise_const.device)


def alone(x: Tensor) -> bool:
    """Whether x is one sample on a CPU that needs no gradient: then styles are folded into the weights."""
    return len(x) == 1 and x.device.type == "cpu" and not torch.is_grad_enabled()


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to the image, without demodulation. Its style is not yet divided by √inputs."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.affine = EqualLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(config.image_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.clamp = config.clamp

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale = 1 / math.sqrt(self.weight.shape[1])
        x = modulated_conv(x, self.weight, style * scale, demodulate=False, bias=self.bias)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class Block(nn.Module):
    """Everything at one resolution: one convolution at 4×4, two above it, and the step to the image."""

    taps: Tensor

    def __init__(self, config: Config, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.residual = config.architecture == "resnet" and inputs > 0
        self.register_buffer("taps", kernel(config.taps), persistent=False)
        if inputs:
            self.conv0 = Layer(config, inputs, outputs, size, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        self.conv1 = Layer(config, outputs, outputs, size, up=False)
        if config.architecture == "skip" or size == config.size:
            self.torgb = ToRGB(config, outputs)
        if self.residual:
            self.skip = EqualConv(inputs, outputs, 1, self.taps, up=True, bias=False, activation=False)

    def modulated(self) -> list[Layer | ToRGB]:
        """The layers that take a style, in order."""
        layers = [getattr(self, name, None) for name in ("conv0", "conv1", "torgb")]
        return [layer for layer in layers if layer is not None]

    def forward(
        self, x: Tensor, image: Tensor | None, styles: list[Tensor], noise: Noise, rng: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        gain = math.sqrt(0.5) if self.residual else 1.0
        if hasattr(self, "conv0"):
            shortcut = self.skip(x, gain) if self.residual else None
            x = self.conv1(self.conv0(x, styles[0], noise, rng), styles[1], noise, rng, gain)
            x = x if shortcut is None else shortcut + x
        else:
            x = self.conv1(x, styles[0], noise, rng)
        if image is not None:
            image = upsample(image, self.taps)
        if hasattr(self, "torgb"):
            paint = self.torgb(x, styles[-1]).float()
            image = paint if image is None else image + paint
        return x, image


class Synthesis(nn.Module):
    """w_plus (N, num_ws, w_dim) -> image (N, 3, size, size) about [-1, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        for inputs, outputs, size in zip((0, *config.channels), config.channels, resolutions(config.size), strict=False):
            self.add_module(f"b{size}", Block(config, inputs, outputs, size))

    @property
    def blocks(self) -> list[Block]:
        return [getattr(self, f"b{size}") for size in resolutions(self.config.size)]

    @property
    def num_ws(self) -> int:
        return 2 * len(self.config.channels)

    def forward(self, w_plus: Tensor, noise: Noise = "const", rng: torch.Generator | None = None) -> Tensor:
        return self.render(self.styles(w_plus), noise, rng)

    def styles(self, w_plus: Tensor) -> list[Tensor]:
        """The space S: the style (N, channels) of every modulated layer. A ToRGB shares its w with the layer that follows it."""
        styles, index = [], 0
        for block in self.blocks:
            layers = block.modulated()
            styles += [layer.affine(w_plus[:, index + step]) for step, layer in enumerate(layers)]
            index += sum(isinstance(layer, Layer) for layer in layers)
        return styles

    def render(
        self, styles: list[Tensor], noise: Noise = "const", rng: torch.Generator | None = None, features: dict[int, Tensor] | None = None
    ) -> Tensor:
        """Synthesise from the space S. `features`, if given, receives what leaves each resolution's block."""
        if len(styles[0]) > 1 and features is None and not self.training and alone(styles[0][:1]):
            # One sample at a time keeps the activations in the cache and lets every layer fold its style.
            return torch.cat([self.render([style[i : i + 1] for style in styles], noise, rng) for i in range(len(styles[0]))])
        queue, image = list(styles), None
        x = self.blocks[0].const.expand(len(styles[0]), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for block, size in zip(self.blocks, resolutions(self.config.size), strict=True):
            count = len(block.modulated())
            x, image = block(x, image, queue[:count], noise, rng)
            queue = queue[count:]
            if features is not None:
                features[size] = x
        assert image is not None, "the last block always paints"
        return image


class Generator(nn.Module):
    """z (N, z_dim) -> image (N, 3, size, size) in [-1, 1], through W+ (N, num_ws, w_dim)."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.synthesis = Synthesis(config)
        sizes = (config.mapping_layers, config.mapping_width, config.embed_dim)
        self.mapping = Mapping(config.z_dim, config.c_dim, config.w_dim, self.synthesis.num_ws, *sizes)

    @property
    def num_ws(self) -> int:
        return self.synthesis.num_ws

    @property
    def w_avg(self) -> Tensor:
        return self.mapping.w_avg

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "const",
        rng: torch.Generator | None = None,
    ) -> Tensor:
        return self.synthesis(self.mapping.truncate(self.mapping(z, label), truncation, cutoff), noise, rng)


# ---------------------------------------------------------------------------------------------------------- discriminator


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second of which halves the resolution; the input image enters where the architecture says."""

    def __init__(self, config: Config, inputs: int, outputs: int, first: bool) -> None:
        super().__init__()
        taps = kernel(config.taps)
        self.architecture = config.discriminator
        if first or self.architecture == "skip":
            self.fromrgb = EqualConv(config.image_channels, inputs, 1, taps, clamp=config.clamp)
        self.conv0 = EqualConv(inputs, inputs, 3, taps, clamp=config.clamp)
        self.conv1 = EqualConv(inputs, outputs, 3, taps, down=True, clamp=config.clamp)
        if self.architecture == "resnet":
            self.skip = EqualConv(inputs, outputs, 1, taps, down=True, bias=False, activation=False)

    def forward(self, x: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor]:
        if hasattr(self, "fromrgb"):
            painted = self.fromrgb(image)
            x = painted if x is None else x + painted
            image = downsample(image, self.conv0.taps) if self.architecture == "skip" else image
        assert x is not None, "the first block reads the image"
        if self.architecture == "resnet":
            return self.skip(x, math.sqrt(0.5)) + self.conv1(self.conv0(x), math.sqrt(0.5)), image
        return self.conv1(self.conv0(x)), image


class Epilogue(nn.Module):
    """What ends the discriminator at 4×4: minibatch deviation, a convolution, two linear layers."""

    def __init__(self, config: Config, inputs: int, label_dim: int) -> None:
        super().__init__()
        taps = kernel(config.taps)
        self.group, self.std_channels = config.group, config.std_channels
        if config.discriminator == "skip":
            self.fromrgb = EqualConv(config.image_channels, inputs, 1, taps, clamp=config.clamp)
        self.conv = EqualConv(inputs + config.std_channels, inputs, 3, taps, clamp=config.clamp)
        self.fc = EqualLinear(inputs * 16, inputs, activation=True)
        self.out = EqualLinear(inputs, label_dim or 1)

    def forward(self, x: Tensor, image: Tensor, sets: int = 1) -> Tensor:
        if hasattr(self, "fromrgb"):
            x = x + self.fromrgb(image)
        if self.std_channels:
            x = minibatch_std(x, self.group, self.std_channels, sets)
        return self.out(self.fc(self.conv(x).flatten(1)))


class Discriminator(nn.Module):
    """image (N, 3, size, size) and label -> logits (N, 1), by projection where there is a label."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        channels = config.discriminator_channels or config.channels
        self.sizes = resolutions(config.size)[:0:-1]
        for index, size in enumerate(self.sizes):
            inputs, outputs = channels[len(channels) - 1 - index], channels[len(channels) - 2 - index]
            self.add_module(f"b{size}", DiscriminatorBlock(config, inputs, outputs, first=index == 0))
        self.label_dim = (config.label_dim or channels[0]) if config.c_dim else 0
        if config.c_dim:
            sizes = (config.label_layers, config.mapping_width, config.embed_dim)
            self.mapping = Mapping(0, config.c_dim, self.label_dim, 0, *sizes)
        self.b4 = Epilogue(config, channels[0], self.label_dim)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the 4×4 epilogue, and the image at that size where the architecture reads it."""
        x = None
        for size in self.sizes:
            x, image = getattr(self, f"b{size}")(x, image)
        assert x is not None, "a discriminator has at least one block"
        return x, image

    def forward(self, image: Tensor, label: Tensor | None = None, sets: int = 1) -> Tensor:
        """Logits of `sets` batches of one size, stacked: those of each batch alone."""
        logits = self.b4(*self.features(image), sets)
        if self.label_dim:
            logits = (logits * self.mapping(None, label)).sum(1, keepdim=True) / math.sqrt(self.label_dim)
        return logits


# -------------------------------------------------------------------------------------------------------------- objective


class Objective:
    """Logistic losses with lazy R1 and path-length regularisation, style mixing, and adaptive augmentation."""

    averaged = ("generator",)

    def __init__(
        self,
        config: Config,
        adam: Adam = Adam(2.5e-3, (0.0, 0.99)),
        gamma: float = 1.0,  # R1 weight; `auto`: 0.0002 size² / batch
        path_weight: float = 2.0,  # 0 leaves the path-length phase out
        mixing: float = 0.9,  # probability that two styles are mixed
        augment: str = "bgc",  # "" for none
        target: float = 0.6,  # of the sign of the real logits, above which augmentation grows
        ramp_kimg: float = 500.0,  # thousand images in which the probability may go from 0 to 1
        initial: float = 0.0,  # probability of augmentation at the start
        freeze: int = 0,  # first blocks of the discriminator that do not learn (FreezeD, arXiv 2002.10964)
        alone: int = 0,  # steps in which a new discriminator learns alone, beside a generator that has learnt already
        seed: int = 0,
    ) -> None:
        self.adam, self.gamma, self.path_weight, self.mixing, self.freeze, self.alone = adam, gamma, path_weight, mixing, freeze, alone
        self.target, self.ramp = target, ramp_kimg * 1000
        self.generator, self.discriminator = Generator(config), Discriminator(config)
        self.augment = Augment(PIPES[augment] if augment else AugmentConfig(), initial)
        self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator, "augment": self.augment})
        self.path_mean, self.signs = torch.zeros(()), torch.zeros(2)
        self.fixed = torch.randn(16, config.z_dim, generator=seeded(seed))

    def phases(self) -> list[Phase]:
        """Discriminator, R1 every 16, generator, path length every 4 (StyleGAN2, appendix B)."""
        d, g = self.judging, self.generator.parameters
        of_d, of_g = lazy(self.adam, 16), lazy(self.adam, 4 if self.path_weight else 0)
        phases = [
            Phase("discriminator", d, self.discriminator_loss, of_d),
            Phase("r1", d, self.r1_loss, of_d, every=16, shares="discriminator"),
            Phase("generator", g, self.generator_loss, of_g, begin=self.alone),
        ]
        if self.path_weight:
            phases.append(Phase("path", g, self.path_loss, of_g, every=4, shares="generator", begin=self.alone))
        return phases

    def judging(self) -> list[nn.Parameter]:
        """The discriminator's parameters that learn."""
        frozen = tuple(f"b{size}." for size in self.discriminator.sizes[: self.freeze])
        return [parameter for name, parameter in self.discriminator.named_parameters() if not (frozen and name.startswith(frozen))]

    def styles(self, count: int, label: Tensor | None, rng: torch.Generator, mixing: float) -> Tensor:
        """Draw w_plus for a batch; with probability `mixing` its later layers come from a second draw."""
        config, mapping = self.generator.config, self.generator.mapping
        device = mapping.w_avg.device
        z = torch.randn(2, count, config.z_dim, generator=rng, device=rng.device).to(device)
        w_plus = mapping(z[0], label)
        mapping.track(w_plus)
        mixed, at = torch.rand(2, generator=rng, device=rng.device).tolist()
        if mixed >= mixing:
            return w_plus
        cut = 1 + int(at * (self.generator.num_ws - 1))
        return torch.cat([w_plus[:, :cut], mapping(z[1], label)[:, cut:]], 1)

    def judge(self, images: Tensor, label: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.discriminator(self.augment(images, rng), label).float()

    def generator_loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        label = batch.get("label")
        fake = self.generator.synthesis(self.styles(len(batch["image"]), label, rng, self.mixing), "random", rng)
        return {"adversarial": logistic(self.judge(fake, label, rng), real=True).mean()}

    def path_loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        """Equation 4: the length of the Jacobian along a random image direction should be its running mean."""
        label = batch.get("label")
        count = max(len(batch["image"]) // 2, 1)
        w_plus = self.styles(count, None if label is None else label[:count], rng, self.mixing)
        images = self.generator.synthesis(w_plus, "random", rng)
        direction = torch.randn(images.shape, generator=rng, device=rng.device).to(images.device)
        return {"path": self.path_weight * self.path_penalty(path_lengths(images, w_plus, direction)).mean()}

    def path_penalty(self, lengths: Tensor, decay: float = 0.01) -> Tensor:
        mean = self.path_mean.to(lengths.device).lerp(lengths.float().mean(), decay)
        self.path_mean = mean.detach()
        return (lengths - mean).square()

    def discriminator_loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        images, label = batch["image"], batch.get("label")
        with torch.no_grad():
            fake = self.generator.synthesis(self.styles(len(images), label, rng, self.mixing), "random", rng)
        both = torch.cat([self.augment(fake, rng), self.augment(images, rng)]).contiguous(memory_format=torch.channels_last)
        labels = None if label is None else torch.cat([label, label])
        on_fake, on_real = self.discriminator(both, labels, sets=2).float().chunk(2)  # in one pass: weights are prepared once
        self.signs += torch.stack([on_real.detach().sign().sum(), on_real.new_tensor(float(len(on_real)))]).cpu()
        return {"fake": logistic(on_fake, real=False).mean(), "real": logistic(on_real, real=True).mean()}

    def r1_loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:
        images = batch["image"].detach().requires_grad_()
        return {"r1": r1(self.judge(images, batch.get("label"), rng), images).mean() * (self.gamma / 2)}

    def after_step(self, step: int, images: int) -> dict[str, float]:
        """Every fourth step, move the probability of augmentation towards the target overfitting (ADA, section 3.1)."""
        p = self.augment.p
        if step % 4 == 0 and self.signs[1] > 0:
            self.overfit = float(self.signs[0] / self.signs[1])
            p.copy_((p + math.copysign(4 * images / self.ramp, self.overfit - self.target)).clamp(0, 1))
            self.signs.zero_()
        return {"augment": float(p), "overfit": getattr(self, "overfit", 0.0)}

    def statistics(self) -> list[Tensor]:
        """What several processes average after every step."""
        return [self.path_mean, self.signs]

    def state_dict(self) -> dict[str, Tensor]:
        return {"path_mean": self.path_mean, "signs": self.signs}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.path_mean, self.signs = state["path_mean"].clone(), state["signs"].clone()

    def grow(self, smaller: State) -> None:
        """Make the outermost blocks do nothing at first where `smaller` holds networks of half the size."""
        if f"discriminator.b{self.generator.config.size // 2}.fromrgb.weight" in smaller:
            silence(self.generator, self.discriminator, smaller)

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Sixteen images of fixed latents at truncation 0.7."""
        generator = cast(Generator, networks["generator"])
        label = torch.eye(generator.config.c_dim)[torch.arange(16) % generator.config.c_dim] if generator.config.c_dim else None
        return generator(self.fixed.to(generator.w_avg.device), label, truncation=0.7)


def lazy(adam: Adam, every: int) -> Adam:
    """Adam for a player that is also regularised once in `every` steps (StyleGAN2, appendix B); 0: not regularised."""
    ratio = every / (every + 1) if every else 1.0
    return replace(adam, lr=adam.lr * ratio, betas=(adam.betas[0] ** ratio, adam.betas[1] ** ratio))


def objective(config: Config, **options: object) -> Objective:
    return Objective(config, **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ published weights


def complete(state: State) -> State:
    """Add what rosinality's files may lack: the average style (here the mean of 4096 draws) and the noise planes."""
    added, config = dict(state), Config(**layouts.rosinality_generator(state))
    if "latent_avg" not in state:
        mapping = Mapping(config.z_dim, 0, config.w_dim, 1, config.mapping_layers)
        own = {f"fc{n}.{part}": state[f"style.{n + 1}.{part}"].float() for n in range(config.mapping_layers) for part in ("weight", "bias")}
        mapping.load_state_dict(own | {"w_avg": torch.zeros(config.w_dim)})
        added["latent_avg"] = mapping(torch.randn(4096, config.z_dim, generator=seeded(0)))[:, 0].mean(0).detach()
    added["latent_avg"] = added["latent_avg"].reshape(-1, config.w_dim)[0]
    for index, size in enumerate([4] + [size for size in resolutions(config.size)[1:] for _ in (0, 1)]):
        added.setdefault(f"noises.noise_{index}", torch.randn(size, size, generator=seeded(index)))
    return added


def of(fields: Callable[[State], layouts.Fields]) -> Callable[[State], Config]:
    return lambda state: Config(**fields(state))


PUBLISHED = [
    Published("generator", "nvidia", layouts.NVIDIA_G, of(layouts.nvidia_generator), Generator, layouts.NVIDIA),
    Published("discriminator", "nvidia", layouts.NVIDIA_D, of(layouts.nvidia_discriminator), Discriminator, layouts.NVIDIA),
    Published("generator", "rosinality", layouts.ROSINALITY_G, of(layouts.rosinality_generator), Generator, layouts.ROSINALITY, complete),
    Published("discriminator", "rosinality", layouts.ROSINALITY_D, of(layouts.rosinality_discriminator), Discriminator, layouts.blocks_of),
]

NETWORKS = {"generator": Generator, "discriminator": Discriminator}


def preset(row: settings.Setting) -> Preset:
    """A row of the published table as a recipe: z and w of 512, activations clamped at 256 for half precision."""
    config = Config(row.size, mapping_layers=row.mapping, channels=widths(row.size, row.base), clamp=256.0, group=row.group)
    config = replace(config, discriminator=cast(Architecture, row.discriminator))
    options = {"adam": Adam(row.rate, (0.0, 0.99)), "gamma": row.gamma, "path_weight": row.path_weight, "mixing": row.mixing}
    return Preset(config, "images", row.batch, row.kimg * 1000 // row.batch, options | {"augment": row.augment}, row.ema_kimg, row.ramp)


def auto(size: int, batch: int = 0, devices: int = 1) -> Preset:
    """The recipe for pictures of any size: see `settings.auto`."""
    return preset(settings.auto(size, batch, devices))


PORTRAITS = Config(size=64, z_dim=256, w_dim=256, mapping_layers=4, channels=(256, 256, 160, 96, 48))
PRESETS = {
    "auto": auto(256),
    **{name: preset(row) for name, row in settings.TABLE.items()},
    "portraits32": Preset(
        replace(PORTRAITS, size=32, channels=PORTRAITS.channels[:4]),
        "images",
        32,
        5_000,
        {"gamma": 0.1, "path_weight": 0.0, "ramp_kimg": 200.0},
        ema_kimg=5,
    ),
    "portraits64": Preset(PORTRAITS, "images", 32, 10_000, {"gamma": 0.2, "path_weight": 0.0, "ramp_kimg": 200.0}, ema_kimg=5),
}

CARD = Card(
    name="stylegan2",
    title="StyleGAN2, StyleGAN2-ADA",
    chapter="generation",
    year=2020,
    arxiv="1912.04958",
    verbs=("generate", "invert", "edit", "blend", "train"),
    weights_licence="NVIDIA Source Code License (non-commercial)",
    source="NVlabs/stylegan2-ada-pytorch",
)

"""e4e: an encoder whose codes can be edited, because they stay close to what the mapping network makes.

The pyramid of pSp predicts one code and, for each further layer, a small offset from it; offsets are let in one after the other,
kept short, and a discriminator on codes asks of each layer's code that it look like one of the generator's own.
Tov et al.: Designing an Encoder for StyleGAN Image Manipulation. SIGGRAPH 2021, arXiv 2102.02766.
Differs: Adam in place of Ranger; training starts from the average code, without offsets; batches may carry samples of the generator
with their known codes, which supervise the encoder directly and make it converge in minutes. Reproduced: the published encoder, codes
and images within 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limn.errors import TrainingError
from limn.losses.adversarial import logistic
from limn.models.inversion import psp
from limn.models.inversion.psp import Features, Identity
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, seeded


@dataclass(frozen=True)
class Config(psp.Config):
    depth: int = 4  # linear layers of the latent discriminator
    hidden: int = 512  # width of the latent discriminator


class Encoder(psp.Encoder):
    """Images (N, 3, size, size) in [-1, 1] -> W+ codes (N, num_ws, w_dim); `stage` offsets are in use, all of them by default."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__(config)
        self.stage = config.num_ws - 1

    def codes(self, images: Tensor) -> Tensor:
        """Return the codes as offsets from the average (section 4.2): layer i gets w + offset i, where i <= `stage`."""
        maps = self.pyramid(images)
        w = self.styles[0](maps[0])
        offsets = [self.styles[index](maps[self.level(index)]) for index in range(1, self.stage + 1)]
        rest = [torch.zeros_like(w)] * (self.config.num_ws - len(offsets))
        return w.unsqueeze(1) + torch.stack([rest[0], *offsets, *rest[1:]], 1)


class LatentDiscriminator(nn.Module):
    """Codes (N, w_dim) -> logits (N, 1): does the mapping network make such codes?"""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        inputs = config.w_dim
        for _ in range(config.depth - 1):
            layers += [nn.Linear(inputs, config.hidden), nn.LeakyReLU(0.2)]
            inputs = config.hidden
        self.mlp = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.mlp(w)


class Draws(Protocol):
    """What a pool asks of its source of chance; random.Random offers it."""

    def randint(self, a: int, b: int) -> int: ...
    def uniform(self, a: float, b: float) -> float: ...


class TorchDraws:
    """Draws from a torch generator of the caller's."""

    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng

    def randint(self, a: int, b: int) -> int:
        """Draw a whole number from a to b, both included."""
        return int(torch.randint(a, b + 1, (), generator=self.rng, device=self.rng.device))

    def uniform(self, a: float, b: float) -> float:
        """Draw a number between a and b."""
        return a + (b - a) * float(torch.rand((), generator=self.rng, device=self.rng.device))


class LatentPool:
    """Remembers codes of earlier batches, so that the discriminator does not forget them; one code per image, of a drawn layer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.codes: list[Tensor] = []

    def query(self, codes: Tensor, draws: Draws) -> Tensor:
        """Exchange codes (N, num_ws, w_dim) or (N, w_dim) for as many codes (N, w_dim), new ones or, half of the time, old ones."""
        return torch.stack([self.exchange(code, draws) for code in codes])

    def exchange(self, code: Tensor, draws: Draws) -> Tensor:
        """Take one code in and give one back."""
        if code.ndim == 2:
            code = code[draws.randint(0, len(code) - 1)]
        if len(self.codes) < self.size:
            self.codes.append(code)
            return code
        if draws.uniform(0, 1) <= 0.5:
            return code
        index = draws.randint(0, self.size - 1)
        old, self.codes[index] = self.codes[index], code
        return old


def offset_norm(codes: Tensor, stage: int) -> Tensor:
    """Sum over the offsets in use of their 2-norm, averaged over the batch (eq. 4)."""
    offsets = codes[:, 1 : stage + 1] - codes[:, :1]
    return torch.linalg.vector_norm(offsets.float(), dim=2).sum(1).mean()


def r1(discriminator: nn.Module, w: Tensor) -> Tensor:
    """Squared gradient of the logits at the generator's own codes (N, w_dim), averaged over the batch (eq. 5, without gamma/2)."""
    w = w.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(w).sum(), w, create_graph=True)
    return gradient.square().sum(1).mean()


@dataclass(frozen=True)
class Weights:
    """Factors of the terms (section 4.3 and appendix); the defaults are those of the face encoder."""

    l2: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1
    offsets: float = 2e-4
    adversarial: float = 0.1
    r1: float = 10.0  # gamma
    supervised: float = 0.0  # of the samples with known codes, in units of the variance of w


class Objective:
    """Trains an e4e encoder and its latent discriminator for a frozen generator.

    A batch holds aligned `image`s; where `weights.supervised` is not zero, as many samples of the generator are drawn beside them.
    `features` and `identity` are frozen networks; without them their terms are left out. The offsets start at step `progress[0]`,
    one more follows every `progress[1]` steps. `rates` are the learning rates of the encoder and the discriminator.
    """

    averaged = ("encoder",)

    def __init__(
        self,
        config: Config,
        *,
        generator: Any,
        features: Features | None,
        identity: Identity | None,
        weights: Weights,
        rates: tuple[float, float],
        progress: tuple[int, int],
        pool: int,
        seed: int,
    ) -> None:
        config = replace(config, w_dim=generator.config.w_dim, num_ws=generator.num_ws)
        self.encoder: Encoder = psp.seeded_build(Encoder, config, seed)
        self.encoder.latent_avg.copy_(generator.w_avg.expand(config.num_ws, -1))
        for style in self.encoder.styles:
            nn.init.zeros_(style.linear.weight)
        self.discriminator = psp.seeded_build(LatentDiscriminator, config, seed + 1)
        self.networks = nn.ModuleDict({"encoder": self.encoder, "discriminator": self.discriminator})
        self.config, self.generator, self.features, self.identity = config, generator, features, identity
        self.weights, self.rates, self.progress = weights, rates, progress
        self.real, self.fake = LatentPool(pool), LatentPool(pool)
        self.encoded: Tensor | None = None  # codes of the encoder's last batch, for the discriminator
        self.shown = torch.empty(0)  # images of the last batch, for the samples
        self.spread = self.own_codes(1024, seeded(seed)).std(0).mean().clamp_min(1e-4)
        self.advance(0)

    @torch.no_grad()
    def own_codes(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw codes (count, w_dim) from the mapping network."""
        z = torch.randn(count, self.generator.config.z_dim, generator=rng, device=rng.device).to(self.generator.w_avg.device)
        with torch.autocast(z.device.type, enabled=False):  # rounded codes would be told from the encoder's by their rounding
            return self.generator.mapping(z)[:, 0]

    def encoder_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Everything the encoder minimises: resemblance, short offsets, likely codes, and known codes where samples are drawn."""
        weights, images = self.weights, psp.fitted(batch["image"], self.config.size)
        count, known = len(images), None
        if weights.supervised:
            known, samples = self.samples_with_codes(count, rng)
            images = torch.cat([images, psp.fitted(samples, self.config.size)])
        codes, guessed = self.encoder(images).float().tensor_split([count])
        self.encoded, self.shown = codes.detach(), batch["image"][:8]
        image = self.generator.synthesis(codes).float()
        target = psp.fitted(batch["image"], image.shape[-1])
        losses = psp.resemblance(weights, image, target, self.features, self.identity)
        losses["offsets"] = weights.offsets * offset_norm(codes, self.encoder.stage)
        logits = self.discriminator(codes[:, : self.encoder.stage + 1].flatten(0, 1))
        losses["adversarial"] = weights.adversarial * logistic(logits.float(), real=True).mean()
        if known is not None:
            losses["supervised"] = weights.supervised * ((guessed - known) / self.spread).square().mean()
        return losses

    @torch.no_grad()
    def samples_with_codes(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw samples of the generator and what is known of them: codes (N, num_ws, w_dim), images (N, 3, H, W)."""
        w_plus = self.own_codes(count, rng)[:, None].expand(-1, self.config.num_ws, -1)
        return w_plus, self.generator.synthesis(w_plus).float()

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Tell the generator's own codes from those of the encoder's phase (eq. 5)."""
        assert self.encoded is not None, "the encoder's phase comes first"
        draws = TorchDraws(rng)
        real = self.real.query(self.own_codes(len(batch["image"]), rng), draws)
        fake = self.fake.query(self.encoded[:, : self.encoder.stage + 1], draws)
        return {
            "real": logistic(self.discriminator(real).float(), real=True).mean(),
            "fake": logistic(self.discriminator(fake).float(), real=False).mean(),
        }

    def penalty_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """R1 at the generator's own codes."""
        return {"r1": self.weights.r1 / 2 * r1(self.discriminator, self.own_codes(len(batch["image"]), rng))}

    def phases(self) -> list[Phase]:
        """Return the encoder, its discriminator, and the discriminator's penalty, once in 16 steps."""
        of_encoder, of_discriminator = Adam(self.rates[0]), Adam(self.rates[1])
        d = self.discriminator.parameters
        return [
            Phase("encoder", self.encoder.parameters, self.encoder_loss, of_encoder),
            Phase("discriminator", d, self.discriminator_loss, of_discriminator),
            Phase("r1", d, self.penalty_loss, of_discriminator, every=16, shares="discriminator"),
        ]

    def advance(self, step: int) -> None:
        """Set how many offsets are in use (section 4.3.1)."""
        start, interval = self.progress
        self.step = step
        stage = 0 if step < start else 1 + (step - start) // max(interval, 1)
        self.encoder.stage = min(stage, self.config.num_ws - 1)

    def after_step(self, step: int, images: int) -> dict[str, float]:  # noqa: ARG002
        """Move on; the loop logs how many offsets are in use."""
        self.advance(step)
        return {"offsets in use": float(self.encoder.stage)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the networks do not hold: the step and the pools."""
        return {"step": torch.tensor(self.step), "real": stacked(self.real.codes), "fake": stacked(self.fake.codes)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
        self.real.codes, self.fake.codes = list(state["real"]), list(state["fake"])
        self.advance(int(state["step"]))

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Eight images of the last batch, and below them what comes back (16, 3, H, W)."""
        encoder: Any = networks["encoder"]
        encoder.stage = self.encoder.stage
        again = self.generator.synthesis(encoder.encode(self.shown)).float()
        return torch.cat([psp.fitted(self.shown, again.shape[-1]), again])


def stacked(codes: Sequence[Tensor]) -> Tensor:
    """Stack the codes of a pool, which may be empty."""
    return torch.stack(list(codes)) if codes else torch.empty(0)


def objective(
    config: Config,
    seed: int = 0,
    *,
    generator: Any = None,
    features: Features | None = None,
    identity: Identity | None = None,
    weights: Weights = Weights(),
    rates: tuple[float, float] = (1e-4, 2e-5),
    progress: tuple[int, int] = (20_000, 2_000),
    pool: int = 50,
) -> Objective:
    """Make the objective for a frozen `generator`, whose W+ decides the number and size of the codes (see `Objective`)."""
    if generator is None:
        raise TrainingError("an encoder is trained for a generator: give the name or file of one")
    return Objective(
        config,
        generator=generator,
        features=features,
        identity=identity,
        weights=weights,
        rates=rates,
        progress=progress,
        pool=pool,
        seed=seed,
    )


def pyramid_of(state: State) -> Config:
    """Infer the configuration of an encoder from its shapes."""
    return Config(**vars(psp.pyramid_of(state)))


def discriminator_of(state: State) -> Config:
    """Infer the configuration of a latent discriminator from its shapes."""
    weights = [state[name] for name in sorted(state) if name.endswith(".weight")]
    return Config(w_dim=weights[0].shape[1], depth=len(weights), hidden=weights[-1].shape[1])


NETWORKS = {"encoder": Encoder, "discriminator": LatentDiscriminator}

PRESETS = {
    "ffhq-1024": Preset(Config(), data="images", batch=8, steps=200_000),
    "portraits64": Preset(
        Config(size=64, stem=16, widths=(32, 96, 144, 192), units=(1, 2, 2, 1), style_width=96, coarse=3, middle=6, hidden=256),
        data="images",
        batch=16,
        steps=1_500,
        objective={
            "generator": "limn-portraits64",
            "features": "limn-identity",
            "identity": "limn-identity",
            "weights": Weights(identity=0.5, offsets=1e-3, supervised=1.0),
            "rates": (1e-3, 1e-4),
            "progress": (150, 15),
        },
        ema_kimg=1.0,
    ),
}

# A published file holds "encoder.*", "decoder.*" and "latent_avg"; the decoder is the rosinality layout of stylegan2. The keys of the
# encoder are those of pSp: only the file's options ("encoder_type": "Encoder4Editing") tell which of the two it is.
PUBLISHED = [
    Published(
        "encoder", "gradual", psp.has_pyramid, pyramid_of, Encoder, psp.AVERAGE, psp.with_average, ("encoder_type", "Encoder4Editing")
    ),
    Published(
        "discriminator",
        "mlp",
        lambda state: "mlp.0.weight" in state and all(name.startswith("mlp.") for name in state),
        discriminator_of,
        LatentDiscriminator,
    ),
]

CARD = Card(
    name="e4e",
    title="encoder4editing",
    chapter="inversion",
    year=2021,
    arxiv="2102.02766",
    verbs=("invert", "train"),
    weights_licence="MIT code; FFHQ images CC BY-NC-SA 4.0 and the StyleGAN2 weights are for non-commercial use",
    source="omertov/encoder4editing",
)

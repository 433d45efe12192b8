"""CycleGAN: two generators that translate between two kinds of pictures of which no pairs are known.

Each generator must convince the discriminator of the kind it paints, and what went there and back must be what it was: that keeps
the translation close to its source. A picture of the target's kind should stay as it is (the identity loss keeps colours), and the
discriminators are shown past translations as well as new ones.
Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks. ICCV 2017, arXiv 1703.10593.
Differs: the discriminators see translations made after the generators' step, not before it. Reproduced: generators,
discriminators, the pool and one step's losses of the published code within 1e-4 (tests/parity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.blocks.johnson import Johnson, JohnsonGenerator, Padding
from limn.blocks.norms import Norm
from limn.blocks.patch import Patch, PatchDiscriminator, widths
from limn.losses.games import GAMES
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing
from limn.models.translation.pix2pix import johnson_names, johnson_of, patch_names, patch_of, started

Way = Literal["a_to_b", "b_to_a"]


@dataclass(frozen=True)
class Config:
    channels: int = 3  # of both kinds: the identity loss needs them alike
    size: int = 256  # pixels of the training pictures; other sizes are translated too
    template: str = ""  # their alignment, where they are faces
    width: int = 64  # channels at full size
    blocks: int = 9  # residual blocks: 9 for 256 pixels and more, 6 for fewer
    norm: Norm = "instance"
    dropout: bool = False
    padding: Padding = "reflect"  # of the residual blocks
    judge_width: int = 64
    judge_layers: int = 3  # strided convolutions of the discriminators: 3 see 70 pixels

    @property
    def johnson(self) -> Johnson:
        """Shape of a generator."""
        bias = self.norm == "instance"
        return Johnson(self.channels, self.channels, self.width, 2, self.blocks, self.norm, bias, self.dropout, self.padding)

    @property
    def patch(self) -> Patch:
        """Shape of a discriminator."""
        return Patch(self.channels, widths(self.judge_width, self.judge_layers), self.norm, self.norm == "instance")


class Generator(JohnsonGenerator):
    """Images (N, channels, H, W) of one kind in [-1, 1] -> such images of the other kind; H and W are divisible by 4."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__(config.johnson)
        self.config = config

    def translate(self, images: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Return what images (N, channels, H, W) in [-1, 1] are in the other kind."""
        return self(images, rng, own=True)


def discriminator(config: Config) -> PatchDiscriminator:
    """Make the discriminator of one kind of pictures."""
    return PatchDiscriminator(config.patch)


class ImagePool:
    """The last translations, some of which a discriminator sees again in place of new ones (section 4)."""

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor, uniform: Callable[[], float]) -> Tensor:
        """Take images (N, C, H, W) one by one; each comes back, or half of the time a stored one whose place it takes.

        `uniform` draws numbers in [0, 1): one for whether, and one for which. While the pool fills, nothing is drawn.
        """
        given = []
        for image in images.detach():
            if len(self.images) < self.size:
                self.images.append(image)
            elif self.size and uniform() > 0.5:
                place = int(uniform() * self.size)
                given.append(self.images[place])
                self.images[place] = image
                continue
            given.append(image)
        return torch.stack(given)


class Objective:
    """Trains the two generators together, then the two discriminators (eq. 3 with the identity loss of section 5.2)."""

    averaged = ("a_to_b", "b_to_a")

    def __init__(self, config: Config, *, game: str, cycle: float, identity_share: float, pool: int, adam: Adam, seed: int) -> None:
        with drawing(seed):
            generators = {name: started(Generator(config)) for name in ("a_to_b", "b_to_a")}
            judges = {name: started(discriminator(config)) for name in ("discriminator_a", "discriminator_b")}
        self.networks = nn.ModuleDict(generators | judges)
        self.config, self.game, self.cycle, self.identity, self.adam = config, GAMES[game], cycle, identity_share, adam
        self.pools = {kind: ImagePool(pool) for kind in ("a", "b")}
        self.shown: tuple[Tensor, Tensor] | None = None  # the last batch, for the samples

    def generator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Convince (eq. 1), come back (eq. 2), and leave alone what is of the right kind already."""
        a, b = batch["source"], batch["target"]
        self.shown = a[:4].detach(), b[:4].detach()
        losses: Losses = {}
        for own, other, here, there in (("a", "b", a, b), ("b", "a", b, a)):
            forth, back = self.networks[f"{own}_to_{other}"], self.networks[f"{other}_to_{own}"]
            fake = forth(here, rng)
            losses[f"gan_{other}"] = self.game(self.networks[f"discriminator_{other}"](fake), True, True)
            losses[f"cycle_{own}"] = self.cycle * F.l1_loss(back(fake, rng), here)
            if self.identity:
                losses[f"identity_{other}"] = self.cycle * self.identity * F.l1_loss(forth(there, rng), there)
        return losses

    def discriminator_loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """Tell each kind from its translations, past ones among them; each of the two counts half."""
        losses: Losses = {}
        for own, other, here, there in (("a", "b", batch["source"], batch["target"]), ("b", "a", batch["target"], batch["source"])):
            with torch.no_grad():
                fake = self.networks[f"{own}_to_{other}"](here, rng)
            fake = self.pools[other].exchange(fake, lambda: float(torch.rand((), generator=rng, device=rng.device)))
            judge = self.networks[f"discriminator_{other}"]
            losses[f"{other}"] = 0.5 * (self.game(judge(there), True) + self.game(judge(fake), False))
        return losses

    def phases(self) -> list[Phase]:
        """Return the two pairs of players."""

        def of(*names: str) -> Callable[[], list[nn.Parameter]]:
            return lambda: [parameter for name in names for parameter in self.networks[name].parameters()]

        return [
            Phase("generators", of("a_to_b", "b_to_a"), self.generator_loss, self.adam),
            Phase("discriminators", of("discriminator_a", "discriminator_b"), self.discriminator_loss, self.adam),
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pools, so that a run goes on as if it had never stopped."""
        return {kind: torch.stack(pool.images) for kind, pool in self.pools.items() if pool.images}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
        for kind, images in state.items():
            self.pools[kind].images = list(images.to(next(self.networks.parameters()).device))

    @torch.no_grad()
    def samples(self, networks: nn.ModuleDict) -> Tensor:
        """Return pictures of the last batch above their translations, for both ways."""
        a_to_b, b_to_a = networks["a_to_b"], networks["b_to_a"]
        assert isinstance(a_to_b, Generator) and isinstance(b_to_a, Generator)
        a, b = self.shown or (torch.zeros(4, 3, self.config.size, self.config.size),) * 2
        return torch.cat([a, a_to_b.translate(a), b, b_to_a.translate(b)])


def objective(
    config: Config,
    seed: int = 0,
    *,
    game: str = "least_squares",
    cycle: float = 10.0,
    identity_share: float = 0.5,
    pool: int = 50,
    adam: Adam = Adam(2e-4, (0.5, 0.999)),
) -> Objective:
    """Make the objective: `cycle` is the factor of eq. 2, `identity_share` of that is the factor of the identity loss."""
    return Objective(config, game=game, cycle=cycle, identity_share=identity_share, pool=pool, adam=adam, seed=seed)


def is_generator(state: State) -> bool:
    """Tell the names of a residual generator without batch norm that halves twice and keeps the number of channels."""
    shape = johnson_of(state)
    return shape is not None and shape.norm != "batch" and shape.downs == 2


def is_discriminator(state: State) -> bool:
    """Tell the names of a patch discriminator without batch norm."""
    shape = patch_of(state)
    return shape is not None and shape.norm != "batch"


def generator_of(state: State) -> Config:
    """Infer the configuration of a generator from the places and shapes of its layers."""
    shape = johnson_of(state)
    assert shape is not None, "the row that calls this has recognised it"
    return Config(shape.channels_in, width=shape.width, blocks=shape.blocks, norm=shape.norm, dropout=shape.dropout, padding=shape.padding)


def discriminator_of(state: State) -> Config:
    """Infer the configuration of a discriminator."""
    shape = patch_of(state)
    assert shape is not None, "the row that calls this has recognised it"
    return Config(shape.channels_in, norm=shape.norm, judge_width=shape.widths[0], judge_layers=len(shape.widths) - 1)


NETWORKS = {"a_to_b": Generator, "b_to_a": Generator, "discriminator_a": discriminator, "discriminator_b": discriminator}

# The published files hold one direction each, or one discriminator; statistics that old files keep of instance norms are dropped.
PUBLISHED = [
    Published("a_to_b", "resnet", is_generator, generator_of, Generator, lambda config: johnson_names(config.johnson)),
    Published("discriminator_b", "patch", is_discriminator, discriminator_of, discriminator, lambda config: patch_names(config.patch)),
]

PRESETS = {
    "horse2zebra": Preset(Config(), data="unpaired", batch=1, steps=266_800, decay="half", reading={"jitter": 30}),
    "portraits64": Preset(
        Config(size=64, template="ffhq", width=16, blocks=3, judge_width=16, judge_layers=2),
        data="unpaired",
        batch=2,
        steps=3000,
        decay="half",
        ema_kimg=0.5,
        reading={"jitter": 6},
        reaches="colour to old: Fréchet distance 4.6 in limn-identity's features (61 untrained, 8.4 left as they are), 7.0 between "
        "thumbnails (16.1 as they are); still a checkered grain; 126 people held out, 12 minutes on a share of one CPU core",
    ),
}

CARD = Card(
    name="cyclegan",
    title="CycleGAN",
    chapter="translation",
    year=2017,
    arxiv="1703.10593",
    verbs=("translate", "train"),
    weights_licence="BSD-2-Clause code; the released models' data sets have terms of their own",
    source="junyanz/pytorch-CycleGAN-and-pix2pix",
)

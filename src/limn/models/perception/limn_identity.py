"""limn-identity: who is it? A small residual network whose embedding is near for two pictures of one person.

A residual network as in ArcFace (Deng, Guo, Xue, Zafeiriou, CVPR 2019, arXiv 1801.07698), with the global depthwise convolution of
MobileFaceNet (Chen et al., 2018, arXiv 1804.07573) before the embedding, and the additive cosine margin of CosFace (Wang et al., CVPR 2018,
arXiv 1801.09414) over identities. People of whom only one picture is known are classes too: two strong augmentations of it are the pair.
Its feature maps are limn's own space for perceptual and Fréchet distances, where published feature weights are not at hand.
Differs: one network for all of it, trained on some eight thousand free portraits instead of millions; figures in the model card.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.errors import InputError
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, State, drawing


@dataclass(frozen=True)
class Config:
    """What the identity network is made of."""

    size: int = 64  # pixels of the `ffhq`-aligned crop that it looks at; other sizes are resized to it
    widths: tuple[int, ...] = (32, 64, 128, 192)  # channels of the stages; each but the first halves the maps, the stem halves once before
    depths: tuple[int, ...] = (2, 2, 2, 2)  # residual blocks per stage
    embedding: int = 128  # numbers that say who it is


class Residual(nn.Module):
    """Two 3x3 convolutions and the way around them: (N, C, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.around = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.around(x))


class Identity(nn.Module):
    """Embeds `ffhq`-aligned faces (N, 3, H, W) in [-1, 1]: `embed` says who it is, `features` and `moments` what it looks like."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        first, last = config.widths[0], config.widths[-1]
        self.stem = nn.Sequential(nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        self.stages = nn.ModuleList()
        channels = first
        for index, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            strides = [1 if index == 0 else 2] + [1] * (depth - 1)
            self.stages.append(nn.Sequential(*(Residual(channels if i == 0 else width, width, s) for i, s in enumerate(strides))))
            channels = width
        side = config.size // 2 ** len(config.widths)
        self.gather = nn.Conv2d(
            last, last, side, groups=last, bias=False
        )  # a weight per place: MobileFaceNet's global depthwise convolution
        self.norm = nn.BatchNorm1d(last)
        self.embedding = nn.Linear(last, config.embedding, bias=False)
        self.centre = nn.BatchNorm1d(config.embedding, affine=False)  # embeddings cannot all hide in one direction
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding (N, embedding) of images (N, 3, size, size), not yet of unit length."""
        last = self.features(images)[-1]
        return self.centre(self.embedding(self.norm(self.gather(last).flatten(1))))

    def embed(self, images: Tensor) -> Tensor:
        """Return unit vectors (N, embedding) of aligned images (N, 3, H, W) of any size; their dot product is the cosine similarity."""
        return F.normalize(self(self.fit(images)).float())

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the map after every stage, finest first: (N, widths[i], H / 2^(i+1), W / 2^(i+1)), of images at their own size."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def moments(self, images: Tensor) -> Tensor:
        """Return the spatial mean of every feature map, (N, sum of widths): the vector of limn's own Fréchet distance."""
        return torch.cat([x.float().mean((2, 3)) for x in self.features(self.fit(images))], 1)

    def fit(self, images: Tensor) -> Tensor:
        """Resize aligned images (N, 3, H, W), H = W, to (N, 3, size, size), antialiased."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise InputError(
                f"identity needs square aligned images (N, 3, H, H), not {tuple(images.shape)}: align them with template 'ffhq'"
            )
        if images.shape[-1] == self.config.size:
            return images
        return F.interpolate(images, size=self.config.size, mode="bilinear", align_corners=False, antialias=True)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, Residual):
        nn.init.constant_(module.norm2.weight, 0.2)  # blocks begin near the identity, so that the first steps are steady


class Margin(nn.Module):
    """One unit vector per known person, and the additive cosine margin over them (CosFace eq. 4)."""

    def __init__(self, identities: int, embedding: int, scale: float, margin: float) -> None:
        super().__init__()
        self.people = nn.Parameter(torch.randn(identities, embedding) * embedding**-0.5)
        self.scale, self.margin = scale, margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of embeddings (N, embedding) against labels (N,), in float32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            cosine = F.normalize(embeddings.float()) @ F.normalize(self.people.float()).T
            own = F.one_hot(labels, len(self.people)).to(cosine.dtype)
            return F.cross_entropy(self.scale * (cosine - self.margin * own), labels)


def contrast(embeddings: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Return how badly each embedding (N, D) finds its partner, rows 2i and 2i + 1, among all others of the batch.

    It teaches from the first step on, where the margin over thousands of people still has nothing to hold on to.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = F.normalize(embeddings.float())
        partner = torch.arange(len(unit), device=unit.device) ^ 1
        own = F.one_hot(partner, len(unit))
        stranger = labels[:, None] != labels[None, :]
        return F.cross_entropy((scale * unit @ unit.T).masked_fill(~stranger & (own == 0), -1e4), partner)


class IdentityObjective:
    """Learn to tell people apart: batches hold "image" (N, 3, size, size) in [-1, 1] and "label" (N,), in pairs (`contrast`)."""

    averaged = ("identity",)

    def __init__(self, config: Config, adam: Adam, people: Margin) -> None:
        self.networks = nn.ModuleDict({"identity": Identity(config), "people": people})
        self.scale, self.adam = people.scale, adam

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what the one phase updates."""
        return self.networks.parameters()

    def loss(self, batch: dict[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002 - nothing here is drawn
        """Return both losses of a batch."""
        embeddings = self.networks["identity"](batch["image"])
        near = contrast(embeddings, batch["label"], self.scale / 2)
        return {"margin": self.networks["people"](embeddings, batch["label"]), "contrast": near}

    def phases(self) -> list[Phase]:
        """Return the one phase."""
        return [Phase("identity", self.parameters, self.loss, self.adam, clip=5.0)]


def objective(
    config: Config,
    seed: int = 0,
    *,
    identities: int = 8192,
    scale: float = 32.0,
    margin: float = 0.2,
    lr: float = 2e-3,
    decay: float = 0.05,
) -> IdentityObjective:
    """Build the objective: labels must be below `identities`; `decay` is AdamW's."""
    with drawing(seed):
        return IdentityObjective(config, Adam(lr, (0.9, 0.99), weight_decay=decay), Margin(identities, config.embedding, scale, margin))


def _is_identity(state: State) -> bool:
    return {"stem.0.weight", "stages.0.0.conv1.weight", "gather.weight", "embedding.weight"} <= set(state)


def config_of(state: State) -> Config:
    """Read the configuration from the shapes of a state dict."""
    blocks = {tuple(int(part) for part in key.split(".")[1:3]) for key in state if key.startswith("stages.")}
    depths = tuple(sum(stage == index for stage, _ in blocks) for index in range(1 + max(stage for stage, _ in blocks)))
    widths = tuple(state[f"stages.{index}.0.conv1.weight"].shape[0] for index in range(len(depths)))
    size = state["gather.weight"].shape[-1] * 2 ** len(widths)
    return Config(size, widths, depths, state["embedding.weight"].shape[0])


NETWORKS = {"identity": Identity}
PRESETS = {
    "portraits64": Preset(
        Config(),
        data="identities",
        batch=128,
        steps=1300,
        ema_kimg=10.0,
        decay="cosine",
        warmup=100,
        reaches="0.906 of 192 pairs of unseen people, 0.757 on LFW, after 166,400 portraits: 15 minutes on a CPU thread",
    ),
}
PUBLISHED = [Published("identity", "limn", _is_identity, config_of, Identity)]
CARD = Card(
    name="limn-identity",
    title="Identity embedding and feature space of limn",
    chapter="perception",
    year=2026,
    arxiv="",
    verbs=("train", "evaluate"),
    weights_licence="Apache-2.0 (trained on free portraits: CC BY 3.0, CC BY 4.0, public domain; see the model card)",
)

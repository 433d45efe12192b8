"""The few records that every model file fills in, and the protocols by which verbs use models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Losses = dict[str, Tensor]  # named scalar losses; the phase minimises their sum
State = Mapping[str, Tensor]  # a state dict
Names = Sequence[tuple[str, str | None]]  # (regular expression, replacement; None drops the entry), the first full match wins


@dataclass(frozen=True)
class Entry:
    """One published weight file: where it lies, what it must hash to, and who may use it."""

    url: str
    sha256: str
    bytes: int
    licence: str
    preset: str = ""


@dataclass(frozen=True)
class Card:
    """What a system is, for lists and for people."""

    name: str
    title: str
    chapter: Literal[
        "generation", "inversion", "editing", "translation", "restoration", "inpainting", "swapping", "animation", "perception"
    ]
    year: int
    arxiv: str  # "" where the paper is not on arXiv
    verbs: tuple[str, ...]
    weights_licence: str  # of the published weights, in words; "" where none are published
    entries: tuple[Entry, ...] = ()
    source: str = ""  # the published implementation, owner/name


@dataclass(frozen=True)
class Published:
    """How one published state-dict layout of a network is recognised and becomes ours."""

    part: str  # which network of the system: "generator", "encoder", ...
    layout: str  # whose key names: "nvidia", "rosinality", ...
    recognise: Callable[[State], bool]
    infer: Callable[[State], Any]  # state -> Config; shapes say it all
    build: Callable[[Any], nn.Module]  # Config -> the network that the state is loaded into
    names: Names | Callable[[Any], Names] = ()  # published name -> ours (may depend on Config); what matches no row keeps its name
    prepare: Callable[[State], State] | None = None  # arithmetic that renaming cannot say (fused, transposed or flipped weights)
    says: tuple[str, str] = ("", "")  # training option of files of this system, where others share its names


@dataclass(frozen=True)
class Adam:
    """Adam as the papers state it."""

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0  # decoupled (AdamW) where it is not zero


@dataclass(frozen=True)
class Preset:
    """One recipe: configuration, data and hyper-parameters, with what it reaches."""

    config: Any
    data: str  # the dataset kind that `limn train` opens for it: "images", "scenes", "mesh", "identities", "latents", ...
    batch: int
    steps: int
    objective: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of the system's `objective`
    ema_kimg: float = 0.0  # half-life of the moving average in thousand images; 0: none
    ema_ramp: float = 0.05  # share of the images seen that the average remembers at most, early in a run; 0: no such limit
    decay: Literal["none", "linear", "half", "end", "cosine"] = "none"  # of the rate: to 0 over all, the last half or fifth, or as a cosine
    warmup: int = 0  # steps in which the learning rate rises
    reading: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments with which the dataset kind is opened
    reaches: str = ""  # what, on which data, hardware and time


@dataclass
class Phase:
    """One optimisation step of one player: all that the training loop knows of a system."""

    name: str
    parameters: Callable[[], Any]  # the parameters it updates
    loss: Callable[[Any, torch.Generator], Losses]  # batch, and all its randomness -> named scalar losses
    optimiser: Adam
    every: int = 1  # lazy regularisation: run once in so many steps
    begin: int = 0  # first step in which it runs
    shares: str = ""  # name of the phase whose optimiser it uses; "" for its own
    clip: float = 0.0  # largest gradient norm; 0: none


@runtime_checkable
class Objective(Protocol):
    """What the training loop needs of a system: its networks and its phases."""

    networks: nn.ModuleDict  # everything to be saved, by name
    averaged: tuple[str, ...]  # the networks of which the loop keeps a moving average

    def phases(self) -> list[Phase]: ...


@runtime_checkable
class Generator(Protocol):
    """Makes images (N, 3, H, W) in [-1, 1] from a latent of any of its spaces."""

    def mapping(self, z: Tensor, label: Tensor | None = None) -> Tensor: ...
    def synthesis(self, w_plus: Tensor) -> Tensor: ...


@runtime_checkable
class Encoder(Protocol):
    """Finds the W+ code (N, num_ws, w_dim) of aligned images (N, 3, H, W) in [-1, 1]."""

    def encode(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class Detector(Protocol):
    """Finds faces in one image (1, 3, H, W) in [-1, 1]: rows x0, y0, x1, y1, score, five points as x, y pairs, in pixels."""

    def detect(self, image: Tensor, threshold: float) -> Tensor: ...


@runtime_checkable
class Landmarker(Protocol):
    """Finds dense points (N, P, 3) in pixels of the aligned images (N, 3, H, W) in [-1, 1]."""

    def landmarks(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class Translator(Protocol):
    """Turns images of one kind (N, channels_in, H, W) in [-1, 1], or one-hot label maps, into another kind (N, 3, H, W) in [-1, 1].

    `multiple` is what H and W must be divisible by; the verb pads and crops. What a model leaves open (a style, dropout) is drawn from
    `rng`; without it the answer is the mean one. A network that reads label maps has `classes`, their number; one whose images are
    always of one size has `fixed`, (height, width).
    """

    multiple: int

    def translate(self, images: Tensor, rng: torch.Generator | None = None) -> Tensor: ...


@runtime_checkable
class Restorer(Protocol):
    """Restores images (N, 3, H, W) in [-1, 1] at `scale` times their size; `template` names its alignment, "" for whole pictures."""

    scale: int
    template: str

    def restore(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class Inpainter(Protocol):
    """Fills the holes, where `mask` (N, 1, H, W) is 1, of images (N, 3, H, W) in [-1, 1]; H and W are divisible by `multiple`."""

    multiple: int

    def inpaint(self, images: Tensor, mask: Tensor, sketch: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class Swapper(Protocol):
    """Gives aligned faces (N, 3, S, S) in [-1, 1] the identity of embeddings (N, D); `template` names the alignment, `size` is S."""

    template: str
    size: int

    def swap(self, targets: Tensor, identities: Tensor) -> Tensor: ...


@runtime_checkable
class Animator(Protocol):
    """Moves a portrait: its `motion` is read from images (N, 3, S, S) in [-1, 1], and `animate` gives a source image that of another."""

    size: int

    def motion(self, images: Tensor) -> dict[str, Tensor]: ...
    def animate(self, source: Tensor, own: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor: ...


@runtime_checkable
class Flow(Protocol):
    """Optical flow (N, 2, H, W) in pixels, x before y, from the first images (N, 3, H, W) in [-1, 1] to the second."""

    def flow(self, first: Tensor, second: Tensor) -> Tensor: ...


@runtime_checkable
class Parser(Protocol):
    """Says what every pixel of aligned faces (N, 3, S, S) in [-1, 1] shows: logits (N, len(classes), S, S)."""

    classes: tuple[str, ...]
    template: str

    def parse(self, images: Tensor) -> Tensor: ...


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator of its own, so that no call touches the global one."""
    return torch.Generator(device).manual_seed(seed)


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Let the layers built inside draw their first weights from `seed`: PyTorch's draw from the global generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

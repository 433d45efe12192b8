"""LPIPS: how different two pictures look, as weighted distances between deep features.

Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric. CVPR 2018, arXiv 1801.03924.
Feature maps of an ImageNet network are scaled to unit length at every place; squared differences are weighted per channel by numbers
learned from human judgements, averaged over places and summed over layers. Differs: the network (`trunk`) and the learned weights
(`linear`) are two parts that load from their own published files, or together from a state dict of the published module.
Reproduced: the cases `lpips/*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.errors import WeightsError
from limn.models.perception import vgg
from limn.models.records import Card, Entry, Published, State

Net = Literal["alex", "vgg", "squeeze"]


@dataclass(frozen=True)
class Config:
    """Which network looks, and what is done with what it sees. Papers report alex 0.1, and train with vgg 0.1."""

    net: Net = "alex"
    version: str = "0.1"  # 0.0 feeds [-1, 1] as it is, a slip of the first release; its state dict looks the same
    learned: bool = True  # False: plain sums over the channels, the paper's baseline


SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for pictures in [-1, 1]
TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29), "squeeze": (1, 4, 7, 9, 10, 11, 12)}  # layers that are compared
CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512), "squeeze": (64, 128, 256, 384, 384, 512, 512)}


class Fire(nn.Module):
    """SqueezeNet's block: few channels, then many from 1x1 and 3x3 side by side: (N, C, H, W) -> (N, 2 * width, H, W)."""

    def __init__(self, channels: int, squeezed: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, width, 1)
        self.expand3x3 = nn.Conv2d(squeezed, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def alexnet() -> list[nn.Module]:
    """The convolutions of AlexNet ("one weird trick")."""
    shapes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    layers: list[nn.Module] = []
    for index, (channels, width, kernel, stride, padding) in enumerate(shapes):
        layers += [nn.MaxPool2d(3, 2)] if index in (1, 2) else []
        layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
    return layers


def vgg16() -> list[nn.Module]:
    """The convolutions of VGG-16, without the pool behind the last."""
    return vgg.layers("vgg16")[:-1]


def squeezenet() -> list[nn.Module]:
    """The convolutions of SqueezeNet 1.1; its pools keep the last, incomplete window."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU()]
    channels = 64
    for squeezed, width, pool in [
        (16, 64, 1),
        (16, 64, 0),
        (32, 128, 1),
        (32, 128, 0),
        (48, 192, 1),
        (48, 192, 0),
        (64, 256, 0),
        (64, 256, 0),
    ]:
        layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if pool else []
        layers += [Fire(channels, squeezed, width)]
        channels = 2 * width
    return layers


LAYERS = {"alex": alexnet, "vgg": vgg16, "squeeze": squeezenet}


class Trunk(nn.Sequential):
    """An ImageNet network up to its last convolution, numbered as torchvision numbers it."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__(*LAYERS[config.net]())
        self.taps = TAPS[config.net]

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the maps at the layers that are compared, finest first, of normalised images (N, 3, H, W)."""
        found = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index in self.taps:
                found.append(x)
        return found


class Linear(nn.Module):
    """The learned weight, none negative, of every channel of every layer."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.layers = nn.ParameterList(torch.ones(1, width, 1, 1) for width in CHANNELS[config.net])


class Lpips(nn.Module):
    """The distance: `forward(images, others)` of pictures (N, 3, H, W) in [-1, 1] is (N,)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config)
        self.linear = Linear(config) if config.learned else None
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return torch.stack([layer.mean((1, 2, 3)) for layer in self.maps(images, others)]).sum(0)

    def spatial(self, images: Tensor, others: Tensor) -> Tensor:
        """Return where they differ (N, 1, H, W): the maps of all layers, enlarged bilinearly and summed."""
        size = images.shape[-2:]
        enlarged = [F.interpolate(layer, size=size, mode="bilinear", align_corners=False) for layer in self.maps(images, others)]
        return torch.stack(enlarged).sum(0)

    def maps(self, images: Tensor, others: Tensor) -> list[Tensor]:
        """Return the distances (N, 1, h, w) of every layer at its own resolution (eq. 1 before the sums)."""
        pairs = zip(self.features(images), self.features(others), strict=True)
        squares = [(_unit(a) - _unit(b)).square() for a, b in pairs]
        if self.linear is None:
            return [square.sum(1, keepdim=True) for square in squares]
        return [(square * weight).sum(1, keepdim=True) for square, weight in zip(squares, self.linear.layers, strict=True)]

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps that are compared, not yet of unit length."""
        return self.trunk.maps(images if self.config.version == "0.0" else (images - self.shift) / self.scale)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


FIRST = {(64, 3, 11, 11): "alex", (64, 3, 3, 3): "vgg"}


def _net(state: State, first: str) -> Net:
    """Tell the network by its keys and its first convolution, which VGG and SqueezeNet share in shape."""
    if any(".squeeze." in key for key in state):
        return "squeeze"
    shape = tuple(state[first].shape)
    if shape not in FIRST:
        raise WeightsError(f"{first} of shape {shape} is of none of alex, vgg, squeeze")
    return FIRST[shape]  # type: ignore[return-value]


def _is_module(state: State) -> bool:
    return "net.slice1.0.weight" in state and any(key.startswith("scaling_layer.") for key in state)


def _is_linear(state: State) -> bool:
    return "lin0.model.1.weight" in state and all(key.startswith("lin") for key in state)


def _is_trunk(state: State) -> bool:
    """torchvision's alexnet, vgg16 or squeezenet1_1: other depths have other keys."""
    return any(set(_trunk_keys(net)) == {key for key in state if key.startswith("features.")} for net in LAYERS)


def _trunk_keys(net: str) -> list[str]:
    with torch.device("meta"):
        return [f"features.{key}" for key in nn.Sequential(*LAYERS[net]()).state_dict()]


def _config_of_module(state: State) -> Config:
    return Config(_net(state, "net.slice1.0.weight"), learned="lin0.model.1.weight" in state)


def _config_of_linear(state: State) -> Config:
    widths = tuple(state[f"lin{index}.model.1.weight"].shape[1] for index in range(sum(key.startswith("lin") for key in state)))
    nets: dict[tuple[int, ...], Net] = {channels: net for net, channels in CHANNELS.items()}  # type: ignore[misc]
    if widths not in nets:
        raise WeightsError(f"LPIPS weights for layers of {widths} channels belong to none of alex, vgg, squeeze")
    return Config(nets[widths])


def _config_of_trunk(state: State) -> Config:
    return Config(_net(state, "features.0.weight"))


NETWORKS = {"lpips": Lpips, "trunk": Trunk, "linear": Linear}
PUBLISHED = [
    Published(
        "lpips",
        "richzhang",
        _is_module,
        _config_of_module,
        Lpips,
        (
            (r"scaling_layer\.(shift|scale)", r"\1"),
            (r"net\.slice\d+\.(.+)", r"trunk.\1"),
            (r"lin(\d)\.model\.1\.weight", r"linear.layers.\1"),
            (r"lins\.(\d)\.model\.1\.weight", r"linear.layers.\1"),  # the published module saves the same tensors twice
        ),
    ),
    Published("linear", "richzhang", _is_linear, _config_of_linear, Linear, ((r"lin(\d)\.model\.1\.weight", r"layers.\1"),)),
    Published("trunk", "torchvision", _is_trunk, _config_of_trunk, Trunk, ((r"features\.(.+)", r"\1"), (r"classifier\..+", None))),
]
_LINEAR = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"
CARD = Card(
    name="lpips",
    title="Learned Perceptual Image Patch Similarity",
    chapter="perception",
    year=2018,
    arxiv="1801.03924",
    verbs=("evaluate",),
    weights_licence="BSD-2-Clause (learned weights); the ImageNet trunks are torchvision's, BSD-3-Clause",
    entries=(
        Entry(_LINEAR + "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", 6009, "BSD-2-Clause", "alex"),
        Entry(_LINEAR + "vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", 7289, "BSD-2-Clause", "vgg"),
        Entry(
            _LINEAR + "squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76", 10811, "BSD-2-Clause", "squeeze"
        ),
    ),
    source="richzhang/PerceptualSimilarity",
)

"""VGG: the plain stack of 3x3 convolutions whose feature maps most perceptual and style losses are taken in.

Five stages of convolutions with a pool between them; losses compare the maps of layers that the literature names by stage and
place: `conv3_3` before its ReLU, `relu3_3` after it, `pool3`. Which layers, and how pictures are given to the network (four
conventions are in use, `Input`), is part of the loss and therefore of `Config`.
Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015, arXiv 1409.1556.
Differs: the classifier is left out. Layers are numbered as torchvision numbers them. Reproduced: the cases `lpips/vgg`, whose trunk
this is, and `partial-conv/losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from limn.errors import InputError
from limn.models.records import Card, Entry, Published, State

Net = Literal["vgg16", "vgg19", "vgg16-bn", "vgg19-bn"]
Input = Literal[
    "imagenet",  # [0, 1], then ImageNet's mean and deviation: torchvision's own
    "signed",  # [-1, 1] as it is: pix2pixHD, SPADE, vid2vid, FOMM
    "unit",  # [0, 1] as it is
    "caffe",  # BGR in 0..255 less the mean: CoCosNet, UNIT, the style-transfer literature
]
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # convolutions of each stage
WIDTHS = (64, 128, 256, 512, 512)  # channels of each stage
RELUS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # what pix2pixHD compares
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]
CAFFE_MEAN = (103.939, 116.779, 123.680)  # BGR in 0..255


@dataclass(frozen=True)
class Config:
    net: Net = "vgg19"
    input: Input = "imagenet"  # how pictures in [-1, 1] are given to it
    taps: tuple[str, ...] = RELUS  # layers whose maps are returned, in the order of the network
    pool: Literal["max", "average"] = "max"


def names(net: str) -> list[str]:
    """Return the names of the layers in the order in which torchvision numbers them: conv1_1, relu1_1, ..., pool5."""
    found: list[str] = []
    for stage, depth in enumerate(DEPTHS[net.removesuffix("-bn")], 1):
        for place in range(1, depth + 1):
            kinds = ("conv", "bn", "relu") if net.endswith("-bn") else ("conv", "relu")
            found += [f"{kind}{stage}_{place}" for kind in kinds]
        found.append(f"pool{stage}")
    return found


def layers(net: str, pool: str = "max") -> list[nn.Module]:
    """Return the layers of a VGG without its classifier; ReLUs leave their input as it was, so that `conv` maps can be kept."""
    made: list[nn.Module] = []
    channels = 3
    for name in names(net):
        stage = int(name.rpartition("_")[0][-1]) if "_" in name else int(name[-1])
        width = WIDTHS[stage - 1]
        if name.startswith("conv"):
            made.append(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        elif name.startswith("bn"):
            made.append(nn.BatchNorm2d(width))
        else:
            made.append(nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2))
    return made


class Vgg(nn.Sequential):
    """`features(images)`: the maps of images (N, 3, H, W) in [-1, 1] at the layers `config.taps`, finest first."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__(*layers(config.net, config.pool))
        self.config = config
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps at the taps; InputError for a layer that the network has not."""
        known = names(self.config.net)
        unknown = [tap for tap in self.config.taps if tap not in known]
        if unknown or not self.config.taps:
            raise InputError(f"{self.config.net} has no layer {', '.join(unknown) or '(none named)'}: its layers are {', '.join(known)}")
        wanted = [known.index(tap) for tap in self.config.taps]
        maps: dict[int, Tensor] = {}
        x = prepared(images, self.config.input)
        for index in range(max(wanted) + 1):
            x = self[index](x)
            if index in wanted:
                maps[index] = x
        return [maps[index] for index in wanted]

    def train(self, mode: bool = True) -> Vgg:  # noqa: ARG002 - the name is PyTorch's
        """Stay as it is: a frozen network's batch norm uses the statistics it came with."""
        return super().train(False)


def prepared(images: Tensor, how: Input) -> Tensor:
    """Turn images (N, 3, H, W), RGB in [-1, 1], into what a network of that convention was trained on."""
    if how == "signed":
        return images
    unit = (images + 1) / 2
    if how == "unit":
        return unit
    caffe = how == "caffe"
    mean, deviation = (CAFFE_MEAN, (1.0, 1.0, 1.0)) if caffe else (MEAN, DEVIATION)
    centre, spread = (images.new_tensor(each).view(1, 3, 1, 1) for each in (mean, deviation))
    return ((255 * unit.flip(1) if caffe else unit) - centre) / spread


def view(network: nn.Module, taps: Sequence[str], input: Input = "imagenet") -> nn.Module:
    """Return the same VGG, sharing its weights, with the layers and the convention of a certain loss.

    It takes this file's `Vgg` or the VGG trunk of LPIPS. Any other feature network (limn-identity) comes back as it is: its
    layers and its convention are its own.
    """
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)] if isinstance(network, nn.Sequential) else []
    if not convolutions or convolutions[0].kernel_size != (3, 3) or len(convolutions) not in (13, 16):
        return network
    normed = any(isinstance(layer, nn.BatchNorm2d) for layer in network.children())
    net: Net = {(13, False): "vgg16", (16, False): "vgg19", (13, True): "vgg16-bn", (16, True): "vgg19-bn"}[len(convolutions), normed]  # type: ignore[assignment]
    pool: Literal["max", "average"] = "average" if any(isinstance(layer, nn.AvgPool2d) for layer in network.children()) else "max"
    with torch.device("meta"):
        seen = Vgg(Config(net, input, tuple(taps), pool))
    for index, layer in enumerate(network.children()):
        seen[index] = layer
    return seen.eval()


def keys(net: str, layout: Literal["torchvision", "caffe"]) -> set[str]:
    """Return the names of a VGG's convolutions and norms in a published file: `features.0.weight`, or `conv1_1.weight`."""
    parameters = {"conv": ("weight", "bias"), "bn": ("weight", "bias", "running_mean", "running_var")}
    found: set[str] = set()
    for index, name in enumerate(names(net)):
        for parameter in parameters.get(name.rstrip("_0123456789"), ()):
            found.add(f"features.{index}.{parameter}" if layout == "torchvision" else f"{name}.{parameter}")
    return found


def net_of(state: State, layout: Literal["torchvision", "caffe"]) -> Net | None:
    """Tell the network whose very names these are, leaving the classifier and the counters of batches aside."""
    held = {name for name in state if not name.startswith(("classifier.", "fc")) and not name.endswith("num_batches_tracked")}
    nets: tuple[Net, ...] = ("vgg16", "vgg19", "vgg16-bn", "vgg19-bn")
    return next((net for net in nets if held == keys(net, layout)), None)


def config_of(state: State) -> Config:
    """Infer which VGG it is; layers and input convention are the loss's to choose, see `view`."""
    net = net_of(state, "torchvision") or net_of(state, "caffe")
    assert net is not None, "recognised by the same names"
    return Config(net, input="caffe" if "conv1_1.weight" in state else "imagenet")


def caffe_names(config: Config) -> list[tuple[str, str | None]]:
    """Number the layers that the Caffe layout names."""
    rows: list[tuple[str, str | None]] = [(rf"{name}\.(.+)", rf"{index}.\1") for index, name in enumerate(names(config.net))]
    return [*rows, (r"fc\d\..+", None)]


NETWORKS = {"features": Vgg}
PUBLISHED = [
    Published(
        "features",
        "torchvision",
        lambda state: net_of(state, "torchvision") is not None,
        config_of,
        Vgg,
        ((r"features\.(.+)", r"\1"), (r"classifier\..+", None)),
    ),
    Published("features", "caffe", lambda state: net_of(state, "caffe") is not None, config_of, Vgg, caffe_names),
]
HOST = "https://download.pytorch.org/models/"
CARD = Card(
    name="vgg",
    title="VGG-16 and VGG-19",
    chapter="perception",
    year=2014,
    arxiv="1409.1556",
    verbs=(),
    weights_licence="torchvision's ImageNet weights, BSD-3-Clause; ImageNet's own terms are for research",
    entries=(
        Entry(
            HOST + "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            553433881,
            "BSD-3-Clause",
            "vgg16",
        ),
        Entry(
            HOST + "vgg19-dcbb9e9d.pth",
            "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
            574673361,
            "BSD-3-Clause",
            "vgg19",
        ),
    ),
    source="pytorch/vision",
)

"""limn's own dense face mesh: 478 points in three dimensions from an aligned 128-pixel crop.

The topology is that of MediaPipe Face Mesh (Kartynnik, Ablavatski, Grishchenko, Grundmann: Real-time Facial Surface Geometry from
Monocular Video on Mobile GPUs, CVPR workshop 2019, arXiv 1907.06724): 468 points of the surface and 2 x 5 of the irises, z towards
the camera negative. A residual network looks at the crop, keeps where things are (an 8x8 map, flattened), and a narrow layer
before the last makes the points a learnt linear model of shapes.
Differs: nothing of its weights or code is used; trained on labels made with it. Reproduced: benchmarks/faces.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.models.perception.limn_detector import Convolution, Residual, folded_state
from limn.models.records import Adam, Card, Losses, Phase, Preset, Published, drawing

POINTS = 478
# The index of each point's mirror image: what left and right become when a picture is flipped
# fmt: off
MIRROR = (
    0, 1, 2, 248, 4, 5, 6, 249, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 250, 251, 252, 253, 254, 255, 256, 257, 258, 259, 260, 261,
    262, 263, 264, 265, 266, 267, 268, 269, 270, 271, 272, 273, 274, 275, 276, 277, 278, 279, 280, 281, 282, 283, 284, 285, 286, 287, 288,
    289, 290, 291, 292, 293, 294, 295, 296, 297, 298, 299, 300, 301, 302, 303, 304, 305, 306, 307, 308, 309, 310, 311, 312, 313, 314, 315,
    316, 317, 318, 319, 320, 321, 322, 323, 94, 324, 325, 326, 327, 328, 329, 330, 331, 332, 333, 334, 335, 336, 337, 338, 339, 340, 341,
    342, 343, 344, 345, 346, 347, 348, 349, 350, 351, 352, 353, 354, 355, 356, 357, 358, 359, 360, 361, 362, 363, 364, 365, 366, 367, 368,
    369, 370, 371, 372, 373, 374, 375, 376, 377, 378, 379, 151, 152, 380, 381, 382, 383, 384, 385, 386, 387, 388, 389, 390, 164, 391, 392,
    393, 168, 394, 395, 396, 397, 398, 399, 175, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417,
    418, 195, 419, 197, 420, 199, 200, 421, 422, 423, 424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 435, 436, 437, 438, 439, 440,
    441, 442, 443, 444, 445, 446, 447, 448, 449, 450, 451, 452, 453, 454, 455, 456, 457, 458, 459, 460, 461, 462, 463, 464, 465, 466, 467,
    3, 7, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84,
    85, 86, 87, 88, 89, 90, 91, 92, 93, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114,
    115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141,
    142, 143, 144, 145, 146, 147, 148, 149, 150, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 165, 166, 167, 169, 170, 171, 172,
    173, 174, 176, 177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191, 192, 193, 194, 196, 198, 201, 202, 203, 204,
    205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215, 216, 217, 218, 219, 220, 221, 222, 223, 224, 225, 226, 227, 228, 229, 230, 231,
    232, 233, 234, 235, 236, 237, 238, 239, 240, 241, 242, 243, 244, 245, 246, 247, 473, 476, 475, 474, 477, 468, 471, 470, 469, 472,
)
# fmt: on
LEFT_IRIS, RIGHT_IRIS = 468, 473  # the middles; left and right in the picture
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
        78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)  # fmt: skip
LEFT_LIDS = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
RIGHT_LIDS = tuple(MIRROR[index] for index in LEFT_LIDS)
TELLING = (*LIPS, *LEFT_LIDS, *RIGHT_LIDS, *range(468, POINTS))  # small movements of these carry the expression: they weigh more


@dataclass(frozen=True)
class Config:
    """Architecture."""

    size: int = 128  # side of the aligned crops, template "ffhq", pixels
    stem: int = 24  # channels at half the size
    widths: tuple[int, ...] = (48, 96, 128)  # channels at a quarter, an eighth and a sixteenth
    depths: tuple[int, ...] = (2, 3, 3)  # residual blocks at each
    kept: int = 32  # channels of the last map, which is flattened
    shapes: int = 160  # dimensions of the linear model of shapes
    folded: bool = False  # batch norms folded into the convolutions: for inference, `fold` makes it so


class Mesh(nn.Module):
    """(N, 3, size, size) in [-1, 1] -> (N, 478, 3), in units of half a crop from its middle."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        folded, channels = config.folded, config.stem
        layers: list[nn.Module] = [Convolution(3, channels, 2, folded=folded)]
        for width, depth in zip(config.widths, config.depths, strict=True):
            layers += [Convolution(channels, width, 2, folded=folded), *(Residual(width, folded) for _ in range(depth))]
            channels = width
        self.trunk = nn.Sequential(*layers, Convolution(channels, config.kept, kernel=1, folded=folded))
        self.narrow = nn.Linear(config.kept * (config.size // 2 ** (1 + len(config.widths))) ** 2, config.shapes)
        self.shape = nn.Linear(config.shapes, POINTS * 3)
        nn.init.normal_(self.shape.weight, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        return self.shape(F.relu(self.narrow(self.trunk(images).flatten(1)))).unflatten(1, (POINTS, 3))

    @torch.inference_mode()
    def landmarks(self, images: Tensor) -> Tensor:
        """Return points (N, 478, 3) in pixels of the crops (N, 3, S, S): x, y, and z (nearer is negative) in the same unit."""
        crops = images.to(self.shape.weight.dtype)
        if crops.shape[-1] != self.config.size:
            crops = F.interpolate(crops, (self.config.size, self.config.size), mode="bilinear", antialias=True, align_corners=False)
        units = self(crops.contiguous(memory_format=torch.channels_last)).float()
        return (units + units.new_tensor([1.0, 1.0, 0.0])) * (images.shape[-1] / 2)


def fold(network: Mesh) -> Mesh:
    """Return the same function with every batch norm folded into the convolution before it."""
    folded = Mesh(replace(network.config, folded=True))
    folded.load_state_dict(folded_state(network), strict=True)
    return folded.eval()


class MeshObjective:
    """What the mesh minimises: the absolute error of every point in units of the distance between the irises, telling ones thrice."""

    averaged = ("mesh",)

    def __init__(self, config: Config, lr: float = 2e-3, depth_weight: float = 0.5) -> None:
        self.networks = nn.ModuleDict({"mesh": Mesh(config)})
        self.lr, self.size = lr, config.size
        self.weight = torch.ones(POINTS, 3)
        self.weight[list(TELLING)] = 3.0
        self.weight[:, 2] *= depth_weight
        self.weight /= self.weight.mean()

    def phases(self) -> list[Phase]:
        """One player, one phase."""
        network = self.networks["mesh"]
        return [Phase("mesh", network.parameters, self.loss, Adam(self.lr, weight_decay=1e-3), clip=5.0)]

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> Losses:  # noqa: ARG002
        """Smooth L1, linear from two hundredths of the distance between the irises."""
        points = batch["points"]
        middle = points.new_tensor([1.0, 1.0, 0.0])
        off = (self.networks["mesh"](batch["image"]).float() + middle) * (self.size / 2) - points
        span = (points[:, LEFT_IRIS] - points[:, RIGHT_IRIS]).norm(dim=-1).clamp(min=self.size / 16)
        off = off / span[:, None, None]
        return {"points": 10 * (F.smooth_l1_loss(off, torch.zeros_like(off), reduction="none", beta=0.02) * self.weight.to(off)).mean()}


def objective(config: Config = Config(), seed: int = 0, **settings: Any) -> MeshObjective:
    """Build the network from a seed, without touching the global random state."""
    with drawing(seed):
        return MeshObjective(config, **settings)


NETWORKS = {"mesh": Mesh}

PRESETS = {
    "portraits128": Preset(
        Config(),
        data="mesh",
        batch=24,
        steps=3600,
        ema_kimg=5.0,
        decay="cosine",
        warmup=200,
        reaches="3.0 % of the distance between the irises on held-out people of portraits128, 10 minutes on one CPU thread",
    ),
}

PUBLISHED: list[Published] = []  # only our native layout

CARD = Card(
    name="limn-mesh",
    title="limn's dense face mesh of 478 points",
    chapter="perception",
    year=2026,
    arxiv="",
    verbs=("detect", "train"),
    weights_licence="Apache-2.0; trained on pictures under CC BY 3.0, CC BY 4.0, CC0 and in the public domain",
)

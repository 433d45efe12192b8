"""What shape a swapped face should have: the source's face in the target's pose, with the target's lips and lids.

The idea of Wang et al., HifiFace: 3D Shape and Semantic Prior Guided High Fidelity Face Swapping (IJCAI 2021, arXiv 2106.09965), with a
dense mesh of 478 points (MediaPipe's topology) in place of a morphable model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 128  # pixels at which a landmark network looks at a face
# Points that expressions hardly move: corners of the eyes, nose, temples and cheekbones, hairline
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 127, 356, 234, 454, 10, 109, 338, 67, 297, 54, 284, 103, 332)
# Lips, and lids with irises: they keep the target's shape, and move as a whole
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
        78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)  # fmt: skip
EYE_A = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7, *range(468, 473))
EYE_B = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249, *range(473, 478))
IRISES = (468, 473)
TELLING = 3.0  # weight of the points that carry the expression


def points(network: Any, images: Tensor) -> Tensor:
    """Return the points (N, 478, 3) of aligned images (N, 3, S, S), in half crops, with a gradient."""
    large = F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False)
    found: Tensor = network(large).float()
    return found


def posed(source: Tensor, target: Tensor) -> Tensor:
    """Return the source's points (N, P, 3) where the similarity of the rigid points brings them to the target's (Umeyama 1991)."""
    s, t = source[:, RIGID], target[:, RIGID]
    middle, centre = s.mean(1, keepdim=True), t.mean(1, keepdim=True)
    u, singular, v = torch.linalg.svd((t - centre).transpose(1, 2) @ (s - middle))
    sign = torch.ones_like(singular)
    sign[:, 2] = torch.det(u @ v).sign()
    turn = (u * sign[:, None]) @ v
    scale = (singular * sign).sum(1) / (s - middle).square().sum((1, 2))
    return scale[:, None, None] * (source - middle) @ turn.transpose(1, 2) + centre


@torch.no_grad()
def wanted(source: Tensor, target: Tensor) -> Tensor:
    """Return the points (N, 478, 3) that a swapped face should have."""
    with torch.autocast(source.device.type, enabled=False):
        shape = posed(source, target)
    for group in (LIPS, EYE_A, EYE_B):
        shift = (shape[:, group] - target[:, group]).mean(1, keepdim=True)
        shape[:, group] = target[:, group] + shift
    return shape


def distance(found: Tensor, shape: Tensor) -> Tensor:
    """Return the mean absolute distance (N,) of points (N, 478, 3) in distances between the irises; lips and lids weigh more."""
    unit = (shape[:, IRISES[0]] - shape[:, IRISES[1]]).norm(dim=-1).clamp_min(1e-3)
    weight = torch.ones(shape.shape[1], device=shape.device)
    weight[[*LIPS, *EYE_A, *EYE_B]] = TELLING
    return ((found - shape).abs().mean(2) * weight / weight.mean()).mean(1) / unit

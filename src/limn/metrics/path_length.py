"""Perceptual path length (Karras et al., arXiv 1812.04948, section 4.1): how abruptly images change along a path in latent space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 256  # pixels: larger images are averaged down to it before they are compared


@dataclass(frozen=True)
class Path:
    """How the path is walked; the published metric ppl2_wend is the default."""

    space: Literal["w", "z"] = "w"  # straight lines in W, or great circles in Z
    epsilon: float = 1e-4  # length of a step, of the whole path
    crop: bool = False  # look at the face of an FFHQ-like picture only


@torch.inference_mode()
def path_distances(
    mapping: Callable[[Tensor], Tensor],
    synthesis: Callable[[Tensor], Tensor],
    embed: Callable[[Tensor], Tensor],
    *,
    z: tuple[Tensor, Tensor],
    t: Tensor,
    path: Path = Path(),
) -> Tensor:
    """Return squared perceptual distances (N,) per squared step from t (N,) on the paths between z[0] and z[1], each (N, z_dim).

    `synthesis` makes images in [-1, 1] of W; `embed` takes pixels in [0, 255] to vectors whose squared distance is the perceptual one.
    Sampling "end" is t = 0, "full" is t uniform in [0, 1).
    """
    steps = (t, t + path.epsilon)
    if path.space == "w":
        w0, w1 = mapping(torch.cat(z)).chunk(2)
        ws = [torch.lerp(w0, w1, _column(step, w0)) for step in steps]
    else:
        ws = list(mapping(torch.cat([slerp(*z, _column(step, z[0])) for step in steps])).chunk(2))
    images = synthesis(torch.cat(ws))
    if path.crop:
        c = images.shape[2] // 8
        images = images[:, :, c * 3 : c * 7, c * 2 : c * 6]
    if images.shape[-1] > LARGEST:
        images = F.avg_pool2d(images, images.shape[-1] // LARGEST)
    first, second = embed((images + 1) * 127.5).chunk(2)
    return (first - second).square().sum(1) / path.epsilon**2


def path_length(distances: np.ndarray) -> float:
    """Return PPL: the mean of the distances (N,) between their 1st and 99th percentile, both included."""
    low = np.percentile(distances, 1, method="lower")
    high = np.percentile(distances, 99, method="higher")
    return float(np.asarray(distances, np.float64)[(distances >= low) & (distances <= high)].mean())


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Walk the great circle from a to b (N, D) by the share t (N, 1); the result has length 1."""
    a, b = F.normalize(a), F.normalize(b)
    cosine = (a * b).sum(1, keepdim=True)
    angle = t * torch.acos(cosine)
    return F.normalize(a * torch.cos(angle) + F.normalize(b - cosine * a) * torch.sin(angle))


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))

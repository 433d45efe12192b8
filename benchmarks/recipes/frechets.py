"""Fréchet distances of two sets of pictures: in the features of limn-identity, and between thumbnails, which show tone and colour."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.metrics.frechet import frechet
from limn.weights import load

SIDE = 128  # pixels at which the network looks


@torch.no_grad()
def frechet_limn(images: Tensor, others: Tensor) -> float:
    """Return the distance between images (N, 3, H, W) and others (M, 3, H, W) in [-1, 1], as `limn evaluate --metrics fd-limn` does."""
    network = load("limn-identity").model

    def described(pictures: Tensor) -> np.ndarray:
        fitted = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        return torch.cat([network.moments(part) for part in fitted.split(64)]).numpy()

    return frechet(described(images), described(others))


def frechet_thumbnails(images: Tensor, others: Tensor, side: int = 8) -> float:
    """Return the distance between the pictures' thumbnails of `side` pixels, in [-1, 1]: limn-identity hardly looks at colours."""

    def described(pictures: Tensor) -> np.ndarray:
        return F.adaptive_avg_pool2d(pictures, side).flatten(1).numpy()

    return frechet(described(images), described(others))


def crops(images: Tensor, side: int, step: int) -> Tensor:
    """Cut images (N, C, H, W) into squares (N K, C, side, side), `step` pixels apart: of a few pictures many."""
    squares = images.unfold(2, side, step).unfold(3, side, step)
    return squares.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1], side, side)

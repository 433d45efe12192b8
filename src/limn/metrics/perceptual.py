"""How different do two pictures look? Distances between unit-length deep features, as in LPIPS (Zhang et al., arXiv 1801.03924, eq. 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from limn.errors import InputError

Features = Callable[[Tensor], Sequence[Tensor]]  # images (N, 3, H, W) in [-1, 1] -> maps, finest first
SIZE = 128  # pixels at which limn-identity's maps are compared, whatever the size of the pictures


def distance(features: Features, images: Tensor, others: Tensor, size: int | None = SIZE) -> Tensor:
    """Return the LPIPS-like distance (N,) of images (N, 3, H, W) to others, in [-1, 1]: squared differences of unit features, unweighted.

    Differentiable. `features` is `limn-identity`'s for limn's own measure, stated as "perceptual (limn-identity)"; pictures are
    resized to `size` first, None leaves them as they are. It is not the number that papers call LPIPS: that is models/perception/lpips.
    """
    if images.shape != others.shape:
        raise InputError(f"perceptual distance compares images of one shape, not {tuple(images.shape)} with {tuple(others.shape)}")
    pair = [fit(picture, size) for picture in (images, others)]
    maps = zip(features(pair[0]), features(pair[1]), strict=True)
    layers = [(unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in maps]
    return torch.stack(layers).sum(0)


def unit(features: Tensor) -> Tensor:
    """Scale the channels of a map (N, C, H, W) to length 1 at every place."""
    features = features.float()
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def fit(images: Tensor, size: int | None) -> Tensor:
    """Resize images (N, 3, H, W) to (N, 3, size, size), antialiased; None leaves them."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)

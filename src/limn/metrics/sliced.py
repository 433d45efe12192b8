"""Sliced Wasserstein distance on Laplacian pyramids (ProGAN, Karras et al., arXiv 1710.10196, section 5): right textures, scale by scale.

Needs no network. Patches of 7x7 pixels of every level, normalised per colour and set, are projected on random directions, sorted, compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.errors import InputError

PATCH = 7  # pixels
PATCHES = 128  # of every image and level
DIRECTIONS = 128
REPEATS = 4
SMALLEST = 16  # pixels of the coarsest level
CHUNK = 64  # images whose patches are drawn together


@dataclass(frozen=True)
class SlicedWasserstein:
    """The distances x 1000 of ProGAN's tables, finest level first, by the size of the level in pixels."""

    levels: dict[int, float]

    @property
    def mean(self) -> float:
        """The mean over the levels: the one figure that is usually printed."""
        return sum(self.levels.values()) / len(self.levels)


def sliced_wasserstein(images: Tensor, others: Tensor, seed: int = 0) -> SlicedWasserstein:
    """Compare images (N, 3, S, S) with others (M, 3, S, S), any common range; of the larger set the first min(N, M) are taken."""
    if images.shape[1:] != others.shape[1:]:
        raise InputError(f"sliced Wasserstein compares images of one size, not {tuple(images.shape[1:])} with {tuple(others.shape[1:])}")
    count = min(len(images), len(others))
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (descriptors(each[:count].split(CHUNK), generator) for each in (images, others))
    return compare(ours, theirs, generator)


def descriptors(batches: Iterable[Tensor], generator: torch.Generator) -> dict[int, Tensor]:
    """Draw the patches of batches of images (n, C, S, S): size of the level -> (N * PATCHES, C * 49), mean 0 and deviation 1 per colour.

    Images are not kept. The draw depends on how the images are batched: CHUNK at a time is what `sliced_wasserstein` does.
    """
    drawn: dict[int, list[Tensor]] = {}
    for images in batches:
        for level in pyramid(images):
            drawn.setdefault(level.shape[-1], []).append(_draw(level, generator))
    return {size: _normalised(torch.cat(parts)) for size, parts in drawn.items()}


def compare(descriptors: dict[int, Tensor], others: dict[int, Tensor], generator: torch.Generator) -> SlicedWasserstein:
    """Return the distances between two sets of descriptors, level by level; of the larger set as many are taken as the smaller has."""
    if descriptors.keys() != others.keys():
        raise InputError(f"sliced Wasserstein compares images of one size, not {max(descriptors)} with {max(others)} pixels")
    count = min(len(next(iter(each.values()))) for each in (descriptors, others))
    return SlicedWasserstein({size: 1000 * _compare(descriptors[size][:count], others[size][:count], generator) for size in descriptors})


def pyramid(images: Tensor) -> Iterator[Tensor]:
    """Yield the levels of the Laplacian pyramid of images (N, C, S, S): S pixels first, the last is a plain small image."""
    images = images.float()
    while images.shape[-1] >= 2 * SMALLEST:
        small = _smooth(images)[:, :, ::2, ::2]
        yield images - enlarge(small)
        images = small
    yield images


def patches(level: Tensor, generator: torch.Generator) -> Tensor:
    """Draw PATCHES patches of every image of a level (N, C, S, S): (N * PATCHES, C * 49), mean 0 and deviation 1 per colour."""
    return _normalised(_draw(level, generator))


def _draw(level: Tensor, generator: torch.Generator) -> Tensor:
    """Draw patches as they are: (N, PATCHES, C, 49)."""
    n, channels, height, width = level.shape
    top = torch.randint(0, height - PATCH + 1, (n, PATCHES), generator=generator)
    left = torch.randint(0, width - PATCH + 1, (n, PATCHES), generator=generator)
    reach = torch.arange(PATCH)
    place = (top[..., None, None] + reach[:, None]) * width + left[..., None, None] + reach  # (N, PATCHES, 7, 7)
    index = place.view(n, 1, -1).expand(-1, channels, -1).to(level.device)
    return level.flatten(2).gather(2, index).view(n, channels, PATCHES, PATCH * PATCH).transpose(1, 2)


def _normalised(drawn: Tensor) -> Tensor:
    """Bring patches (N, PATCHES, C, 49) to mean 0 and deviation 1 per colour of the whole set: (N * PATCHES, C * 49)."""
    drawn = drawn - drawn.mean((0, 1, 3), keepdim=True)
    drawn /= drawn.square().mean((0, 1, 3), keepdim=True).sqrt().clamp_min(1e-8)
    return drawn.reshape(len(drawn) * PATCHES, -1)


def _compare(a: Tensor, b: Tensor, generator: torch.Generator) -> float:
    """Mean absolute difference of the sorted projections of descriptors (R, D) on unit directions."""
    total = 0.0
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in range(REPEATS):
            directions = F.normalize(torch.randn(a.shape[1], DIRECTIONS, generator=generator), dim=0).to(a.device)
            for part in directions.T.split(16):  # in parts, to bound the memory
                total += sum(pool.map(_apart, (part @ a.T).cpu().numpy(), (part @ b.T).cpu().numpy()))
    return total / (REPEATS * DIRECTIONS)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of sorted values: NumPy sorts several times faster than PyTorch, which also keeps the order, and beside others."""
    a.sort()
    b.sort()
    return float(np.abs(a - b).mean(dtype=np.float64))


def _kernel(images: Tensor) -> Tensor:
    taps = images.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    return torch.outer(taps, taps).expand(images.shape[1], 1, 5, 5)


def _smooth(images: Tensor, gain: float = 1.0) -> Tensor:
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), _kernel(images) * gain, groups=images.shape[1])


def enlarge(small: Tensor) -> Tensor:
    """Double (N, C, H, W) by zeros in between and the same smoothing: what the pyramid takes off each level."""
    n, channels, height, width = small.shape
    spread = small.new_zeros(n, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = small
    return _smooth(spread, 4.0)

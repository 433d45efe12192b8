"""Directions without labels: from the weights that read the style (SeFa) and from the spread of the styles (GANSpace).

Shen, Zhou: Closed-Form Factorization of Latent Semantics in GANs. CVPR 2021, arXiv 2007.06600.
Härkönen, Hertzmann, Lehtinen, Paris: GANSpace: Discovering Interpretable GAN Controls. NeurIPS 2020, arXiv 2004.02546.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limn.errors import InputError
from limn.models.generation.stylegan2 import Generator, ToRGB


@dataclass(frozen=True)
class Basis:
    """Principal components of samples (N, d), the widest first; signs are arbitrary."""

    mean: Tensor  # (d,)
    components: Tensor  # (k, d), unit rows
    stdev: Tensor  # (k,) standard deviation of the samples along each
    ratio: Tensor  # (k,) share of the whole variance


# -------------------------------------------------------------------------------------------------------------------- SeFa


def style_weights(generator: Generator, layers: Sequence[int] | None = None, to_rgb: bool = False) -> Tensor:
    """Stack the weights (channels, w_dim) of the styles that read the given layers of W+ (all where None)."""
    rows, index = [], 0
    for block in generator.synthesis.blocks:
        modulated = block.modulated()
        for step, layer in enumerate(modulated):
            paints = isinstance(layer, ToRGB)
            if (to_rgb or not paints) and (layers is None or index + step in layers):
                rows.append(layer.affine.weight.detach())
        index += sum(not isinstance(layer, ToRGB) for layer in modulated)
    if not rows:
        raise InputError(f"no style reads the layers {list(layers or [])}: this generator has the layers 0 to {generator.num_ws - 1}")
    return torch.cat(rows)


def factorise(weights: Tensor) -> tuple[Tensor, Tensor]:
    """SeFa: weights (channels, w_dim) -> unit directions (w_dim, w_dim) as rows and eigenvalues, the largest first.

    Every channel counts alike, whatever the size of its weights. The published tool leaves the eigenvectors unsorted.
    """
    unit = weights.double() / weights.double().norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(unit.T @ unit)
    return vectors.flip(1).T.to(weights), values.flip(0).to(weights)


def singular(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The variant of rosinality's StyleGAN2: right singular vectors (w_dim, w_dim) as rows of the weights as they are, and values."""
    _, values, vectors = torch.linalg.svd(weights, full_matrices=False)
    return vectors, values


# ---------------------------------------------------------------------------------------------------------------- GANSpace


def pca(samples: Tensor, components: int) -> Basis:
    """Principal components of samples (N, d) by one decomposition; deviations with divisor N."""
    mean = samples.double().mean(0)
    _, values, vectors = torch.linalg.svd(samples.double() - mean, full_matrices=False)
    variance = values.square() / len(samples)
    return _basis(mean, vectors, variance, variance.sum(), components)


def incremental_pca(batches: Iterable[Tensor], components: int) -> Basis:
    """Principal components of batches (n, d) that never lie in memory together; deviations with divisor N - 1.

    Each step decomposes the components so far, the new batch, and the shift between their means (Ross et al. 2008, as GANSpace uses it).
    """
    count, mean, total = 0, torch.zeros(()), torch.zeros(())
    kept = torch.zeros(())  # (k, d): components times their singular values
    for raw in batches:
        batch = raw.double()
        size, centre = len(batch), batch.mean(0)
        rows = batch - centre
        scatter = rows.square().sum(0)
        if count:
            shift = (mean - centre) * (count * size / (count + size)) ** 0.5
            rows, scatter = torch.cat([kept, rows, shift[None]]), total + scatter + shift.square()
        mean = centre if not count else (mean * count + centre * size) / (count + size)
        _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
        kept, total, count = values[:components, None] * vectors[:components], scatter, count + size
    if count < 2 or len(kept) < components:
        raise InputError(f"{count} samples are too few for {components} components: give larger batches")
    lengths = kept.norm(dim=1)
    variance = lengths.square() / (count - 1)
    return _basis(mean, kept / lengths[:, None].clamp_min(1e-30), variance, total.sum() / (count - 1), components)


def _basis(mean: Tensor, vectors: Tensor, variance: Tensor, total: Tensor, components: int) -> Basis:
    if components > len(vectors):
        raise InputError(f"{components} components are asked for, but the samples span {len(vectors)} at most")
    signs = vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()  # the largest entry positive: the same on every machine
    vectors, variance = (vectors * signs)[:components], variance[:components]
    return Basis(mean.float(), vectors.float(), variance.sqrt().float(), (variance / total).float())


def spread(components: Tensor, samples: Tensor) -> Tensor:
    """Standard deviation (k,) of samples (N, d) along components (k, d): what one sigma of an edit means."""
    return (samples @ components.T).std(0, unbiased=False)


def set_coordinate(w_plus: Tensor, basis: Basis, index: int, sigmas: float, layers: Sequence[int]) -> Tensor:
    """Put the coordinate of `layers` along a component to `sigmas` deviations from the mean: e4e's form of the GANSpace edit.

    The coordinate is read from layer 0 of W+ (N, num_ws, d), and all `layers` move by the same amount.
    """
    component = basis.components[index]
    now = (w_plus[:, 0] - basis.mean) @ component
    change = (sigmas * basis.stdev[index] - now)[:, None, None] * component
    mask = torch.zeros(w_plus.shape[1], 1, dtype=w_plus.dtype, device=w_plus.device)
    mask[list(layers)] = 1
    return w_plus + change * mask

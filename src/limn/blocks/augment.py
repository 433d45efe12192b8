"""ADA's augmentation pipe: differentiable image augmentations that a discriminator can be trained behind.

Karras, Aittala, Hellsten, Laine, Lehtinen, Aila: Training Generative Adversarial Networks with Limited Data. NeurIPS 2020,
arXiv 2006.06676, appendix B. Differs: padding and 2x up-sampling are one banded matrix per axis (the same numbers, and cheap on
a CPU), and samples whose drawn geometry is the identity skip the resampling, which would return them unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limn.errors import InputError

# The low-pass wavelet filters, normalised to a unit sum; an orthogonal wavelet makes up- then down-sampling the identity.
SYM6 = (
    0.0108923493, 0.0024683059, -0.0834316015, -0.0341615603, 0.3472289443, 0.5569463968,
    0.2389521748, -0.0513624810, -0.0148918740, 0.0316252783, 0.0012499610, -0.0055159335,
)  # fmt: skip
SYM2 = (-0.1294095226, 0.2241438680, 0.8365163037, 0.4829629131)  # sums to the square root of two
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected share of each band in natural images
TAPS = len(SYM6)
PAD = TAPS // 4  # pixels that the filter reaches beyond the picture


@dataclass(frozen=True)
class AugmentConfig:
    """Relative probability of each augmentation (0: never, 1: with the pipe's p), and its strength as published."""

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    imgfilter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    xint_max: float = 0.125  # share of the picture's side
    scale_std: float = 0.2  # of log2 of the factor
    rotate_max: float = 1.0  # 1: half a turn to either side
    aniso_std: float = 0.2  # of log2 of the factor
    xfrac_std: float = 0.125  # share of the picture's side
    brightness_std: float = 0.2
    contrast_std: float = 0.5  # of log2 of the factor
    hue_max: float = 1.0  # 1: half a turn to either side
    saturation_std: float = 1.0  # of log2 of the factor
    imgfilter_bands: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)  # relative probability of each octave
    imgfilter_std: float = 1.0  # of log2 of the gain
    noise_std: float = 0.1
    cutout_size: float = 0.5  # share of the picture's side


_BLIT: dict[str, Any] = {"xflip": 1, "rotate90": 1, "xint": 1}
_GEOM: dict[str, Any] = {"scale": 1, "rotate": 1, "aniso": 1, "xfrac": 1}
_COLOR: dict[str, Any] = {"brightness": 1, "contrast": 1, "lumaflip": 1, "hue": 1, "saturation": 1}

PRESETS = {
    "blit": AugmentConfig(**_BLIT),
    "geom": AugmentConfig(**_GEOM),
    "color": AugmentConfig(**_COLOR),
    "filter": AugmentConfig(imgfilter=1),
    "noise": AugmentConfig(noise=1),
    "cutout": AugmentConfig(cutout=1),
    "bg": AugmentConfig(**_BLIT, **_GEOM),
    "bgc": AugmentConfig(**_BLIT, **_GEOM, **_COLOR),
    "bgcf": AugmentConfig(**_BLIT, **_GEOM, **_COLOR, imgfilter=1),
    "bgcfn": AugmentConfig(**_BLIT, **_GEOM, **_COLOR, imgfilter=1, noise=1),
    "bgcfnc": AugmentConfig(**_BLIT, **_GEOM, **_COLOR, imgfilter=1, noise=1, cutout=1),
}


class _Draws:
    """The random parameters of one call: drawn, or all at one quantile of their distributions."""

    def __init__(self, count: int, p: float, device: torch.device, generator: torch.Generator | None, quantile: float | None) -> None:
        self.count, self.p, self.device, self.generator, self.quantile = count, p, device, generator, quantile

    def uniform(self) -> Tensor:
        """Draw (N,) in [0, 1)."""
        if self.quantile is not None:
            return torch.full((self.count,), float(self.quantile), device=self.device)
        assert self.generator is not None, "augmentation draws need a torch.Generator"
        return torch.rand(self.count, generator=self.generator, device=self.generator.device).to(self.device)

    def normal(self) -> Tensor:
        """Draw (N,); at a quantile, the published erfinv(2q - 1), which lacks the square root of two."""
        if self.quantile is not None:
            return torch.erfinv(self.uniform() * 2 - 1)
        assert self.generator is not None, "augmentation draws need a torch.Generator"
        return torch.randn(self.count, generator=self.generator, device=self.generator.device).to(self.device)

    def gate(self, value: Tensor, strength: float, neutral: float, probability: float | None = None) -> Tensor:
        """Keep each sample's value with probability strength * p, else set it to the neutral one."""
        if self.quantile is not None:
            return value
        chance = strength * self.p if probability is None else probability
        return torch.where(self.uniform() < chance, value, torch.full_like(value, neutral))


def _matrix(*rows: tuple[Tensor | float, ...], like: Tensor) -> Tensor:
    """Stack scalars and (N,) tensors into (N, R, C) matrices."""
    cells = [torch.as_tensor(cell, dtype=torch.float32, device=like.device).expand_as(like) for row in rows for cell in row]
    return torch.stack(cells, dim=-1).reshape(*like.shape, len(rows), -1)


def _translate(x: Tensor, y: Tensor) -> Tensor:
    return _matrix((1, 0, x), (0, 1, y), (0, 0, 1), like=x)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    return _matrix((x, 0, 0), (0, y, 0), (0, 0, 1), like=x)


def _rotate(theta: Tensor) -> Tensor:
    return _matrix((theta.cos(), -theta.sin(), 0), (theta.sin(), theta.cos(), 0), (0, 0, 1), like=theta)


def _rotation(draws: _Draws, config: AugmentConfig, last: bool) -> Tensor:
    """One of the two rotations around the anisotropic scale: together they happen with probability p."""
    theta = (draws.uniform() * 2 - 1) * (math.pi * config.rotate_max)
    if last and draws.quantile is not None:
        theta = torch.zeros_like(theta)
    chance = 1 - math.sqrt(min(max(1 - config.rotate * draws.p, 0), 1))
    return _rotate(draws.gate(theta, config.rotate, 0, probability=chance))


def inverse_geometry(draws: _Draws, config: AugmentConfig, height: int, width: int) -> Tensor:
    """Draw (N, 3, 3): output pixel to input pixel, both about the picture's centre (appendix B, blit and geometric)."""
    inverse = torch.eye(3, device=draws.device).repeat(draws.count, 1, 1)
    if config.xflip > 0:
        flip = draws.gate(torch.floor(draws.uniform() * 2), config.xflip, 0)
        inverse = inverse @ _scale(1 - 2 * flip, torch.ones_like(flip))
    if config.rotate90 > 0:
        inverse = inverse @ _rotate(draws.gate(torch.floor(draws.uniform() * 4), config.rotate90, 0) * (math.pi / 2))
    if config.xint > 0:
        keep = draws.gate(torch.ones(draws.count, device=draws.device), config.xint, 0)
        x, y = ((draws.uniform() * 2 - 1) * config.xint_max * keep for _ in range(2))
        inverse = inverse @ _translate(-torch.round(x * width), -torch.round(y * height))
    if config.scale > 0:
        factor = draws.gate(torch.exp2(-draws.normal() * config.scale_std), config.scale, 1)
        inverse = inverse @ _scale(factor, factor)
    if config.rotate > 0:
        inverse = inverse @ _rotation(draws, config, last=False)
    if config.aniso > 0:
        factor = draws.gate(torch.exp2(draws.normal() * config.aniso_std), config.aniso, 1)
        inverse = inverse @ _scale(1 / factor, factor)
    if config.rotate > 0:
        inverse = inverse @ _rotation(draws, config, last=True)
    if config.xfrac > 0:
        keep = draws.gate(torch.ones(draws.count, device=draws.device), config.xfrac, 0)
        x, y = (draws.normal() * config.xfrac_std * keep for _ in range(2))
        inverse = inverse @ _translate(-x * width, -y * height)
    return inverse


def colour_matrix(draws: _Draws, config: AugmentConfig) -> Tensor:
    """Draw (N, 4, 4): homogeneous RGB to RGB (appendix B, colour)."""
    eye = torch.eye(4, device=draws.device)
    luma = torch.tensor([1.0, 1.0, 1.0, 0.0], device=draws.device) / math.sqrt(3)
    grey = torch.outer(luma, luma)
    matrix = eye.repeat(draws.count, 1, 1)
    if config.brightness > 0:
        b = draws.gate(draws.normal() * config.brightness_std, config.brightness, 0)
        matrix = _matrix((1, 0, 0, b), (0, 1, 0, b), (0, 0, 1, b), (0, 0, 0, 1), like=b) @ matrix
    if config.contrast > 0:
        c = draws.gate(torch.exp2(draws.normal() * config.contrast_std), config.contrast, 1)
        matrix = _matrix((c, 0, 0, 0), (0, c, 0, 0), (0, 0, c, 0), (0, 0, 0, 1), like=c) @ matrix
    if config.lumaflip > 0:
        flip = draws.gate(torch.floor(draws.uniform() * 2), config.lumaflip, 0)
        matrix = (eye - 2 * grey * flip[:, None, None]) @ matrix
    if config.hue > 0:
        theta = draws.gate((draws.uniform() * 2 - 1) * (math.pi * config.hue_max), config.hue, 0)
        matrix = _about_grey(theta) @ matrix
    if config.saturation > 0:
        s = draws.gate(torch.exp2(draws.normal() * config.saturation_std), config.saturation, 1)
        matrix = (grey + (eye - grey) * s[:, None, None]) @ matrix
    return matrix


def _about_grey(theta: Tensor) -> Tensor:
    """Rotate colours about the grey axis (Rodrigues' formula for the axis (1, 1, 1) / sqrt(3))."""
    diagonal = (1 + 2 * theta.cos()) / 3
    before = (1 - theta.cos()) / 3 - theta.sin() / math.sqrt(3)
    after = (1 - theta.cos()) / 3 + theta.sin() / math.sqrt(3)
    return _matrix((diagonal, before, after, 0), (after, diagonal, before, 0), (before, after, diagonal, 0), (0, 0, 0, 1), like=theta)


class _Bilinear(torch.autograd.Function):
    """`grid_sample` (bilinear, zeros) whose gradient to the image can be differentiated again; PyTorch's own cannot."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = image.shape
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _BilinearTransposed.apply(grads[0], grid, ctx.size), None


class _BilinearTransposed(torch.autograd.Function):
    """The transpose of `_Bilinear`, which is linear in the image: its own gradient is `_Bilinear` again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        empty = grad.new_empty(1).expand(size)  # only its shape is read: the sampling is linear
        backward = torch.ops.aten.grid_sampler_2d_backward
        return backward(grad.contiguous(), empty, grid, 0, 0, False, [True, False])[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Bilinear.apply(grads[0], grid), None, None


def _margins(inverse: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """How many pixels (left, top, right, bottom) of mirrored border the whole batch looks at."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor([[-cx, cx, cx, -cx], [-cy, -cy, cy, cy], [1.0, 1.0, 1.0, 1.0]], device=inverse.device)
    seen = (inverse @ corners)[:, :2].transpose(0, 1).flatten(1)  # (x and y, every corner)
    reach = torch.cat([(-seen).amax(1), seen.amax(1)]) + torch.tensor([2 * PAD - cx, 2 * PAD - cy] * 2, device=inverse.device)
    limit = torch.tensor([width - 1, height - 1] * 2, device=inverse.device)
    left, top, right, bottom = torch.minimum(reach.clamp(min=0), limit).ceil().int().tolist()
    return left, top, right, bottom


def _up_matrix(size: int, before: int, after: int, taps: Tensor) -> Tensor:
    """(2 * padded, size): mirror the border, then up-sample twice with the filter (gain 2)."""
    padded = size + before + after
    source = torch.arange(-before, size + after, device=taps.device).abs()
    source = torch.where(source >= size, 2 * (size - 1) - source, source)
    tap = torch.arange(2 * padded, device=taps.device)[:, None] - 2 * torch.arange(padded, device=taps.device) + TAPS // 2 - 1
    weights = torch.where((tap >= 0) & (tap < TAPS), taps[tap.clamp(0, TAPS - 1)], 0.0)
    return torch.zeros(2 * padded, size, device=taps.device).index_add_(1, source, 2 * weights)


def _down_matrix(size: int, taps: Tensor) -> Tensor:
    """(size, 2 * (size + 2 PAD)): filter with the mirrored filter, keep every second sample, drop the border."""
    tap = torch.arange(2 * (size + 2 * PAD), device=taps.device) - 2 * torch.arange(size, device=taps.device)[:, None] - 1
    return torch.where((tap >= 0) & (tap < TAPS), taps[tap.clamp(0, TAPS - 1)], 0.0)


def resample(images: Tensor, inverse: Tensor, taps: Tensor, margins: tuple[int, int, int, int]) -> Tensor:
    """Move images (N, C, H, W) by (N, 3, 3): mirrored border, 2x up, bilinear, 2x down (appendix B.2)."""
    count, channels, height, width = images.shape
    left, top, right, bottom = margins
    large = _up_matrix(height, top, bottom, taps) @ images @ _up_matrix(width, left, right, taps).T
    rows, columns = 2 * (height + 2 * PAD), 2 * (width + 2 * PAD)

    def about(x: float, y: float, move: bool) -> Tensor:
        a, b = (torch.full((count,), value, device=images.device) for value in (x, y))
        return _translate(a, b) if move else _scale(a, b)

    inverse = about((left - right) / 2, (top - bottom) / 2, True) @ inverse  # the padded picture's centre
    inverse = about(2, 2, False) @ inverse @ about(0.5, 0.5, False)  # in pixels of the up-sampled picture
    inverse = about(-0.5, -0.5, True) @ inverse @ about(0.5, 0.5, True)
    inverse = about(2 / large.shape[3], 2 / large.shape[2], False) @ inverse @ about(columns / 2, rows / 2, False)
    grid = F.affine_grid(inverse[:, :2], [count, channels, rows, columns], align_corners=False)
    moved: Tensor = _Bilinear.apply(large, grid)
    return _down_matrix(height, taps) @ moved @ _down_matrix(width, taps).T


def recolour(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply (N, 4, 4) to images (N, 3, H, W), or its mean row to grey images (N, 1, H, W)."""
    if images.shape[1] == 1:
        row = matrix[:, :3].mean(1)
        return images * row[:, :3].sum(1)[:, None, None, None] + row[:, 3][:, None, None, None]
    if images.shape[1] != 3:
        raise InputError(f"colour augmentation got images of {images.shape[1]} channels; it needs 1 or 3 (use the preset 'bg')")
    return (matrix[:, :3, :3] @ images.flatten(2) + matrix[:, :3, 3:]).reshape(images.shape)


def _band_filters() -> Tensor:
    """(4, 43): impulse responses of the four octaves of the sym2 filter bank, which sum to a unit impulse."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)

    def convolve(a: Tensor, b: Tensor) -> Tensor:
        return F.conv1d(a.reshape(-1, 1, a.shape[-1]), b.flip(0).reshape(1, 1, -1), padding=len(b) - 1)[:, 0]

    low2, high2 = (convolve(f, f.flip(0))[0] / 2 for f in (low, high))
    bank = torch.eye(4, 1, dtype=torch.float64)
    for band in range(1, 4):
        bank = torch.stack([bank, torch.zeros_like(bank)], dim=2).flatten(1)[:, :-1]
        bank = convolve(bank, low2)
        start = (bank.shape[1] - len(high2)) // 2
        bank[band, start : start + len(high2)] += high2
    return bank.float()


def band_filter(images: Tensor, draws: _Draws, config: AugmentConfig, bank: Tensor) -> Tensor:
    """Amplify each octave by its own drawn gain, at constant expected power (appendix B.3)."""
    power = torch.tensor(BAND_POWER, device=images.device)
    gains = torch.ones(draws.count, 4, device=images.device)
    for band, strength in enumerate(config.imgfilter_bands):
        gain = torch.exp2(draws.normal() * config.imgfilter_std) if strength > 0 else torch.ones(draws.count, device=images.device)
        gain = draws.gate(gain, config.imgfilter * strength, 1)
        step = torch.ones_like(gains)
        step[:, band] = gain
        gains = gains * step / (power * step.square()).sum(-1, keepdim=True).sqrt()
    count, channels, height, width = images.shape
    taps = (gains @ bank).repeat_interleave(channels, 0)[:, None, None]  # (N C, 1, 1, 43)
    border = bank.shape[1] // 2
    planes = F.pad(images.reshape(1, count * channels, height, width), [border] * 4, mode="reflect")
    planes = F.conv2d(planes, taps, groups=count * channels)
    return F.conv2d(planes, taps.transpose(2, 3), groups=count * channels).reshape(images.shape)


def add_noise(images: Tensor, draws: _Draws, config: AugmentConfig, generator: torch.Generator | None) -> Tensor:
    """Add white noise whose strength is drawn per sample."""
    if generator is None:
        raise InputError("noise augmentation got generator=None; pass a torch.Generator")
    sigma = torch.erfinv(draws.uniform()) if draws.quantile is not None else draws.normal().abs()
    sigma = draws.gate(sigma * config.noise_std, config.noise, 0)
    noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
    return images + noise * sigma[:, None, None, None]


def cut_out(images: Tensor, draws: _Draws, config: AugmentConfig) -> Tensor:
    """Blacken (to 0, mid-grey) a square around a drawn centre."""
    size = draws.gate(torch.full((draws.count,), config.cutout_size, device=images.device), config.cutout, 0)[:, None]

    def outside(pixels: int) -> Tensor:
        place = (torch.arange(pixels, device=images.device) + 0.5) / pixels
        return (place - draws.uniform()[:, None]).abs() >= size / 2

    columns, rows = outside(images.shape[3]), outside(images.shape[2])
    return images * (columns[:, None, None, :] | rows[:, None, :, None])


class Augment(nn.Module):
    """The augmentation pipe; buffer `p` is the probability that the training loop adapts.

    forward: images (N, C, H, W) in [-1, 1] -> the same shape and type, differentiable twice with respect to the images.
    `generator` draws the parameters of every sample; with `quantile` (0 to 1) every augmentation is applied to every sample at
    that quantile of its distribution instead, and p is ignored. Raises InputError without either.
    """

    p: Tensor
    Hz_geom: Tensor
    Hz_fbank: Tensor

    def __init__(self, config: AugmentConfig = PRESETS["bgc"], p: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("Hz_geom", torch.tensor(SYM6))  # these two bear their published names, for snapshots that hold them
        self.register_buffer("Hz_fbank", _band_filters())

    def forward(self, images: Tensor, generator: torch.Generator | None = None, quantile: float | None = None) -> Tensor:
        if generator is None and quantile is None:
            raise InputError("Augment got neither generator nor quantile; pass a torch.Generator")
        p = float(self.p)
        if p == 0 and quantile is None:
            return images
        draws = _Draws(len(images), p, images.device, generator, quantile)
        with torch.autocast(images.device.type, enabled=False):
            return self._apply_all(images.float(), draws).to(images.dtype)

    def _apply_all(self, images: Tensor, draws: _Draws) -> Tensor:
        config = self.config
        height, width = images.shape[2:]
        if any((config.xflip, config.rotate90, config.xint, config.scale, config.rotate, config.aniso, config.xfrac)):
            images = self._move(images, inverse_geometry(draws, config, height, width))
        if any((config.brightness, config.contrast, config.lumaflip, config.hue, config.saturation)):
            images = recolour(images, colour_matrix(draws, config))
        if config.imgfilter > 0:
            images = band_filter(images, draws, config, self.Hz_fbank)
        if config.noise > 0:
            images = add_noise(images, draws, config, draws.generator)
        return cut_out(images, draws, config) if config.cutout > 0 else images

    def _move(self, images: Tensor, inverse: Tensor) -> Tensor:
        """Resample the samples that move at all; margins are those of the whole batch, as published."""
        moved = (inverse != torch.eye(3, device=inverse.device)).flatten(1).any(1).nonzero()[:, 0]
        if len(moved) == 0:
            return images
        margins = _margins(inverse, images.shape[2], images.shape[3])
        if len(moved) == len(images):
            return resample(images, inverse, self.Hz_geom, margins)
        return images.index_copy(0, moved, resample(images[moved], inverse[moved], self.Hz_geom, margins))

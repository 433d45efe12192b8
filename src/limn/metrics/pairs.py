"""How near is a picture to the true one? PSNR, PSNR-B, SSIM and MS-SSIM, each by the library whose convention it follows.

The same two pictures give SSIM from 0.66 to 0.77 depending on window, border, variance and channels: name the convention with the number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.errors import InputError


@dataclass(frozen=True)
class Window:
    """How SSIM averages around a pixel."""

    kind: Literal["gaussian", "uniform"] = "gaussian"
    width: int = 11  # pixels
    sigma: float = 1.5  # pixels, of the Gaussian
    sample: bool = False  # variances over n - 1 instead of n
    border: Literal["valid", "reflect"] = "valid"  # leave out pixels whose window leaves the picture, or mirror the picture


CONVENTIONS: dict[str, Window] = {
    "basicsr": Window(),  # also SwinIR's, and scikit-image with gaussian_weights, sigma 1.5 and population variances
    "skimage": Window("uniform", 7, sample=True),  # scikit-image's defaults
    "torchmetrics": Window(border="reflect"),
    "torchmetrics-uniform": Window("uniform", 7, border="reflect"),
}
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003, section 3.2
AT_ONCE = 2**17  # pixels of a batch that are averaged together, so that they stay in the processor's cache
REACH = 32  # averages of a row that one product takes


def psnr(images: Tensor, others: Tensor, crop: int = 0, luma: bool = False, floor: float = 0.0) -> Tensor:
    """Return PSNR (N,) in dB of images (N, C, H, W) in [-1, 1]; infinite for equal ones.

    `crop` leaves out so many pixels at each border, `luma` compares Y alone (RGB -> 16..235), `floor` is added to the mean square on
    [0, 1] (BasicSR's torch version: 1e-8).
    """
    a, b = _pixels(images, others, crop, luma)
    error = (a - b).square().mean((1, 2, 3)) / 255**2
    return -10 * torch.log10(error + floor)


def psnr_b(images: Tensor, others: Tensor, crop: int = 0, luma: bool = False) -> Tensor:
    """Return PSNR-B (N,): PSNR that also counts the edges of 8x8 blocks in `images` (Yim, Bovik 2011); the mean over channels."""
    a, b = _pixels(images, others, crop, luma)
    error = (a - b).square().mean((2, 3)) / 255**2
    return (-10 * torch.log10(error + _blocking(a / 255))).mean(1)


def ssim(images: Tensor, others: Tensor, convention: str = "basicsr", crop: int = 0, luma: bool = False) -> Tensor:
    """Return SSIM (N,) of images (N, C, H, W) in [-1, 1], the mean over channels, by one of CONVENTIONS."""
    window = _window(convention)
    return torch.cat([_ssim(a, b, window) for a, b in _parts(*_pixels(images, others, crop, luma))])


def ms_ssim(images: Tensor, others: Tensor, scales: int = 5, luma: bool = False) -> Tensor:
    """Return MS-SSIM (N,), the mean over channels: Gaussian windows, halved by averaging from scale to scale; weights renormalised below 5.

    Five scales need 176 pixels a side, four 88, three 44.
    """
    needed = 11 * 2 ** (scales - 1)
    if min(images.shape[-2:]) < needed:
        raise InputError(f"MS-SSIM with {scales} scales needs {needed} pixels a side, not {min(images.shape[-2:])}: use fewer scales")
    return torch.cat([_ms_ssim(a, b, scales) for a, b in _parts(*_pixels(images, others, 0, luma))])


def _parts(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    count = max(1, AT_ONCE // (a.shape[-1] * a.shape[-2]))
    return zip(a.split(count), b.split(count), strict=True)


def _ssim(a: Tensor, b: Tensor, window: Window) -> Tensor:
    luminance, structure = _maps(a, b, window)
    return (luminance * structure).mean((1, 2, 3))


def _ms_ssim(a: Tensor, b: Tensor, scales: int) -> Tensor:
    weights = np.array(MS_WEIGHTS[:scales]) / sum(MS_WEIGHTS[:scales])
    product = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
    for index, weight in enumerate(weights):
        luminance, structure = _maps(a, b, CONVENTIONS["basicsr"])
        quality = structure if index < scales - 1 else luminance * structure
        product = product * quality.mean((2, 3)).clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product.mean(1)


def luma(pixels: Tensor) -> Tensor:
    """Return Y (N, 1, H, W) in 16..235 of RGB pixels (N, 3, H, W) in 0..255, not rounded (ITU-R BT.601 as Matlab's rgb2ycbcr)."""
    weights = pixels.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1) / 255
    return (pixels * weights).sum(1, keepdim=True) + 16


def _pixels(images: Tensor, others: Tensor, crop: int, y: bool) -> tuple[Tensor, Tensor]:
    """Bring both to 0..255 in float32, or in float64 if they are, cropped, as Y where asked."""
    if images.shape != others.shape:
        raise InputError(f"pictures of one shape are compared, not {tuple(images.shape)} with {tuple(others.shape)}")
    kind = torch.promote_types(torch.promote_types(images.dtype, others.dtype), torch.float32)
    pair = [(picture.to(kind) + 1) * 127.5 for picture in (images, others)]
    if y:
        pair = [luma(picture) for picture in pair]
    height, width = images.shape[-2:]
    a, b = (picture[:, :, crop : height - crop, crop : width - crop] for picture in pair)
    return a, b


def _window(convention: str) -> Window:
    if convention not in CONVENTIONS:
        raise InputError(f"there is no SSIM convention {convention!r}: use one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention]


def _maps(a: Tensor, b: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Return the luminance and the contrast-structure map (N, C, H', W') of pictures in 0..255 (Wang et al. 2004, eq. 6 and 13)."""
    if min(a.shape[-2:]) < window.width:
        raise InputError(f"SSIM looks through windows of {window.width} pixels: pictures of {tuple(a.shape[-2:])} are too small")
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    of_a, of_b = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
    a, b = a - of_a, b - of_b  # squares of values near zero keep their digits
    mean_a, mean_b, squares, products = _average(torch.stack([a, b, a * a + b * b, a * b]), window)
    gain = window.width**2 / (window.width**2 - 1) if window.sample else 1.0
    variance = gain * (squares - mean_a.square() - mean_b.square())
    covariance = gain * (products - mean_a * mean_b)
    mean_a, mean_b = mean_a + of_a, mean_b + of_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return luminance, (2 * covariance + c2) / (variance + c2)


def _average(x: Tensor, window: Window) -> Tensor:
    """Average (..., C, H, W) around every pixel by two passes of a one-dimensional window."""
    half = window.width // 2
    if window.border == "reflect":
        x = F.pad(x.flatten(0, -4), (half, half, half, half), mode="reflect").reshape(*x.shape[:-2], x.shape[-2] + 2 * half, -1)
    taps = torch.arange(-half, half + 1, dtype=x.dtype, device=x.device)
    taps = torch.exp(-taps.square() / (2 * window.sigma**2)) if window.kind == "gaussian" else torch.ones_like(taps)
    taps = taps / taps.sum()
    return _along(_along(x, taps).transpose(-1, -2), taps).transpose(-1, -2)


def _along(x: Tensor, taps: Tensor) -> Tensor:
    """Average (..., L) with taps (K,): (..., L - K + 1). By products with banded matrices: on a CPU much faster than a convolution."""
    width, count = len(taps), x.shape[-1] - len(taps) + 1
    offset = torch.arange(REACH + width - 1, device=x.device)[:, None] - torch.arange(REACH, device=x.device)
    band = torch.where((offset >= 0) & (offset < width), taps[offset.clamp(0, width - 1)], torch.zeros_like(taps[0]))
    parts = []
    for start in range(0, count, REACH):
        size = min(REACH, count - start)
        parts.append(x[..., start : start + size + width - 1] @ band[: size + width - 1, :size])
    return torch.cat(parts, -1)


def _blocking(x: Tensor, block: int = 8) -> Tensor:
    """Return the blocking effect (N, C) of pictures in [0, 1]: how much greater steps at block edges are than elsewhere."""
    height, width = x.shape[-2:]
    across, down = x.diff(dim=3).square().sum((2,)), x.diff(dim=2).square().sum((3,))  # (N, C, W - 1), (N, C, H - 1)
    edges_x = torch.arange(block - 1, width - 1, block, device=x.device)
    edges_y = torch.arange(block - 1, height - 1, block, device=x.device)
    at = across[..., edges_x].sum(-1) + down[..., edges_y].sum(-1)
    elsewhere = across.sum(-1) + down.sum(-1) - at
    count_x, count_y = height * (width // block - 1), width * (height // block - 1)  # as published, also for odd sizes
    at = at / (count_x + count_y)
    elsewhere = elsewhere / (height * (width - 1) - count_x + width * (height - 1) - count_y)
    strength = np.log2(block) / np.log2(min(height, width))
    return torch.where(at > elsewhere, strength * (at - elsewhere), torch.zeros_like(at))

"""What restorers learn to undo: blur, small size, noise, compression, lost colour, drawn at random for a batch at a time.

Wang et al.: Towards Real-World Blind Face Restoration with Generative Facial Prior (GFPGAN, arXiv 2101.04061), eq. 1, and
Real-ESRGAN (arXiv 2107.10833), section 3: kernels, and the chain of two degradations. All randomness is the caller's generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from limn.blocks.jpeg import jpeg

Range = tuple[float, float]
GREY = (0.299, 0.587, 0.114)  # BT.601


def uniform(rng: torch.Generator, among: Range, *shape: int) -> Tensor:
    """Draw evenly between two numbers, on the CPU."""
    low, high = among
    return low + (high - low) * torch.rand(*shape, generator=rng, device=rng.device).cpu()


# ---------------------------------------------------------------------------------------------------------------- kernels


def bumps(size: int, sigma_x: Tensor, sigma_y: Tensor, turn: Tensor, beta: Tensor | None = None, plateau: bool = False) -> Tensor:
    """Kernels (N, size, size) of sum 1 for widths (pixels) and turns (radians) of (N,): Gaussian, generalised by `beta`, or plateau.

    With d the squared distance in units of the widths: exp(-d/2), exp(-d^beta/2), or 1/(1 + d^beta).
    """
    steps = torch.arange(size, dtype=torch.float32) - size // 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    cos, sin = (part[:, None, None] for part in (turn.cos(), turn.sin()))
    along, across = (cos * x + sin * y) / sigma_x[:, None, None], (cos * y - sin * x) / sigma_y[:, None, None]
    distance = along**2 + across**2
    powered = distance if beta is None else distance ** beta[:, None, None]
    kernels = 1 / (1 + powered) if plateau else (-0.5 * powered).exp()
    return kernels / kernels.sum((1, 2), keepdim=True)


def sinc(size: int, cutoff: Tensor, pad_to: int = 0) -> Tensor:
    """Circular low-pass kernels (N, pad_to or size, ...) that ring as over-sharpened pictures do; `cutoff` (N,) in radians per pixel."""
    steps = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    radius = torch.hypot(*torch.meshgrid(steps, steps, indexing="ij"))
    edge = cutoff.double()[:, None, None]
    rings = edge * torch.special.bessel_j1(edge * radius) / (2 * math.pi * radius)
    kernels = torch.where(radius == 0, edge**2 / (4 * math.pi), rings)
    kernels = (kernels / kernels.sum((1, 2), keepdim=True)).float()
    spare = max(pad_to - size, 0) // 2
    return F.pad(kernels, (spare, spare, spare, spare))


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate every image of (N, C, H, W) with its kernel of (N or 1, K, K), K odd; borders are mirrored without repeating the edge."""
    count, channels = images.shape[:2]
    half = kernels.shape[-1] // 2
    padded = F.pad(images, (half, half, half, half), mode="reflect")
    weights = kernels.to(images).expand(count, -1, -1).repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded.reshape(1, count * channels, *padded.shape[2:]), weights, groups=count * channels).reshape(images.shape)


def sharpened(images: Tensor, weight: float = 0.5, threshold: float = 10.0, radius: int = 50, sigma: float = 0.0) -> Tensor:
    """Unsharp mask on (N, C, H, W) in [0, 1] where it changes more than `threshold` levels of 255: Real-ESRGAN's ground truth."""
    size = radius + 1 - radius % 2
    sigma = sigma or 0.3 * ((size - 1) * 0.5 - 1) + 0.8  # OpenCV's rule
    line = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float32) - size // 2) / sigma) ** 2)
    line = line / line.sum()

    def blur(x: Tensor) -> Tensor:
        half, channels = size // 2, x.shape[1]
        padded = F.pad(x, (half, half, half, half), mode="reflect")
        weights = line.to(x).expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(padded, weights, groups=channels), weights.transpose(2, 3), groups=channels)

    residual = images - blur(images)
    soft = blur((residual.abs() * 255 > threshold).to(images.dtype))
    return images + soft * ((images + weight * residual).clamp(0, 1) - images)


# ------------------------------------------------------------------------------------------------------------------ noise


def gaussian_noise(images: Tensor, sigma: Tensor, grey: Tensor, rng: torch.Generator) -> Tensor:
    """Add noise of `sigma` (N,) levels of 255 to (N, 3, H, W); where `grey` (N,) is true all channels get the same."""
    noise = torch.randn(images.shape, generator=rng, device=rng.device).to(images)
    noise = torch.where(grey[:, None, None, None], noise[:, :1], noise)
    return images + noise * (sigma[:, None, None, None] / 255)


def poisson_noise(images: Tensor, scale: Tensor, grey: Tensor, rng: torch.Generator) -> Tensor:
    """Add `scale` (N,) times the noise that counting photons of (N, 3, H, W) in [0, 1] brings, grey where `grey` (N,) is true."""
    luma = (images * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    base = torch.where(grey[:, None, None, None], luma, images).clamp(0, 1).mul(255).round() / 255
    values = torch.tensor([len(image.unique()) for image in base], dtype=torch.float32)
    photons = (2 ** values.log2().ceil())[:, None, None, None]
    noise = torch.poisson(base * photons, generator=rng) / photons - base
    return images + noise * scale[:, None, None, None]


def resized(images: Tensor, size: Sequence[int], mode: str = "bilinear") -> Tensor:
    """Resize without anti-aliasing, as the published pipelines do."""
    if mode == "area":
        return F.interpolate(images, size=tuple(size), mode="area")
    return F.interpolate(images, size=tuple(size), mode=mode, align_corners=False)


def chance(rng: torch.Generator, probability: float, count: int) -> Tensor:
    """Draw (count,) booleans."""
    return uniform(rng, (0.0, 1.0), count) < probability


# ------------------------------------------------------------------------------------------------------------- faces, once


@dataclass(frozen=True)
class Faces:
    """Ranges of a face degradation: blur, down-sampling, noise, JPEG, loss of colour."""

    kernel: int = 41  # pixels
    sigma: Range = (0.1, 10.0)  # pixels of the blur; half of the kernels are round
    scale: Range = (0.8, 8.0)  # by which the picture is made smaller
    noise: Range = (0.0, 20.0)  # levels of 255
    grey_noise: float = 0.0  # share of pictures whose noise has no colour
    quality: Range = (60.0, 100.0)  # of JPEG
    grey: float = 0.01  # share of pictures that lose their colour
    parts: int = 4  # of a batch, each with a scale of its own


FACES = {
    "gfpgan": Faces(),
    "gpen": Faces(grey=0.2),
    "codeformer": Faces(scale=(1.0, 12.0), noise=(0.0, 15.0), grey=0.0),
    "portraits128": Faces(13, (0.1, 2.5), (1.0, 8.0), (0.0, 20.0), 0.4, (30.0, 100.0), 0.25),
    "portraits64": Faces(9, (0.1, 1.6), (1.0, 5.0), (0.0, 20.0), 0.4, (30.0, 100.0), 0.25),
}


def degraded_faces(images: Tensor, ranges: Faces, rng: torch.Generator) -> Tensor:
    """Degrade aligned faces (N, 3, S, S) in [-1, 1] and bring them back to their size: GFPGAN, eq. 1."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        pictures = (images.float() + 1) / 2
        parts = [degraded_part(part, ranges, rng) for part in pictures.chunk(min(ranges.parts, len(images)))]
        return (torch.cat(parts) * 2 - 1).to(memory_format=torch.channels_last)


def degraded_part(images: Tensor, ranges: Faces, rng: torch.Generator) -> Tensor:
    """Degrade images (N, 3, H, W) in [0, 1] at one scale."""
    count, (height, width) = len(images), images.shape[2:]
    sigmas = uniform(rng, ranges.sigma, 2, count)
    round_ = chance(rng, 0.5, count)
    kernels = bumps(ranges.kernel, sigmas[0], torch.where(round_, sigmas[0], sigmas[1]), uniform(rng, (-math.pi, math.pi), count))
    scale = float(uniform(rng, ranges.scale, 1))
    small = resized(filtered(images, kernels), (int(height // scale), int(width // scale)))
    sigma, grey = uniform(rng, ranges.noise, count), chance(rng, ranges.grey_noise, count)
    noisy = gaussian_noise(small, sigma, grey, rng).clamp(0, 1)
    worn = resized(jpeg(noisy, uniform(rng, ranges.quality, count)), (height, width))
    colourless = chance(rng, ranges.grey, count).to(images.device)[:, None, None, None]
    return torch.where(colourless, luma_of(worn), worn).clamp(0, 1).mul(255).round() / 255


def luma_of(images: Tensor) -> Tensor:
    """Return (N, 3, H, W) with the luma of every pixel in all three channels."""
    weights = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True).expand_as(images)


# ---------------------------------------------------------------------------------------------- pictures, twice (Real-ESRGAN)


@dataclass(frozen=True)
class Order:
    """One of the two rounds of Real-ESRGAN's degradation."""

    blur: float  # probability
    sigma: Range
    resize: tuple[float, float, float]  # probabilities of up, down, keep
    scale: Range
    noise: Range  # of Gaussian noise, levels of 255; half of the batches
    poisson: Range  # scale of Poisson noise: the other half
    quality: Range = (30.0, 95.0)
    grey_noise: float = 0.4
    sinc: float = 0.1  # probability of a sinc kernel instead


FIRST = Order(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Order(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))
KINDS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)  # round, long, generalised round and long, plateau round and long
FINAL_SINC = 0.8
LARGEST = 21  # pixels of a kernel
MODES = ("area", "bilinear", "bicubic")


def drawn_kernels(count: int, order: Order, rng: torch.Generator) -> Tensor:
    """Draw kernels (N, 21, 21) of six kinds, or sinc, of odd sizes from 7."""
    kernels = []
    for kind in torch.multinomial(torch.tensor(KINDS), count, replacement=True, generator=rng).tolist():
        size = 7 + 2 * int(uniform(rng, (0.0, 8.0), 1))
        x, y = uniform(rng, order.sigma, 2)
        long = kind % 2 == 1
        if float(uniform(rng, (0.0, 1.0), 1)) < order.sinc:
            least = math.pi / 3 if size < 13 else math.pi / 5
            kernels.append(sinc(size, uniform(rng, (least, math.pi), 1), LARGEST)[0])
            continue
        beta = uniform(rng, (0.5, 4.0) if kind in (2, 3) else (1.0, 2.0), 1)
        turn = uniform(rng, (-math.pi, math.pi), 1) if long else torch.zeros(1)
        kernel = bumps(size, x[None], (y if long else x)[None], turn, None if kind < 2 else beta, kind > 3)[0]
        spare = (LARGEST - size) // 2
        kernels.append(F.pad(kernel, (spare, spare, spare, spare)))
    return torch.stack(kernels)


def one_round(images: Tensor, order: Order, rng: torch.Generator, base: Sequence[int]) -> Tensor:
    """Blur, resize relative to `base` (height, width) and add noise: images (N, 3, H, W) in [0, 1]. Size, kind of noise: per batch."""
    if float(uniform(rng, (0.0, 1.0), 1)) < order.blur:
        images = filtered(images, drawn_kernels(len(images), order, rng))
    way = int(torch.multinomial(torch.tensor(order.resize), 1, generator=rng))
    scale = float(uniform(rng, ((1.0, order.scale[1]), (order.scale[0], 1.0), (1.0, 1.0))[way], 1))
    mode = MODES[int(uniform(rng, (0.0, 3.0), 1))]
    images = resized(images, [max(int(side * scale), 1) for side in base], mode)
    grey = chance(rng, order.grey_noise, len(images))
    if float(uniform(rng, (0.0, 1.0), 1)) < 0.5:
        return gaussian_noise(images, uniform(rng, order.noise, len(images)), grey, rng).clamp(0, 1)
    return poisson_noise(images, uniform(rng, order.poisson, len(images)), grey, rng).clamp(0, 1)


def degraded_twice(images: Tensor, scale: int, rng: torch.Generator, orders: tuple[Order, Order] = (FIRST, SECOND)) -> Tensor:
    """Degrade pictures (N, 3, H, W) in [0, 1] to (N, 3, H / scale, W / scale): Real-ESRGAN, figure 2."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        count, (height, width) = len(images), images.shape[2:]
        small = (height // scale, width // scale)
        once = one_round(images.float(), orders[0], rng, (height, width))
        once = jpeg(once, uniform(rng, orders[0].quality, count))
        twice = one_round(once, orders[1], rng, small)
        quality, mode = uniform(rng, orders[1].quality, count), MODES[int(uniform(rng, (0.0, 3.0), 1))]
        rings = sinc(LARGEST, uniform(rng, (math.pi / 3, math.pi), count))
        still = torch.zeros(1, LARGEST, LARGEST)
        still[:, LARGEST // 2, LARGEST // 2] = 1
        kernels = torch.where(chance(rng, FINAL_SINC, count)[:, None, None], rings, still)
        if float(uniform(rng, (0.0, 1.0), 1)) < 0.5:
            worn = jpeg(filtered(resized(twice, small, mode), kernels).clamp(0, 1), quality)
        else:
            worn = filtered(resized(jpeg(twice, quality), small, mode), kernels)
        return worn.clamp(0, 1).mul(255).round() / 255

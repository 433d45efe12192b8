"""The restorer of portraits: PSNR against what bicubic enlargement gives, and likeness, on people held out.

Two tasks: `quarter` (a quarter of the size, then blur, noise of 10 levels and JPEG 60: a mean old photograph) and `drawn` (worn as in
training, with another seed). Both figures of PSNR are over all channels, without a crop, of pictures rounded to bytes.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from limn.blocks.degradation import FACES, bumps, degraded_faces, filtered, gaussian_noise, luma_of
from limn.blocks.jpeg import jpeg
from limn.models.records import seeded
from limn.training.datasets import open_dataset
from limn.weights import load

DATA = "portraits128.zip"
PRESET = "portraits128"
OPTIONS = ()
COLOURED = ["era=modern", "chroma>2"]


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return PSNR in dB and the cosine of identity (limn-identity, which training looked at) of restored and of resampled portraits."""
    loaded, who = load(model, part="generator"), load("limn-identity").model
    size = loaded.config.size
    held = open_dataset("images", data, loaded.config, False, where=COLOURED)
    images = torch.cat([held.batch(step, 1, 0)["image"] for step in range(len(held))])
    quarter = worn_quarter(images)
    figures = {"people": float(len(images))}
    for name, worn in (("quarter", quarter), ("drawn", degraded_faces(images, FACES[f"portraits{size}"], seeded(1)))):
        made = torch.cat([loaded.model.restore(part) for part in worn.split(16)])
        figures |= {f"psnr_{name}": psnr(made, images), f"psnr_{name}_resampled": psnr(worn, images)}
        figures |= {f"identity_{name}": likeness(who, made, images), f"identity_{name}_resampled": likeness(who, worn, images)}
    greys = luma_of((images + 1) / 2) * 2 - 1
    made = torch.cat([loaded.model.restore(part) for part in greys.split(16)])
    return figures | {"colour_error": chroma_error(made, images), "colour_error_grey": chroma_error(greys, images)}


def worn_quarter(images: Tensor) -> Tensor:
    """Blur, take every fourth pixel, add noise, compress, and enlarge again bicubically, in [-1, 1]."""
    unit, count = (images + 1) / 2, len(images)
    sigma = torch.full((count,), images.shape[-1] / 128 * 1.4)
    small = filtered(unit, bumps(13, sigma, sigma, torch.zeros(count)))[:, :, 1::4, 1::4]
    noisy = gaussian_noise(small, torch.full((count,), 10.0), torch.zeros(count, dtype=torch.bool), seeded(0)).clamp(0, 1)
    coded = jpeg(noisy, torch.full((count,), 60.0))
    return F.interpolate(coded, size=images.shape[2:], mode="bicubic", align_corners=False).clamp(0, 1) * 2 - 1


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Mean PSNR over pictures in [-1, 1], in dB."""
    levels = [((image + 1) * 127.5).round().clamp(0, 255) for image in (found, wanted)]
    error = (levels[0] - levels[1]).square().mean((1, 2, 3)).clamp_min(1e-6)
    return float((10 * torch.log10(255**2 / error)).mean())


def likeness(who: torch.nn.Module, found: Tensor, wanted: Tensor) -> float:
    """Mean cosine of the embeddings."""
    return float((who.embed(found) * who.embed(wanted)).sum(1).mean())  # type: ignore[operator]


def chroma_error(found: Tensor, wanted: Tensor) -> float:
    """Mean distance of the colours, brightness apart, in levels of 255."""
    colours = [image - luma_of(image) for image in (found, wanted)]
    return float((colours[0] - colours[1]).square().sum(1).sqrt().mean()) * 127.5

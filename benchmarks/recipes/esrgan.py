"""Four times larger: PSNR of portraits of people held out, against bicubic enlargement; made small by area, as in training."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from limn.training.datasets import open_dataset
from limn.weights import load
from recipes.gpen import psnr

DATA = "portraits128.zip"
PRESET = "portraits128"
OPTIONS = ("--where", "era=modern")


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return PSNR in dB over all channels, four pixels cut off at the border as the field does."""
    loaded = load(model, part="generator")
    held = open_dataset("images", data, loaded.config, False, where=["era=modern"])
    images = torch.cat([held.batch(step, 1, 0)["image"] for step in range(len(held))])
    small = F.avg_pool2d(images, loaded.model.scale)
    made = torch.cat([loaded.model.restore(part) for part in small.split(16)])
    return {"psnr": inner(made, images), "psnr_bicubic": inner(bicubic(small, images), images), "pictures": float(len(images))}


def bicubic(small: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(small, size=like.shape[2:], mode="bicubic", align_corners=False).clamp(-1, 1)


def inner(found: Tensor, wanted: Tensor) -> float:
    """PSNR without the outermost four pixels."""
    return psnr(found[:, :, 4:-4, 4:-4], wanted[:, :, 4:-4, 4:-4])

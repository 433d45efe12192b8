"""DeepFill v2 on free portraits: how close the filling of holes comes to what was there, on people held out of all training.

Beside the model stand two fillings without one: the mean colour of what is known, and the diffusion of OpenCV (Telea).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn import weights
from limn.blocks import holes
from limn.blocks.holes import Holes
from limn.models.records import seeded
from limn.training.datasets import open_dataset

DATA = "portraits128.zip"
PRESET = "portraits64"
WHERE = ["era=modern", "chroma>2"]
OPTIONS = [word for condition in WHERE for word in ("--where", condition)]
SHAPES = Holes(box=(0.2, 0.45), boxes=0.6, brushed=0.6)  # a tenth to a third of most pictures
Filler = Callable[[Tensor, Tensor], Tensor]  # images (N, 3, S, S), mask (N, 1, S, S) -> images


def measure(model: Path, data: Path) -> dict[str, float]:
    """Return L1 (levels of 255) and PSNR inside the holes, and the identity cosine, of the model and of fillings without one."""
    loaded = weights.load(model)
    identity = weights.load("limn-identity").model
    held_out = open_dataset("images", data, loaded.config, train=False, where=WHERE)
    images = held_out.batch(0, len(held_out), 0)["image"]
    mask = holes.draw(len(images), (images.shape[2], images.shape[3]), seeded(11), SHAPES)
    fillers: dict[str, Filler] = {"": loaded.model.inpaint, "mean_": mean_colour, "telea_": telea}
    found: dict[str, float] = {}
    with torch.inference_mode():
        for name, fill in fillers.items():
            filled = torch.cat([fill(*part) for part in zip(images.split(16), mask.split(16), strict=True)]).clamp(-1, 1)
            found |= {f"{name}{key}": value for key, value in compared(filled, images, mask).items()}
            found[f"{name}identity"] = float(F.cosine_similarity(identity.embed(filled), identity.embed(images)).mean())
    return found


def compared(filled: Tensor, images: Tensor, mask: Tensor) -> dict[str, float]:
    """Mean over pictures of both figures, over the pixels of the hole alone."""
    pixels = 3 * mask.sum((1, 2, 3))
    off = (filled - images) * mask
    squares = off.square().sum((1, 2, 3)) / pixels
    return {
        "l1": float((off.abs().sum((1, 2, 3)) / pixels).mean()) * 127.5,
        "psnr": float((10 * torch.log10(4 / squares)).mean()),
    }


def mean_colour(images: Tensor, mask: Tensor) -> Tensor:
    """Fill with the mean colour of what is known."""
    known = 1 - mask
    mean = (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)
    return images * known + mean * mask


def telea(images: Tensor, mask: Tensor) -> Tensor:
    """Fill by cv2.inpaint: colours march in from the edge (Telea 2004)."""
    done = []
    for image, hole in zip(images, mask, strict=True):
        pixels = image.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
        filled = cv2.inpaint(np.ascontiguousarray(pixels), hole[0].byte().numpy(), 3, cv2.INPAINT_TELEA)
        done.append(torch.from_numpy(filled).permute(2, 0, 1).float().div(127.5).sub(1))
    return torch.stack(done)

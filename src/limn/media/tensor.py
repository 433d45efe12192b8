"""Between PIL images and tensors: float32 NCHW RGB in [-1, 1], exact for all 256 values of a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of any mode as float32 (1, 3, H, W), RGB in [-1, 1]."""
    import torch

    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float().div_(127.5).sub_(1)


def to_image(image: Tensor) -> Image.Image:
    """Return (3, H, W) or (1, 3, H, W) in [-1, 1] as a PIL image, RGB; values outside are clipped. ValueError for other shapes."""
    import torch

    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"to_image takes (3, H, W) or (1, 3, H, W), not {tuple(image.shape)}")
    pixels = image.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())

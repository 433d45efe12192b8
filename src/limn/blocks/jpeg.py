"""JPEG as arithmetic on tensors: blocks, cosine transform, quantisation and back, so that gradients can pass and batches are one call.

Standard tables of ITU-T T.81, annex K; 4:2:0 by means of 2x2 pixels. Shin, Song: JPEG-resistant Adversarial Images (2017) gave the
rounding with a gradient. What a decoder does beyond it (smooth enlargement of the chroma) is left out.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # the rest of the table is 99
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg(images: Tensor, quality: Tensor, soft: bool = False) -> Tensor:
    """Compress (N, 3, H, W) RGB in [0, 1] at `quality` (N,), 1 to 100, and return what is decoded, the same shape.

    Rounding to whole coefficients has no gradient; `soft` adds the cube of what it takes away, which has one.
    """
    height, width = images.shape[2:]
    pad = (0, -width % 16, 0, -height % 16)
    ycc = mix(F.pad(images.float(), pad) * 255, TO_YCC)
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)[:, None, None].to(images.device)
    luma, chroma = (table.to(images.device) for table in tables())
    planes = [quantised(ycc[:, :1] - 128, luma * factor, soft) + 128]
    for plane in (ycc[:, 1:2], ycc[:, 2:]):  # centred on 0, where the published code adds 128 and takes it away again
        small = quantised(F.avg_pool2d(plane, 2), chroma * factor, soft)
        planes.append(small.repeat_interleave(2, 2).repeat_interleave(2, 3))
    back = mix(torch.cat(planes, 1), TO_RGB)
    return (back.clamp(0, 255) / 255)[:, :, :height, :width].to(images.dtype)


def quantised(plane: Tensor, table: Tensor, soft: bool) -> Tensor:
    """Round the cosine coefficients of every 8x8 block of (N, 1, H, W) to multiples of `table` (N, 8, 8)."""
    basis, (count, _, height, width) = cosines().to(plane.device), plane.shape
    blocks = plane.reshape(count, height // 8, 8, width // 8, 8).transpose(2, 3)
    steps = table[:, None, None]
    coefficients = basis @ blocks @ basis.T / steps
    whole = coefficients.round()
    if soft:
        whole = whole + (coefficients - whole) ** 3
    return (basis.T @ (whole * steps) @ basis).transpose(2, 3).reshape(plane.shape)


def mix(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Multiply the three channels of (N, 3, H, W) by a 3x3 matrix."""
    return torch.einsum("oc,nchw->nohw", torch.tensor(matrix, device=images.device), images)


@cache
def cosines() -> Tensor:
    """Return the orthonormal cosine basis (8, 8): rows are frequencies."""
    places, frequencies = torch.arange(8.0), torch.arange(8.0)[:, None]
    basis = 0.5 * torch.cos((2 * places + 1) * frequencies * math.pi / 16)
    basis[0] /= math.sqrt(2)
    return basis


@cache
def tables() -> tuple[Tensor, Tensor]:
    """Return the quantisation tables of luma and chroma (8, 8) at quality 50, transposed: as the published DiffJPEG applies them."""
    chroma = torch.full((8, 8), 99.0)
    chroma[:4, :4] = torch.tensor(CHROMA, dtype=torch.float32)
    return torch.tensor(LUMA, dtype=torch.float32).T, chroma

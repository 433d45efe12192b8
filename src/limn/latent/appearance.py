"""Colour statistics of aligned faces, read off where the mesh says skin and hair are: what directions are fitted to and checked by.

Luma is 0 to 1; chroma is the length of (Cb, Cr) in the same unit. The mesh has 478 points (models/perception/limn_mesh).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEFT_CHEEK = (50, 117, 118, 205, 187, 123)  # of the picture
RIGHT_CHEEK = (280, 346, 347, 425, 411, 352)
FOREHEAD = (151, 9, 107, 336, 108, 337)
CHIN = (199, 200, 175, 208, 428)
HAIRLINE, BROW = (10, 109, 338, 67, 297), 168  # the top of the mesh, and the point between the eyes
ABOVE = (0.5, 0.7, 0.9)
CORNER = 8  # the background is looked for in the upper corners, of the picture's side / CORNER


def appearance(images: Tensor, points: Tensor) -> dict[str, Tensor]:
    """Measure images (N, 3, H, W) in [-1, 1] with mesh points (N, 478, 2 or 3) in pixels: each value is (N,).

    brightness, contrast and colour (mean chroma) of the whole picture; skin (luma); light_side (right minus left cheek) and
    light_top (forehead minus chin), as shares of the skin's luma; hair and background (luma).
    """
    images = (images.float().clamp(-1, 1) + 1) / 2
    luma, chroma = _ycc(images)
    cheeks = [_at(luma, points, side) for side in (LEFT_CHEEK, RIGHT_CHEEK)]
    forehead, chin = _at(luma, points, FOREHEAD), _at(luma, points, CHIN)
    skin = torch.stack([*cheeks, forehead]).mean(0)
    base = skin.clamp_min(0.05)
    return {
        "brightness": luma.flatten(1).mean(1),
        "contrast": luma.flatten(1).std(1),
        "colour": chroma.flatten(1).mean(1),
        "skin": skin,
        "light_side": (cheeks[1] - cheeks[0]) / base,
        "light_top": (forehead - chin) / base,
        "hair": hair(luma, points),
        "background": _background(luma),
    }


def hair(luma: Tensor, points: Tensor) -> Tensor:
    """Median luma (N,) of places just above the hairline; of a bald head, the luma of its skin."""
    top, brow = points[:, list(HAIRLINE), :2], points[:, BROW : BROW + 1, :2]
    up = points[:, 10:11, :2] - brow
    places = torch.cat([top + step * up for step in ABOVE], 1)
    return _sample(luma, places).median(1).values


def _ycc(images: Tensor) -> tuple[Tensor, Tensor]:
    """Luma (N, 1, H, W) and chroma (N, 1, H, W) of images in 0..1 (BT.601)."""
    red, green, blue = images.split(1, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma, ((0.564 * (blue - luma)).square() + (0.713 * (red - luma)).square() + 1e-12).sqrt()


def _at(luma: Tensor, points: Tensor, indices: tuple[int, ...]) -> Tensor:
    return _sample(luma, points[:, list(indices), :2]).mean(1)


def _sample(plane: Tensor, places: Tensor) -> Tensor:
    """Bilinear values (N, K) of a plane (N, 1, H, W) at places (N, K, 2) in pixels; outside, those of the border."""
    size = torch.tensor([plane.shape[3], plane.shape[2]], dtype=plane.dtype, device=plane.device)
    grid = (places.to(plane) + 0.5) / size * 2 - 1
    return F.grid_sample(plane, grid[:, :, None], padding_mode="border", align_corners=False)[:, 0, :, 0]


def _background(luma: Tensor) -> Tensor:
    side = max(luma.shape[3] // CORNER, 1)
    return torch.cat([luma[..., :side, :side], luma[..., :side, -side:]], 3).flatten(1).mean(1)

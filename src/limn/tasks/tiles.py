"""A whole picture through an enlarging network in tiles, which come out as if it had seen all of it at once.

Each tile is given as many pixels of its surroundings as a pixel of the result depends on (the network's `halo`); a network drops
them again as soon as they are of no use. Memory is that of one tile and of the result in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from limn.tasks.progress import track

if TYPE_CHECKING:
    import torch

TILE = 192  # pixels a side: at four times the size and 64 channels some 600 MB


@dataclass(frozen=True)
class Tile:
    """One part of a picture: left, top, right, bottom, and what surrounds it on each side."""

    box: tuple[int, int, int, int]
    spare: tuple[int, int, int, int]


def tiles(size: tuple[int, int], tile: int, halo: int, multiple: int = 1) -> Iterator[Tile]:
    """Yield the tiles of a picture of (width, height), row by row; their corners lie on multiples of `multiple`."""
    width, height = size
    step = max(tile // multiple, 1) * multiple
    reach = -(-halo // multiple) * multiple
    for top in range(0, height, step):
        for left in range(0, width, step):
            right, bottom = min(left + step, width), min(top + step, height)
            spare = (min(reach, left), min(reach, top), min(reach, width - right), min(reach, height - bottom))
            yield Tile((left, top, right, bottom), spare)


def enlarged(image: Image.Image, network: Any, device: torch.device | str = "cpu", tile: int = 0, context: int | None = None) -> np.ndarray:
    """Return an RGB picture as the network enlarges it: (scale H, scale W, 3) uint8.

    `tile` pixels a side, 0 for TILE. `context` pixels around each tile, in place of all that the network sees, are faster where it is
    deep, but then seams can be measured.
    """
    import torch

    halo = getattr(network, "halo", 0) if context is None else context
    multiple, scale = int(getattr(network, "multiple", 1)), int(network.scale)
    side = (tile or TILE) if hasattr(network, "halo") else max(image.size)
    parts = list(tiles(image.size, side, halo, multiple))
    result = np.empty((image.height * scale, image.width * scale, 3), np.uint8)
    pixels = np.asarray(image)
    for part in track(parts, "enlarging", len(parts)):
        left, top, right, bottom = (at * scale for at in part.box)
        with torch.inference_mode():
            result[top:bottom, left:right] = restored(network, pixels, part, device)
    return result


def restored(network: Any, pixels: np.ndarray, part: Tile, device: torch.device | str) -> np.ndarray:
    """Return what the network makes of one tile of pixels (H, W, 3) uint8."""
    import torch

    (left, top, right, bottom), (west, north, east, south) = part.box, part.spare
    seen = pixels[top - north : bottom + south, left - west : right + east].copy()
    images = torch.from_numpy(seen).permute(2, 0, 1)[None].to(device).float().div_(127.5).sub_(1)
    made = network.restore(images, part.spare) if any(part.spare) else network.restore(images)
    return made[0].float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()

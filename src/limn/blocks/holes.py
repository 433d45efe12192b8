"""Holes to be filled, drawn from a seed: boxes and the strokes of a brush, all of a batch at once.

Yu et al.: Free-Form Image Inpainting with Gated Convolution. ICCV 2019, arXiv 1806.03589, algorithm 1; its lines all run one way
across the picture (the published code throws its mirrored copies away), ours in any direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FINEST = 64  # pixels a side on which strokes are drawn; larger pictures get them enlarged, with smooth edges
TURN, SPREAD = 2 * math.pi / 5, 2 * math.pi / 15  # mean angle between two strokes of the brush, and how far it varies
REACH = 1 / 8  # mean length of a stroke, in diagonals of the picture


@dataclass(frozen=True)
class Holes:
    """What holes look like. Lengths are in sides of the picture; pairs are least and most."""

    box: tuple[float, float] = (0.375, 0.5)  # sides of the box
    boxes: float = 1.0  # share of the pictures that have one
    strokes: tuple[int, int] = (1, 3)  # lines; each zigzags through its vertices
    brushed: float = 1.0  # share of the pictures that have strokes
    vertices: tuple[int, int] = (4, 12)  # of each line
    width: tuple[float, float] = (12 / 256, 40 / 256)  # of the brush


def draw(count: int, size: tuple[int, int], rng: torch.Generator, holes: Holes = Holes()) -> Tensor:
    """Return masks (count, 1, H, W), 1 in the hole: a box, strokes, or both; each has at least one of them."""
    device = rng.device
    has_box = torch.rand(count, 1, 1, 1, generator=rng, device=device) < holes.boxes
    brushed = torch.rand(count, 1, 1, 1, generator=rng, device=device) < holes.brushed
    drawn = box(count, size, rng, holes).bool() & (has_box | ~brushed)
    return (drawn | (strokes(count, size, rng, holes).bool() & brushed)).float()


def box(count: int, size: tuple[int, int], rng: torch.Generator, holes: Holes = Holes()) -> Tensor:
    """Return masks (count, 1, H, W) of one box each, wholly inside the picture."""
    least, most = holes.box
    drawn = torch.rand(4, count, 1, 1, 1, generator=rng, device=rng.device)
    sides = least + (most - least) * drawn[:2]
    corners = (1 - sides) * drawn[2:]
    y, x = _centres(size, rng.device)
    rows = (y >= corners[0]) & (y < corners[0] + sides[0])
    return (rows & (x >= corners[1]) & (x < corners[1] + sides[1])).float()


def strokes(count: int, size: tuple[int, int], rng: torch.Generator, holes: Holes = Holes()) -> Tensor:
    """Return masks (count, 1, H, W) of brush strokes: lines of random width whose direction turns to and fro."""
    height, width = size
    lines, corners = holes.strokes[1], holes.vertices[1]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, lines, *shape, generator=rng, device=rng.device)

    used = _numbers(uniform(), holes.vertices)  # vertices of each line
    used = used * (torch.arange(lines, device=rng.device) < _numbers(uniform()[:, :1], holes.strokes))
    turns = torch.arange(corners, device=rng.device) % 2
    angles = TURN + SPREAD * (2 * uniform(corners) - 1)
    angles = torch.where(turns == 0, -angles, angles) + 2 * math.pi * uniform(1)
    mean = REACH * math.sqrt(2)
    normal = torch.randn(count, lines, corners, generator=rng, device=rng.device)
    lengths = (mean + mean / 2 * normal).clamp(0, 2 * mean)
    steps = torch.stack([lengths * angles.sin(), lengths * angles.cos()], -1)
    points = [uniform(2)]
    for index in range(corners):
        points.append((points[-1] + steps[:, :, index]).clamp(0, 1))
    brush = holes.width[0] + (holes.width[1] - holes.width[0]) * uniform()
    grid = (min(height, FINEST), min(width, FINEST))
    near = _distance(torch.stack(points, 2), used, _centres(grid, rng.device)) < brush[:, :, None, None] / 2
    mask = near.any(1, keepdim=True).float()
    return mask if grid == size else (F.interpolate(mask, size, mode="bilinear", align_corners=False) > 0.5).float()


def _distance(points: Tensor, used: Tensor, centres: tuple[Tensor, Tensor]) -> Tensor:
    """Distance (N, L, h, w) of every pixel to the nearest of the first `used` (N, L) segments between points (N, L, V + 1, 2)."""
    y, x = centres
    least = points.new_full((*points.shape[:2], y.shape[0], x.shape[1]), math.inf)
    for index in range(points.shape[2] - 1):
        start, step = points[:, :, index], points[:, :, index + 1] - points[:, :, index]
        dy, dx = y - start[..., 0, None, None], x - start[..., 1, None, None]
        sy, sx = step[..., 0, None, None], step[..., 1, None, None]
        along = ((dy * sy + dx * sx) / (sy.square() + sx.square()).clamp_min(1e-12)).clamp(0, 1)
        squared = (dy - along * sy).square() + (dx - along * sx).square()
        least = torch.where((used > index)[..., None, None], torch.minimum(least, squared), least)
    return least.sqrt()


def _numbers(uniform: Tensor, between: tuple[int, int]) -> Tensor:
    """Turn numbers in [0, 1) into whole ones, both ends included."""
    return between[0] + (uniform * (between[1] - between[0] + 1)).long()


def _centres(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the centres of rows (H, 1) and columns (1, W), in sides."""
    rows, columns = ((torch.arange(side, device=device) + 0.5) / side for side in size)
    return rows[:, None], columns[None]

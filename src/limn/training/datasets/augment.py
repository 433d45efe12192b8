"""What may happen to a picture of a face without changing who it is: pose of the camera, light, colour, focus, compression, cover."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def distort(images: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Distort every image (N, 3, H, W) in [-1, 1] by itself and resize to (N, 3, size, size)."""
    images = move(images, size, rng)
    images = focus(surround(images, rng), rng)
    images = light(images, rng)
    images = compress(images, rng)
    return cover(images, rng).clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def move(images: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Mirror half of them; rotate by up to 12 degrees, zoom 0.87 to 1.2, stretch 7 %, shift 5 %."""
    n = len(images)
    angle = np.deg2rad(np.clip(rng.normal(0, 6, n), -12, 12))
    zoom, stretch = rng.uniform(0.87, 1.2, n), np.exp(rng.normal(0, 0.05, n).clip(-0.07, 0.07))
    mirror = rng.choice([-1.0, 1.0], n)
    shift = rng.uniform(-0.1, 0.1, (n, 2))
    c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
    theta = np.stack(
        [np.stack([c * stretch * mirror, -s, shift[:, 0]], 1), np.stack([s * stretch * mirror, c / stretch, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(torch.from_numpy(theta).float(), [n, 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def surround(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Put half of the faces before the surroundings of another picture, so that who it is is not read from background or collar."""
    n, size = len(images), images.shape[-1]
    axis = torch.linspace(-1, 1, size)
    across = axis.view(1, 1, 1, -1) / _column(rng.uniform(0.5, 0.85, n))
    down = (axis.view(1, 1, -1, 1) - 0.05) / _column(rng.uniform(0.7, 1.0, n))
    inside = ((1 - (across.square() + down.square()).sqrt()) * 8 + 0.5).clamp(0, 1)
    inside = torch.where(_column(rng.random(n)) < 0.5, inside, torch.ones(()))
    return images * inside + images[torch.from_numpy(rng.permutation(n))] * (1 - inside)


def focus(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Lose detail in about half of them: a third to a fifth of the resolution, or a Gaussian blur; noise in a third."""
    images = images.clone()
    size = images.shape[-1]
    kind = rng.integers(0, 6, len(images))
    for which, small in enumerate((size // 3, size // 2)):
        rows = torch.from_numpy(np.flatnonzero(kind == which))
        if len(rows):
            low = F.interpolate(images[rows], size=small, mode="bilinear", antialias=True, align_corners=False)
            images[rows] = F.interpolate(low, size=size, mode="bilinear", align_corners=False)
    rows = torch.from_numpy(np.flatnonzero(kind == 2))
    if len(rows):
        images[rows] = F.avg_pool2d(F.pad(images[rows], (1, 1, 1, 1), mode="replicate"), 3, 1)
    strength = rng.uniform(0, 0.15, len(images)) * (rng.random(len(images)) < 0.33)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return images + torch.from_numpy(noise) * _column(strength)


def light(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, gamma, saturation, tint; a gradient of light across; a third become grey."""
    n, size = len(images), images.shape[-1]
    images = (images.clamp(-1, 1) * 0.5 + 0.5) ** _column(np.exp(rng.normal(0, 0.2, n))) * 2 - 1
    ramp = torch.linspace(-1, 1, size)
    slope = _column(rng.normal(0, 0.15, n)) * ramp.view(1, 1, 1, -1) + _column(rng.normal(0, 0.1, n)) * ramp.view(1, 1, -1, 1)
    images = images * _column(rng.uniform(0.7, 1.25, n)) + _column(rng.normal(0, 0.12, n)) + slope
    images = images + torch.from_numpy(rng.normal(0, 0.06, (n, 3, 1, 1)).astype(np.float32))
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    saturation = np.where(rng.random(n) < 0.35, 0.0, rng.uniform(0.4, 1.4, n))
    return grey + (images - grey) * _column(saturation)


def compress(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Compress a third of them as JPEG of quality 15 to 70."""
    images = images.clone()
    for row in np.flatnonzero(rng.random(len(images)) < 0.33):
        pixels = (images[row].clamp(-1, 1) * 127.5 + 127.5).byte().permute(1, 2, 0).contiguous().numpy()
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 71))])
        images[row] = torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)).permute(2, 0, 1).float() / 127.5 - 1
    return images


def cover(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Hide a rectangle of up to 40 % of each side, in a third of them, behind one colour."""
    images, size = images.clone(), images.shape[-1]
    for row in np.flatnonzero(rng.random(len(images)) < 0.33):
        height, width = rng.integers(size // 8, size * 2 // 5, 2)
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        images[row, :, top : top + height, left : left + width] = torch.from_numpy(rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32))
    return images


def _column(values: np.ndarray) -> Tensor:
    """One number per image, (N, 1, 1, 1) float32."""
    return torch.from_numpy(np.asarray(values, np.float32)).view(-1, 1, 1, 1)

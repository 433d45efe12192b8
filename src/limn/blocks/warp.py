"""Warping: one sampling operator with its units said, coordinate grids, Gaussians about points, and anti-aliased reduction.

Maps are (N, C, H, W) or (N, C, D, H, W); the last axis of points and grids is x, y(, z). Two units of coordinates are in use:
"pixels", where 0 is the centre of the first pixel, and "unit", from -1 to 1: between the centres of the end pixels where
`align_corners`, else between their outer edges. The published systems mix the latter two (`align_corners` says what each samples by).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Units = Literal["pixels", "unit"]
Padding = Literal["zeros", "border", "reflection"]


def warp(maps: Tensor, at: Tensor, units: Units, *, align_corners: bool = False, padding: Padding = "zeros") -> Tensor:
    """Sample maps linearly at coordinates (N, ..., 2 or 3): (N, C, ...).

    In pixels `align_corners` says nothing, and a side of a single pixel is no trouble.
    """
    if units == "pixels":
        sides = at.new_tensor(list(maps.shape[:1:-1]))
        return F.grid_sample(maps, (2 * at + 1) / sides - 1, padding_mode=padding, align_corners=False)
    return F.grid_sample(maps, at, padding_mode=padding, align_corners=align_corners)


def moved(maps: Tensor, flow: Tensor, padding: Padding = "border") -> Tensor:
    """Sample maps (N, C, H, W) at each pixel plus a flow (N, 2, H, W) in pixels, x before y: what comes from where the flow points."""
    return warp(maps, pixels(flow.shape[2:], flow) + flow.permute(0, 2, 3, 1), "pixels", padding=padding)


def pixels(sides: Sequence[int], like: Tensor) -> Tensor:
    """Return the coordinates (*sides, dimensions), x first, of every pixel of a map with `sides`, such as (H, W)."""
    axes = [torch.arange(side, device=like.device, dtype=like.dtype) for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)


def grid(sides: Sequence[int], like: Tensor) -> Tensor:
    """Return the same from -1 to 1, which are the centres of the end pixels."""
    return 2 * pixels(sides, like) / (like.new_tensor(list(sides[::-1])) - 1).clamp(min=1) - 1


def resized(at: Tensor, sides: Sequence[int]) -> Tensor:
    """Bring a field of coordinates in units (N, ..., 2 or 3) to other sides; its values stay."""
    if tuple(at.shape[1:-1]) == tuple(sides):
        return at
    mode = "bilinear" if len(sides) == 2 else "trilinear"
    return F.interpolate(at.movedim(-1, 1), size=tuple(sides), mode=mode, align_corners=False).movedim(1, -1)


def gaussians(points: Tensor, sides: Sequence[int], variance: float) -> Tensor:
    """Return a bump of height 1 about each point (N, K, 2 or 3) in units: (N, K, *sides)."""
    places = grid(sides, points)
    away = places - points.reshape(*points.shape[:2], *(1 for _ in sides), points.shape[-1])
    return torch.exp(-0.5 * away.square().sum(-1) / variance)


def expected(maps: Tensor) -> Tensor:
    """Return the mean place (N, K, 2 or 3) in units of maps (N, K, *sides) that sum to 1: the soft arg max."""
    sides = maps.shape[2:]
    return (maps.unsqueeze(-1) * grid(sides, maps)).flatten(2, -2).sum(2)


class Reduce(nn.Module):
    """Shrinks maps by 1/scale: a Gaussian blur against aliasing, zero padded, then every so manieth pixel from the first."""

    weight: Tensor

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        sigma = (1 / scale - 1) / 2
        reach = round(4 * sigma)
        places = torch.arange(-reach, reach + 1, dtype=torch.float32)
        bell = torch.exp(-places.square() / (2 * sigma**2)) if sigma else torch.ones(1)
        kernel = torch.outer(bell, bell)
        self.register_buffer("weight", (kernel / kernel.sum()).expand(channels, 1, -1, -1).clone())
        self.step, self.reach = int(1 / scale), reach

    def forward(self, x: Tensor) -> Tensor:
        if self.step == 1:
            return x
        return F.conv2d(F.pad(x, (self.reach,) * 4), self.weight, groups=len(self.weight))[:, :, :: self.step, :: self.step]


def scale_of(kernel: Tensor) -> float:
    """Return the scale of the `Reduce` whose kernel this is: its side is 4 (1/scale - 1) + 1."""
    return 4 / (kernel.shape[-1] + 3)


def hull(points: Tensor) -> Tensor:
    """Return the area (or volume) of the convex hull of points (K, 2) or (K, 3): every facet that has all points on one side."""
    dims = points.shape[1]
    facets = points[torch.combinations(torch.arange(len(points)), dims)].double()  # (F, dims, dims)
    edges = facets[:, 1:] - facets[:, :1]
    normals = torch.stack([edges[:, 0, 1], -edges[:, 0, 0]], -1) if dims == 2 else torch.linalg.cross(edges[:, 0], edges[:, 1])
    heights = torch.einsum("fd,fkd->fk", normals, points.double() - facets[:, :1])
    slack = 1e-9 * heights.abs().max().clamp(min=1e-30)
    outer = (heights <= slack).all(1) | (heights >= -slack).all(1)
    middle = points.double().mean(0)
    return (torch.linalg.det(facets[outer] - middle).abs().sum() / math.factorial(dims)).to(points)


class ThinPlate:
    """A random smooth map of the plane onto itself, to see whether keypoints follow: affine noise and a thin-plate term (FOMM, 3.1).

    `theta` (N, 2, 3) is the affine part, `bends` (N, 1, P²) the weights of a P x P grid of control points; the radius is the sum of
    absolute differences, and one displacement is added to both x and y, as published.
    """

    def __init__(self, theta: Tensor, bends: Tensor | None = None) -> None:
        self.theta, self.bends = theta, bends
        if bends is not None:
            side = round(bends.shape[-1] ** 0.5)
            self.control = grid((side, side), theta).flatten(0, 1)

    @classmethod
    def drawn(cls, count: int, rng: torch.Generator, affine: float = 0.05, bend: float = 0.005, side: int = 5) -> ThinPlate:
        """Draw maps for a batch on the CPU."""
        theta = torch.eye(2, 3) + affine * torch.randn(count, 2, 3, generator=rng)
        return cls(theta, bend * torch.randn(count, 1, side**2, generator=rng))

    def to(self, device: torch.device | str) -> ThinPlate:
        """Return the same maps on a device."""
        return ThinPlate(self.theta.to(device), None if self.bends is None else self.bends.to(device))

    def points(self, at: Tensor) -> Tensor:
        """Return where points (N, K, 2) go."""
        gone = at @ self.theta[:, :, :2].mT + self.theta[:, None, :, 2]
        if self.bends is None:
            return gone
        radius = (at[:, :, None] - self.control).abs().sum(-1)
        kernel = radius.square() * torch.log(radius + 1e-6)
        return gone + (kernel * self.bends).sum(-1, keepdim=True)

    def jacobian(self, at: Tensor) -> Tensor:
        """Return the derivatives (N, K, 2, 2) of the map at points (N, K, 2); the graph is kept if the points have one."""
        with torch.enable_grad():
            at = at if at.requires_grad else at.detach().requires_grad_()
            gone = self.points(at)
            rows = [torch.autograd.grad(gone[..., axis].sum(), at, create_graph=True)[0] for axis in range(2)]
        return torch.stack(rows, -2)

    def images(self, images: Tensor, align_corners: bool) -> Tensor:
        """Return the images (N, C, H, W) seen through the map, mirrored beyond their edges."""
        sides = images.shape[2:]
        places = grid(sides, images).flatten(0, 1).expand(len(images), -1, -1)
        at = self.points(places).unflatten(1, tuple(sides))
        return warp(images, at, "unit", align_corners=align_corners, padding="reflection")

"""Warping: units, sides of one pixel, reduction, thin plates, hulls; and the flow that is built on it."""

from __future__ import annotations

import pytest
import torch

from limn.blocks.warp import Reduce, ThinPlate, expected, gaussians, grid, hull, moved, pixels, resized, scale_of, warp
from limn.models.perception import raft
from limn.models.records import seeded


def maps(*sides: int) -> torch.Tensor:
    return torch.randn(2, 3, *sides, generator=seeded(0))


@pytest.mark.parametrize("sides", [(5, 7), (1, 6), (3, 4, 5)])
def test_pixels_and_units_name_the_same_places(sides: tuple[int, ...]) -> None:
    x = maps(*sides)
    assert torch.allclose(warp(x, pixels(sides, x).expand(2, *sides, len(sides)), "pixels"), x, atol=1e-5)
    assert torch.allclose(warp(x, grid(sides, x).expand(2, *sides, len(sides)), "unit", align_corners=True), x, atol=1e-5)


def test_a_flow_says_where_pixels_come_from() -> None:
    x = maps(6, 8)
    flow = torch.zeros(2, 2, 6, 8)
    flow[:, 0] = 2
    assert torch.allclose(moved(x, flow)[..., :-2], x[..., 2:], atol=1e-5)


def test_soft_arg_max_finds_a_bump() -> None:
    points = torch.tensor([[[0.25, -0.5], [-0.3, 0.1]]])
    bumps = gaussians(points, (64, 64), 0.01)
    assert torch.allclose(expected(bumps / bumps.sum((2, 3), keepdim=True)), points, atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25, 0.125])
def test_scale_is_read_off_the_kernel(scale: float) -> None:
    reduce = Reduce(3, scale)
    assert scale_of(reduce.weight) == scale and reduce(maps(32, 32)).shape[2] == 32 * scale


def test_a_field_is_resized_with_its_values() -> None:
    field = grid((8, 8), maps(8, 8)).expand(2, 8, 8, 2)
    assert resized(field, (16, 16)).abs().max() <= 1 and resized(field, (8, 8)) is field


def test_jacobian_of_a_thin_plate_is_its_derivative() -> None:
    plate = ThinPlate.drawn(2, seeded(1), bend=0.05)
    at, small = torch.rand(2, 5, 2, generator=seeded(2)) - 0.5, 1e-3
    for axis in range(2):
        step = torch.zeros(2)
        step[axis] = small
        slope = (plate.points(at + step) - plate.points(at - step)) / (2 * small)
        assert torch.allclose(plate.jacobian(at)[..., axis], slope, atol=2e-3)


def test_hull() -> None:
    square = torch.tensor([[0.0, 0], [2, 0], [2, 1], [0, 1], [1, 0.5]])
    assert float(hull(square)) == pytest.approx(2)
    tetrahedron = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.1, 0.1, 0.1]])
    assert float(hull(tetrahedron)) == pytest.approx(1 / 6)


CONFIG = raft.Config(True, (8, 12, 16), 24, 16, 16, 4, 2, (16,), (16, 8), 24, 16, iterations=2)


@pytest.mark.parametrize("sides", [(16, 16), (17, 33), (9, 130), (128, 40)])
def test_flow_of_any_size(sides: tuple[int, int]) -> None:
    network = raft.Raft(CONFIG).eval()
    images = torch.rand(2, 3, *sides, generator=seeded(0)) * 2 - 1
    flow = network.flow(images[:1], images[1:], 2)
    assert flow.shape == (1, 2, *sides) and bool(flow.isfinite().all())


def test_frugal_correlation_is_the_same() -> None:
    one, two = (torch.randn(1, 8, 6, 5, generator=seeded(n)) for n in (0, 1))
    at = torch.rand(1, 2, 6, 5, generator=seeded(2)) * 6
    full, frugal = (kind(one, two, 4, 2)(at) for kind in (raft.Correlation, raft.OnDemand))
    assert torch.allclose(full, frugal, atol=1e-5)


def test_made_pairs_have_the_flow_they_say() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    image = torch.stack([x, y, x * y])[None]
    first, second, flow = raft.pairs(image, seeded(3), reach=3.0)
    back = moved(second, flow)
    inner = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    colour = (first[inner] * back[inner]).sum((2, 3)) / back[inner].square().sum((2, 3))  # the light differs
    assert (first[inner] - colour[..., None, None] * back[inner]).abs().max() < 0.02

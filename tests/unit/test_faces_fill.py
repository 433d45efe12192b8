"""Filling a hole at the photo's resolution: what is known stays, colours meet at the edge, views cover the hole."""

from __future__ import annotations

import numpy as np
import pytest

from limn.faces import fill


def gradient(height: int = 90, width: int = 140) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([60 + rows, 40 + columns, 200 - rows], -1).clip(0, 255).astype(np.uint8)


def box(height: int = 90, width: int = 140) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    hole[30:60, 50:90] = True
    return hole


@pytest.mark.parametrize("small", [False, True])
def test_a_painting_of_the_wrong_colour_meets_the_photo_without_a_seam(small: bool) -> None:
    pixels, hole = gradient(), box()
    turned = np.array([[0.31, 0.07, -4.0], [-0.07, 0.31, 9.0]])
    view = fill.View(turned, (48, 40)) if small else fill.about(hole, 8)

    def paint(crop: np.ndarray, wide: np.ndarray) -> np.ndarray:
        assert crop.shape[:2] == wide.shape and not any(side % 8 for side in wide.shape)
        return crop.astype(np.float32) - 35  # the right shape in colours that are off

    result = fill.painted(pixels, hole, view, paint)
    assert np.array_equal(result[~hole], pixels[~hole]), "pixels outside the hole changed"
    assert np.abs(result[hole].astype(int) - pixels[hole]).max() <= 3


def test_a_photo_of_one_tone_keeps_it() -> None:
    grey = np.repeat(gradient()[..., :1], 3, -1)
    result = fill.painted(grey, box(), fill.about(box(), 8), lambda crop, _: crop * np.array([1.3, 0.8, 1.0]))
    assert np.ptp(result.astype(int), axis=-1).max() <= 1


def test_a_hole_at_the_border_is_filled_too() -> None:
    pixels, hole = gradient(), np.zeros((90, 140), bool)
    hole[60:, 100:] = True
    spoilt = np.where(hole[..., None], 0, pixels).astype(np.uint8)
    result = fill.painted(spoilt, hole, fill.about(hole, 8), lambda crop, wide: np.where(wide[..., None] > 0, 90.0, crop))
    assert np.array_equal(result[~hole], pixels[~hole]) and result[hole].min() > 20


def test_spreading_keeps_what_is_known_and_is_smooth_between() -> None:
    rng = np.random.default_rng(0)
    values = np.full((37, 53, 3), 80.0, np.float32)
    weight = (rng.random((37, 53)) < 0.1).astype(np.float32)
    values[weight == 0] = -999
    assert np.allclose(fill.spread(values, weight), 80, atol=1e-3), "one colour spreads as it is"
    known = np.zeros((64, 64), np.float32)
    known[:, :8] = known[:, -8:] = 1
    ramp = fill.spread(np.repeat(np.linspace(0, 100, 64, dtype=np.float32)[None, :, None], 64, 0), known)[32, :, 0]
    assert np.array_equal(ramp[:8], np.linspace(0, 100, 64, dtype=np.float32)[:8]) and abs(ramp[32] - 50) < 10
    assert np.abs(np.diff(ramp)).max() < 12, "a step between known and unknown"


@pytest.mark.parametrize("edges", [(0, 10, 0, 10), (200, 900, 300, 1300), (590, 600, 1190, 1200)])
def test_a_view_shows_the_hole_and_stays_small(edges: tuple[int, int, int, int]) -> None:
    hole = np.zeros((1000, 1400), bool)
    hole[edges[0] : edges[1], edges[2] : edges[3]] = True
    view = fill.about(hole, 32)
    assert max(view.size) <= fill.MOST and not any(side % 32 for side in view.size)
    assert not (hole & ~view.covers((1400, 1000)))[2:-2, 2:-2].any()

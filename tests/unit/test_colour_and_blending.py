"""Colour transfer reaches the colours it is asked for; blends leave what they must not touch."""

from __future__ import annotations

import numpy as np
import pytest

from limn.errors import InputError
from limn.faces import blending, colour, dfl_merge
from limn.faces.dfl import MEAN_FACE

RNG = np.random.default_rng(0)
MASK = np.zeros((48, 48), np.float32)
MASK[8:40, 8:40] = 1


def picture(tint: tuple[float, float, float], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((12, 12, 3)).repeat(4, 0).repeat(4, 1)
    return np.clip(np.array(tint) + 0.25 * (noise - 0.5), 0, 1).astype(np.float32)


@pytest.mark.parametrize("method", list(colour.METHODS))
def test_every_method_reaches_the_mean_colour_and_leaves_the_rest(method: str) -> None:
    source, target = picture((0.7, 0.5, 0.4), 1), picture((0.4, 0.5, 0.6), 2)
    made = colour.transfer(method, source, target, MASK)
    inside = MASK > 0.5
    left = 0.4 if method == "idt" else 0.1  # of the way
    off = np.abs(target[inside].mean(0) - source[inside].mean(0)).max()
    assert np.abs(made[inside].mean(0) - target[inside].mean(0)).max() < left * off
    assert np.array_equal(made[~inside], source[~inside])
    assert made.dtype == np.float32 and made.min() >= 0 and made.max() <= 1


def test_the_same_seed_gives_the_same_colours_and_a_wrong_name_is_told() -> None:
    source, target = picture((0.7, 0.5, 0.4), 1), picture((0.4, 0.5, 0.6), 2)
    assert np.array_equal(colour.transfer("idt", source, target, MASK, 3), colour.transfer("idt", source, target, MASK, 3))
    with pytest.raises(InputError, match="rct"):
        colour.transfer("reinhart", source, target, MASK)
    with pytest.raises(InputError, match="one size"):
        colour.sliced(source, target[:8], colour.directions(1, 1, RNG))


def test_a_poisson_blend_of_a_picture_into_itself_changes_nothing() -> None:
    back = picture((0.5, 0.5, 0.5), 3) * 255
    mask = np.zeros((20, 22), np.uint8)
    mask[3:17, 4:18] = 255
    made = blending.poisson(back[5:25, 6:28], back, mask, (5, 6))
    assert np.abs(made - back).max() < 1e-3
    brighter = blending.poisson(back[5:25, 6:28] + 40, back, mask, (5, 6))
    assert np.abs(brighter - back).max() < 1e-3, "only gradients are taken over"


def test_seamless_clone_keeps_the_mask_and_names_what_does_not_fit() -> None:
    front, back = (np.uint8(picture(tint, 4) * 255) for tint in ((0.6, 0.4, 0.4), (0.4, 0.4, 0.6)))
    mask = np.uint8(MASK[:32, :32] * 255)
    before = mask.copy()
    blending.seamless(front[:32, :32], back, mask, (24, 24))
    assert np.array_equal(mask, before)
    with pytest.raises(InputError, match="48x48"):
        blending.seamless(front[:32, :32], back, mask, (2, 2))


def test_bands_blend_to_either_picture_under_a_plain_mask() -> None:
    one, other = picture((0.6, 0.4, 0.4), 5), picture((0.4, 0.4, 0.6), 6)
    assert np.allclose(blending.blend_bands(one, other, np.ones((48, 48)), 3), one, atol=1e-5)
    assert np.allclose(blending.blend_bands(one, other, np.zeros((48, 48)), 3), other, atol=1e-5)


def test_the_merger_says_which_mask_needs_what() -> None:
    jaw = np.stack([np.linspace(-0.2, 1.2, 17), 0.3 + np.sin(np.linspace(0, np.pi, 17))], 1)
    points = np.concatenate([jaw, MEAN_FACE]) * 40 + 30
    image = np.full((100, 100, 3), 128, np.uint8)

    def predict(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return crop, np.ones(crop.shape[:2]), np.ones(crop.shape[:2])

    with pytest.raises(InputError, match="xseg-prd"):
        dfl_merge.merge(image, points, predict, 32, dfl_merge.Settings(mask=6))
    with pytest.raises(InputError, match="count from 0 to 9"):
        dfl_merge.merge(image, points, predict, 32, dfl_merge.Settings(mask=-1))
    merged = dfl_merge.merge(image, points, predict, 32, dfl_merge.Settings(colours=0, erode=6, blur=12))
    assert merged.shape == (100, 100, 4) and np.abs(merged[40:60, 40:60, :3].astype(int) - 128).max() <= 1

"""Fits, templates, cutting a face out and putting it back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from limn.errors import FaceError, InputError
from limn.faces import Face, align, feathered, fit, paste, templates, warp
from limn.faces.ffhq import published_crop, square
from limn.faces.landmarks import FLIP_68, five_from_mesh
from limn.faces.paste import region

POINTS = np.array([(203.4, 103.6), (247.5, 104.4), (224.1, 127.7), (204.0, 143.1), (242.9, 143.7)], np.float32)  # of the astronaut
FACE = Face((178.1, 65.0, 269.5, 176.4), 0.94, POINTS)


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut())


def turned(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


@pytest.mark.parametrize("solve", [fit.similarity, fit.umeyama, fit.similarity_or_mirrored, fit.similarity_median, fit.similarity_ransac])
def test_every_fit_finds_an_exact_similarity(solve) -> None:
    wanted = turned(0.4, 1.7, (12.0, -5.0))
    assert solve(POINTS, fit.apply(wanted, POINTS)) == pytest.approx(wanted, abs=2e-3)


def test_only_one_fit_mirrors() -> None:
    mirrored = POINTS * (-1, 1)
    assert np.linalg.det(fit.similarity(POINTS, mirrored)[:, :2]) > 0
    assert np.linalg.det(fit.similarity_or_mirrored(POINTS, mirrored)[:, :2]) < 0


def test_invert_and_compose_agree() -> None:
    matrix = turned(-0.3, 0.6, (3.0, 4.0))
    assert fit.compose(fit.invert(matrix), matrix) == pytest.approx(np.eye(3)[:2], abs=1e-12)
    assert fit.scale_of(matrix) == pytest.approx(0.6)


@pytest.mark.parametrize("name", [name for name, each in templates.TEMPLATES.items() if each.needs == "five"])
def test_templates_scale_with_the_crop(name: str) -> None:
    small, large = (templates.matrix(name, FACE, size) for size in (256, 512))
    # all templates scale their points with the size; ours keeps pixel edges where they are, half a pixel apart
    assert large[:, :2] == pytest.approx(2 * small[:, :2], rel=1e-4)
    assert large[:, 2] == pytest.approx(2 * small[:, 2], abs=0.6)
    eyes = fit.apply(small, POINTS[:2])
    assert eyes[0, 0] < eyes[1, 0], "the picture's left eye stays left"


@pytest.mark.parametrize("name", ["dfl-whole-face", "dfl-head", "dfl-full-face-no-align"])
def test_dense_templates_need_dense_points(name: str) -> None:
    with pytest.raises(FaceError, match="dense landmarks"):
        templates.matrix(name, FACE, 128)
    with pytest.raises(InputError, match="68 points"):
        templates.matrix(name, POINTS, 128)


def test_fomm_takes_the_box() -> None:
    matrix = templates.matrix("fomm", FACE, 256)
    x0, y0, x1, y1 = FACE.box
    inside = fit.apply(matrix, np.array([(x0, y0), (x1, y1)]))
    assert inside.min() > 0 and inside.max() < 256
    assert np.ptp(inside[:, 1]) == pytest.approx(256 / 1.2, rel=1e-6), "the longer side with a tenth of it on each side"


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match="arcface-112"):
        templates.template("arcface112")
    with pytest.raises(InputError, match="multiples of 112"):
        templates.arcface(100)


def test_degenerate_points_are_refused() -> None:
    with pytest.raises(FaceError, match="one spot"):
        templates.matrix("ffhq", np.zeros((5, 2)), 64)
    with pytest.raises(InputError, match="shape"):
        templates.matrix("ffhq", np.zeros((7, 2)), 64)


def test_ffhq_square_holds_the_head(astronaut: Image.Image) -> None:
    crop, matrix = align(astronaut, FACE, "ffhq", 128)
    inside = fit.apply(matrix, POINTS)
    assert crop.size == (128, 128)
    assert inside[:2, 1] == pytest.approx(61, abs=3), "the eyes lie a little above the middle"
    assert inside[:, 0].mean() == pytest.approx(64, abs=4)
    assert square(POINTS).side() == pytest.approx(4 * np.hypot(44.1, 0.8), rel=1e-3), "twice the eyes' distance each way"


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    small = warp(stripes, np.array([[0.125, 0, 0], [0, 0.125, 0]]), (64, 64))
    assert np.abs(small[2:-2, 2:-2].astype(float) - 127.5).max() < 3, "stripes finer than a pixel become even grey"


def test_our_crop_looks_like_the_published_one(astronaut: Image.Image) -> None:
    ours, _ = align(astronaut, FACE, "ffhq", 256)
    theirs = published_crop(astronaut, POINTS, 256, 512)
    ours, theirs = np.float32(ours)[1:, 1:], np.float32(theirs)[:-1, :-1]  # ours lies half a pixel of 128 farther inside
    difference = np.abs(cv2.GaussianBlur(ours, (0, 0), 3) - cv2.GaussianBlur(theirs, (0, 0), 3))
    assert difference.mean() < 1.5


def test_mirrored_beyond_the_border() -> None:
    flat = Image.new("RGB", (40, 40), (200, 100, 50))
    crop, _ = align(flat, np.array([(2, 2), (12, 2), (7, 8), (3, 12), (11, 12)], np.float32), "ffhq", 64)
    assert np.ptp(np.asarray(crop).reshape(-1, 3), 0).max() == 0
    dark, _ = align(flat, np.array([(2, 2), (12, 2), (7, 8), (3, 12), (11, 12)], np.float32), "arcface-112", 112)
    assert np.asarray(dark)[0, 0].max() == 0, "arcface's crops are black there"


@pytest.mark.parametrize("size", [48, 128, 400])
def test_paste_keeps_everything_outside_the_mask(astronaut: Image.Image, size: int) -> None:
    crop, matrix = align(astronaut, FACE, "ffhq", size)
    mask = feathered(size, 0.2)
    negative = Image.fromarray(255 - np.asarray(crop))
    pasted = np.asarray(paste(astronaut, negative, matrix, mask)).astype(int)
    before = np.asarray(astronaut).astype(int)
    x0, y0, x1, y1 = region(matrix, crop.size, astronaut.size)
    outside = np.ones(before.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert (pasted[outside] == before[outside]).all()
    assert np.abs(pasted - before)[(y0 + y1) // 2, (x0 + x1) // 2].max() > 30, "inside, the negative is seen"
    assert (np.asarray(paste(astronaut, negative, matrix, np.zeros((size, size)))) == before).all(), "an empty mask changes nothing"


def test_paste_returns_what_was_cut(astronaut: Image.Image) -> None:
    crop, matrix = align(astronaut, FACE, "ffhq", 512)  # larger than in the picture
    pasted = paste(astronaut, crop, matrix, feathered(512))
    face = np.abs(np.float32(pasted) - np.float32(astronaut))[70:190, 170:280]
    assert face.mean() < 1.5 and np.percentile(face, 99) < 9


def test_paste_off_the_picture_and_wrong_masks(astronaut: Image.Image) -> None:
    crop = Image.new("RGB", (32, 32))
    away = np.array([[1.0, 0, -2000], [0, 1.0, -2000]])
    assert (np.asarray(paste(astronaut, crop, away, np.ones((32, 32)))) == np.asarray(astronaut)).all()
    with pytest.raises(InputError, match="alike"):
        paste(astronaut, crop, away, np.ones((16, 16)))


def test_face_scales_with_its_picture() -> None:
    twice = FACE.scaled(2, 2)
    assert twice.points == pytest.approx(POINTS * 2 + 0.5)
    assert twice.size == pytest.approx(2 * FACE.size, rel=1e-5)
    row = np.concatenate([FACE.box, [FACE.score], POINTS.ravel()])
    assert Face.from_row(row).points == pytest.approx(POINTS)


def test_flips_are_their_own_inverse() -> None:
    assert (FLIP_68[FLIP_68] == np.arange(68)).all()
    assert five_from_mesh(np.arange(478 * 3).reshape(478, 3)).shape == (5, 2)

"""A small model's change on a large photograph: moved, not smeared; nothing outside the mask."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from limn.faces import transfer

SIDE = 64  # of the model


def face_points(shift: tuple[float, float] = (0.0, 0.0), mouth: float = 0.0) -> np.ndarray:
    """Return a stand-in for a mesh in crop sides: an oval of points, and rings for lips and eyes where transfer looks for them."""
    rng = np.random.default_rng(3)
    angle, radius = rng.uniform(0, 2 * np.pi, 478), np.sqrt(rng.uniform(0, 1, 478))
    mesh = np.stack([0.5 + 0.22 * radius * np.cos(angle), 0.52 + 0.28 * radius * np.sin(angle)], -1)
    rings = (
        (transfer.INNER_LIPS, 0.5, 0.68, 0.08, 0.004 + mouth),
        (transfer.EYE_A, 0.4, 0.45, 0.04, 0.015),
        (transfer.EYE_B, 0.6, 0.45, 0.04, 0.015),
    )
    for ring, x, y, width, height in rings:
        turn = np.linspace(np.pi, 3 * np.pi, len(ring), endpoint=False)
        mesh[list(ring)] = np.stack([x + width * np.cos(turn), y + height * np.sin(turn)], -1)
    mesh[list(transfer.HAIRLINE)], mesh[transfer.BROW] = (0.5, 0.24), (0.5, 0.42)
    return (mesh + shift).astype(np.float32)


def picture(side: int, level: float = 128, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 25, (side, side, 3))
    return Image.fromarray((level + noise).clip(0, 255).astype(np.uint8))


def crop_matrix(size: tuple[int, int], side: float) -> np.ndarray:
    """Return photo -> crop of SIDE pixels for a square of `side` photo pixels about the middle."""
    scale = SIDE / side
    x, y = (size[0] - side) / 2, (size[1] - side) / 2
    return np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])


def flat(level: float = 128) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (int(level),) * 3)


def test_no_change_gives_the_very_photo() -> None:
    photo, mesh = picture(400), face_points()
    change = transfer.measure(flat(), flat(), flat(), (mesh, mesh, mesh))
    assert np.array_equal(np.asarray(transfer.apply(photo, change, crop_matrix(photo.size, 300), SIDE)[0]), np.asarray(photo))


def test_outside_the_mask_not_a_bit_changes_and_inside_something_does() -> None:
    photo, mesh = picture(500), face_points()
    change = transfer.measure(flat(), flat(), flat(150), (mesh, mesh, face_points((0.02, 0.0))))
    matrix = crop_matrix(photo.size, 320)
    changed, mask = transfer.apply(photo, change, matrix, SIDE)
    result = np.asarray(changed).astype(int)
    assert np.array_equal(result[mask == 0], np.asarray(photo)[mask == 0]), "a pixel outside the mask was touched"
    moved = np.abs(result - np.asarray(photo)).max(-1)
    assert moved[:85].max() == 0 and moved[:, :85].max() == 0 and moved[415:].max() == 0 and moved[:, 415:].max() == 0
    assert (moved[200:300, 200:300] > 0).mean() > 0.8


def test_shape_is_carried_at_the_photos_resolution() -> None:
    """A dot of 3 pixels in the photo, far below what 64 pixels show, moves by the mesh's displacement and stays sharp."""
    photo = Image.new("RGB", (600, 600), (128, 128, 128))
    pixels = np.array(photo)
    pixels[311:314, 299:302] = 255
    mesh, target = face_points(), face_points((0.03, -0.02))
    change = transfer.measure(flat(), flat(), flat(), (mesh, mesh, target))
    result = np.asarray(transfer.apply(Image.fromarray(pixels), change, crop_matrix(photo.size, 400), SIDE)[0])[..., 0]
    y, x = np.unravel_index(result.argmax(), result.shape)
    assert abs(x - (300 + 0.03 * 400)) <= 1.5 and abs(y - (312 - 0.02 * 400)) <= 1.5
    assert result.max() > 230, "the dot was smeared"


def test_a_change_of_colour_arrives_smoothly_and_fades() -> None:
    photo, mesh = Image.new("RGB", (400, 400), (100, 100, 100)), face_points()
    change = transfer.measure(flat(100), flat(100), flat(130), (mesh, mesh, mesh))
    result = np.asarray(transfer.apply(photo, change, crop_matrix(photo.size, 300), SIDE)[0]).astype(int)[..., 0]
    assert abs(result[200, 200] - 130) <= 1
    assert np.abs(np.diff(result, axis=0)).max() <= 4 and np.abs(np.diff(result, axis=1)).max() <= 4, "a seam"


def test_without_tone_the_complexion_stays_and_local_shading_comes() -> None:
    photo, mesh = Image.new("RGB", (400, 400), (180, 140, 120)), face_points()
    before, after = photo.resize((SIDE, SIDE)), np.full((SIDE, SIDE, 3), (170, 120, 130), np.uint8)
    after = cv2.GaussianBlur(cv2.circle(after, (32, 30), 3, (150, 100, 110), -1), (0, 0), 2)
    change = transfer.measure(before, before, Image.fromarray(after), (mesh, mesh, mesh), tone=False)
    result = np.asarray(transfer.apply(photo, change, crop_matrix(photo.size, 300), SIDE)[0]).astype(int)
    assert np.abs(result[250, 130] - (180, 140, 120)).max() <= 4, "a colour cast"
    assert result[191, 200, 1] < 137, "the local shadow is gone"


def test_a_grey_photograph_stays_grey() -> None:
    photo, mesh = Image.new("RGB", (400, 400), (100, 100, 100)), face_points()
    red = Image.new("RGB", (SIDE, SIDE), (150, 90, 90))
    change = transfer.measure(flat(100), flat(100), red, (mesh, mesh, face_points(mouth=0.05)))
    result = np.asarray(transfer.apply(photo, change, crop_matrix(photo.size, 300), SIDE)[0]).astype(int)
    assert np.ptp(result, axis=-1).max() <= 1
    assert result[200, 200, 0] > 105, "the light did not change"


def test_an_opened_mouth_shows_the_models_pixels() -> None:
    photo, mesh, opened = Image.new("RGB", (400, 400), (150, 120, 110)), face_points(), face_points(mouth=0.05)
    before, after = Image.new("RGB", (SIDE, SIDE), (150, 120, 110)), np.full((SIDE, SIDE, 3), (150, 120, 110), np.uint8)
    cv2.ellipse(after, (32, 43), (5, 3), 0, 0, 360, (250, 250, 250), -1)
    change = transfer.measure(before, before, Image.fromarray(after), (mesh, mesh, opened))
    result = np.asarray(transfer.apply(photo, change, crop_matrix(photo.size, 300), SIDE)[0])
    assert result[254, 200].min() > 215, "no teeth in the mouth"
    assert np.abs(result[200, 200].astype(int) - (150, 120, 110)).max() <= 6


def test_a_shut_mouth_hides_the_teeth() -> None:
    pixels, mesh, opened = np.full((400, 400, 3), (150, 120, 110), np.uint8), face_points(), face_points(mouth=0.05)
    cv2.ellipse(pixels, (200, 254), (24, 14), 0, 0, 360, (250, 250, 250), -1)
    photo, skin = Image.fromarray(pixels), Image.new("RGB", (SIDE, SIDE), (150, 120, 110))
    before = Image.fromarray(pixels[50:350, 50:350]).resize((SIDE, SIDE), Image.Resampling.BOX)
    change = transfer.measure(before, before, skin, (opened, opened, mesh))
    warped, _ = transfer.apply(photo, replace(change, shown=change.shown * 0), crop_matrix(photo.size, 300), SIDE)
    result, _ = transfer.apply(photo, change, crop_matrix(photo.size, 300), SIDE)
    teeth, left = (int((np.asarray(image)[..., 2] > 180).sum()) for image in (warped, result))
    assert teeth > 300 and left < 0.6 * teeth, "teeth shine through closed lips"


def test_a_flow_that_folds_is_smoothed_until_it_does_not() -> None:
    y, x = np.mgrid[0 : transfer.GRID, 0 : transfer.GRID] / transfer.GRID
    flow = np.stack([-0.12 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.001), 0 * x], -1).astype(np.float32)
    assert transfer.stretch(flow).min() < 0
    assert transfer.stretch(transfer.unfold(flow)).min() > 0


def test_a_face_cut_by_the_border() -> None:
    photo, mesh = picture(300), face_points()
    change = transfer.measure(flat(), flat(), flat(160), (mesh, mesh, face_points((0.03, 0.01))))
    matrix = np.array([[0.3, 0.05, 20.0], [-0.05, 0.3, 30.0]])  # half of the crop lies beyond the photo
    result, _ = transfer.apply(photo, change, matrix, SIDE)
    assert result.size == photo.size
    assert not np.array_equal(np.asarray(result), np.asarray(photo))


@pytest.mark.parametrize("size", [(4000, 3000)])
def test_a_large_photo_needs_little_memory_and_time(size: tuple[int, int]) -> None:
    photo, mesh = Image.new("RGB", size, (120, 120, 120)), face_points()
    change = transfer.measure(flat(), flat(), flat(150), (mesh, mesh, face_points((0.03, 0.01))))
    tracemalloc.start()
    began = time.perf_counter()
    transfer.apply(photo, change, crop_matrix(size, 2600), SIDE)
    took, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250e6, f"{peak / 1e6:.0f} MB beside the photo's own 36 MB"
    assert took < 15, f"{took:.1f} s"

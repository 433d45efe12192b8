"""The watermark: imperceptible, read without the original, after what happens to pictures, and never where there is none."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from skimage.data import astronaut

from limn.media import watermark

PAYLOAD = 0x12ABCDEF


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(astronaut())


@pytest.fixture(scope="module")
def marked(photo: Image.Image) -> Image.Image:
    return watermark.embed(photo, PAYLOAD)


def psnr(a: Image.Image, b: Image.Image) -> float:
    return float(10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 5, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def test_it_is_imperceptible_and_the_same_each_time(photo: Image.Image, marked: Image.Image) -> None:
    assert psnr(photo, marked) >= 42, "a large photograph has room for a weaker mark"
    assert watermark.embed(photo, PAYLOAD).tobytes() == marked.tobytes()


@pytest.mark.parametrize(
    "attack",
    [
        lambda image: image,
        lambda image: jpeg(image, 70),
        lambda image: jpeg(image, 50),
        lambda image: scaled(image, 0.75),
        lambda image: scaled(image, 1.37),
        lambda image: jpeg(scaled(image, 0.75), 70),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.filter(ImageFilter.GaussianBlur(1)),
        lambda image: image.point(lambda value: min(255, round(value * 1.2 + 10))),
        noisy,
    ],
    ids=["none", "jpeg70", "jpeg50", "x0.75", "x1.37", "x0.75 jpeg70", "mirror", "grey", "blur", "bright", "noise"],
)
def test_it_survives(marked: Image.Image, attack: Callable[[Image.Image], Image.Image]) -> None:
    found = watermark.detect(attack(marked), cropped=False)
    assert found is not None and found.payload == PAYLOAD


def test_a_part_of_the_picture_is_enough(marked: Image.Image) -> None:
    found = watermark.detect(marked.crop((37, 51, 471, 490)))
    assert found is not None and found.payload == PAYLOAD


def test_pictures_without_a_mark_have_none(photo: Image.Image) -> None:
    flat, noise = Image.new("RGB", (300, 200), "grey"), np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    board = Image.fromarray(np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((16, 16))).astype(np.uint8) * 255).convert("RGB")
    for image in (photo.resize((256, 256)), flat, Image.fromarray(noise), board, Image.new("RGB", (1, 1)), Image.new("RGB", (3, 900))):
        assert watermark.detect(image) is None, image.size


def test_pixels_outside_the_mask_stay(photo: Image.Image) -> None:
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((120, 20, 340, 290), fill=255)
    weight = np.asarray(mask.filter(ImageFilter.GaussianBlur(6)), np.float32) / 255
    marked = watermark.embed(photo, PAYLOAD, weight)
    before, after = np.asarray(photo), np.asarray(marked)
    assert (before[weight == 0] == after[weight == 0]).all() and (before[weight > 0.9] != after[weight > 0.9]).any()
    found = watermark.detect(jpeg(marked, 80), cropped=False)
    assert found is not None and found.payload == PAYLOAD
    left, top, right, bottom = found.box
    assert left < 0.45 < right and top < 0.3 < bottom and (right - left) * (bottom - top) < 0.8, "the box shows where"
    assert watermark.embed(photo, PAYLOAD, np.zeros_like(weight)).tobytes() == photo.tobytes()


@pytest.mark.parametrize("size", [64, 128, 200])
def test_small_pictures(photo: Image.Image, size: int) -> None:
    """128 pixels carry the bytes; 64 at least say that the mark is there."""
    face = photo.crop((130, 10, 310, 190)).resize((size, size), Image.Resampling.LANCZOS)
    marked = watermark.embed(face, PAYLOAD)
    found = watermark.detect(marked)
    assert psnr(face, marked) >= 40
    assert found is not None and found.payload in ({PAYLOAD} if size >= 128 else {PAYLOAD, None})
    if size >= 128:
        again = watermark.detect(jpeg(marked, 75))
        assert again is not None and again.payload == PAYLOAD


def test_a_pen_marks_the_frames_of_a_clip(photo: Image.Image) -> None:
    pen = watermark.Pen(photo, PAYLOAD)
    other = photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    found = watermark.detect(pen.embed(other), cropped=False)
    assert found is not None and found.payload == PAYLOAD


def test_what_cannot_be_marked_is_refused(photo: Image.Image) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        watermark.embed(photo, 1 << 32)
    with pytest.raises(ValueError, match="one number per pixel"):
        watermark.embed(photo, 1, np.ones((3, 4)))
    tiny = Image.new("RGB", (1, 1), "red")
    assert watermark.embed(tiny, 1).size == (1, 1)

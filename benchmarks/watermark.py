"""How well the watermark survives, and how little it shows: `python benchmarks/watermark.py FOLDER [--size 128]`.

Every picture of the folder is marked with a payload of its own and read again after each change; `payload` is the share of pictures whose
32 bits were read exactly, `present` the share in which a mark was found at all, `false` counts the unmarked pictures in which one was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from limn.errors import InputError
from limn.media import read_image, watermark


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def cropped(image: Image.Image, keep: float) -> Image.Image:
    """Cut out `keep` of each side, a little off the centre."""
    left, top = round(image.width * (1 - keep) * 0.45), round(image.height * (1 - keep) * 0.55)
    return image.crop((left, top, left + round(image.width * keep), top + round(image.height * keep)))


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "jpeg 90": lambda image: jpeg(image, 90),
    "jpeg 70": lambda image: jpeg(image, 70),
    "jpeg 50": lambda image: jpeg(image, 50),
    "x0.75": lambda image: scaled(image, 0.75),
    "x0.5": lambda image: scaled(image, 0.5),
    "x1.5": lambda image: scaled(image, 1.5),
    "x0.75 + jpeg 70": lambda image: jpeg(scaled(image, 0.75), 70),
    "noise 5": lambda image: noisy(image, 5),
    "blur 1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "mirror": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "crop 80 %": lambda image: cropped(image, 0.8),
    "crop 80 % + jpeg 80": lambda image: jpeg(cropped(image, 0.8), 80),
    "crop 50 %": lambda image: cropped(image, 0.5),
    "rotate 1 degree": lambda image: image.rotate(1, Image.Resampling.BICUBIC),
}


def ellipse(size: tuple[int, int], share: float) -> np.ndarray:
    """Return a soft mask (H, W) of a face-like ellipse whose height is `share` of the short side."""
    mask = Image.new("L", size)
    tall = share * min(size)
    x, y = size[0] * 0.47, size[1] * 0.42
    ImageDraw.Draw(mask).ellipse((x - tall * 0.4, y - tall / 2, x + tall * 0.4, y + tall / 2), fill=255)
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(tall * 0.03)), np.float32) / 255


def pictures(folder: Path, size: int, limit: int) -> list[Image.Image]:
    images = []
    for path in sorted(folder.iterdir()):
        try:
            image = read_image(path).image if path.is_file() else None
        except InputError:
            continue
        if image is not None and size:
            image = image.crop((0, 0, min(image.size), min(image.size))).resize((size, size), Image.Resampling.LANCZOS)
        images.extend([image] if image is not None else [])
    return images[:: max(1, len(images) // limit)][:limit] if limit else images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=0, help="make squares of this size first")
    parser.add_argument("--mask", type=float, default=0, help="mark only an ellipse of this share of the short side")
    parser.add_argument("--limit", type=int, default=0, help="at most so many pictures")
    options = parser.parse_args()
    images = pictures(options.folder, options.size, options.limit)
    exact, present = dict.fromkeys(CHANGES, 0), dict.fromkeys(CHANGES, 0)
    quality, false, times = [], 0, np.zeros(2)
    for place, image in enumerate(images):
        payload = (place * 2654435761 + 12345) & 0xFFFFFFFF
        mask = ellipse(image.size, options.mask) if options.mask else None
        began = time.monotonic()
        marked = watermark.embed(image, payload, mask)
        times[0] += time.monotonic() - began
        error = (np.asarray(marked, float) - np.asarray(image, float))[slice(None) if mask is None else mask > 0.5]
        quality.append(10 * np.log10(255**2 / np.mean(error**2)))
        false += watermark.detect(image) is not None
        for name, change in CHANGES.items():
            began = time.monotonic()
            found = watermark.detect(change(marked), cropped="crop" in name)
            times[1] += time.monotonic() - began
            exact[name] += found is not None and found.payload == payload
            present[name] += found is not None
    print(f"{len(images)} pictures, {false} false; PSNR {np.mean(quality):.1f} dB on average, {min(quality):.1f} dB at least")
    print(f"{times[0] / len(images):.2f} s to mark, {times[1] / len(images) / len(CHANGES):.2f} s to read")
    for name in CHANGES:
        print(f"{name:22s} payload {exact[name] / len(images):6.1%}   present {present[name] / len(images):6.1%}")


if __name__ == "__main__":
    main()

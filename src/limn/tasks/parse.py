"""`limn parse`: which part of a face every pixel of a photograph shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from PIL import Image

from limn.errors import InputError
from limn.faces.parse import PARSER
from limn.tasks.portrait import Picture, choose_faces

if TYPE_CHECKING:
    from limn.faces.parse import Parsing

STRENGTH = 0.55  # of the colours in the overlay


@dataclass(frozen=True)
class Parsed:
    """What was found, and where it was written."""

    photo: str
    faces: tuple[int, ...]  # that were parsed, by size
    faces_found: int
    parser: str
    region: str
    parts: Mapping[str, float]  # share of the photo's pixels, of each class that is there
    files: tuple[Path, ...]
    seconds: float
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})  # as written


def parse(
    photo: Annotated[Picture, "A photograph."],
    *,
    out: Annotated[Path, "A PNG: class numbers with a palette of colours, or with --region a mask of 0 to 255."],
    region: Annotated[str, "Only these parts, as a mask: hair, skin, mouth, eyes, brows, nose, face ...; several with commas."] = "",
    grow: Annotated[float, "How far the mask grows, in distances between the eyes; negative: shrinks."] = 0.0,
    feather: Annotated[float, "Over how much its edge falls, in the same unit; 0: as the parser is unsure."] = 0.0,
    overlay: Annotated[Path | None, "A picture of the parts laid over the photograph."] = None,
    face: Annotated[int | str, "Which face: 0 is the largest; or all."] = 0,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    parser: Annotated[str, "What parses: limn-parser, mesh (draws what the mesh knows), or a file such as BiSeNet's."] = PARSER,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Parsed:
    """Parse a face: skin, brows, eyes, nose, lips, hair, neck, clothes, each pixel of the upright photograph.

    What lies beyond the crop about a face counts as background. With --region the picture serves as a mask for other verbs.
    """
    from limn import device as devices
    from limn.faces.parse import parse as parse_face
    from limn.media import output_format, read_image, writable

    began = time.monotonic()
    for path in filter(None, (out, overlay)):
        output_format(path)
        writable(path)
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: labels and masks are written without loss: name a .png")
    taken, place = read_image(photo), devices.choose(device)
    chosen, count = choose_faces(taken, face, detector)
    parsings = [parse_face(taken.image, one, parser, place) for one in reversed(chosen)]  # larger faces lie over smaller ones
    labels, classes = _joined(parsings), parsings[0].classes
    shown = _mask(parsings, region, grow, feather) if region else parsings[0].picture(labels)
    shares = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
    found = {name: round(float(share), 5) for name, share in zip(classes, shares, strict=True) if share}
    files = [_write(shown, out)]
    if overlay is not None:
        files.append(_write(_over(taken.image, parsings[0].picture(labels)), overlay))
    indices, name = tuple(one.index for one in chosen), str(taken.path or "picture")
    return Parsed(name, indices, count, parser, region, found, tuple(files), time.monotonic() - began, (shown,))


def _joined(parsings: list[Parsing]) -> np.ndarray:
    """Lay the labels of faces over each other, later ones on top."""
    joined = np.zeros(parsings[0].size[::-1], np.uint8)
    for parsing in parsings:
        labels = parsing.labels()
        joined = np.where(labels > 0, labels, joined)
    return joined


def _mask(parsings: list[Parsing], region: str, grow: float, feather: float) -> Image.Image:
    masks = [parsing.region(region, grow, feather) for parsing in parsings]
    return Image.fromarray(np.rint(np.maximum.reduce(masks) * 255).astype(np.uint8))


def _over(photo: Image.Image, shown: Image.Image) -> Image.Image:
    """Lay the colours of an index picture over a photo, save those of the background."""
    opacity = Image.fromarray(np.where(np.asarray(shown) > 0, round(255 * STRENGTH), 0).astype(np.uint8))
    return Image.composite(shown.convert("RGB"), photo, opacity)


def _write(image: Image.Image, path: Path) -> Path:
    from limn.media import write_image

    return write_image(image, path) if image.mode == "RGB" else _write_plain(image, path)


def _write_plain(image: Image.Image, path: Path) -> Path:
    """Write class numbers or a mask as they are, without the conversion to RGB."""
    from limn.media import atomic

    with atomic(path) as beside:
        image.save(beside, "PNG")
    return path

"""One writer for every photograph: the format from the suffix, like quality and metadata from the photo that was edited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from limn.errors import InputError
from limn.media.files import atomic, writable
from limn.media.photo import Photo, heif

if TYPE_CHECKING:
    from limn.media.marks import Origin

SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".heic": "HEIF",
}
QUALITY = {"JPEG": 92, "WEBP": 92, "AVIF": 85, "HEIF": 90}  # where no JPEG of the photo's own says otherwise
XMP_LIMIT = 65_502  # bytes that one JPEG segment holds


def output_format(path: str | Path) -> str:
    """Return Pillow's name of the format that the suffix of `path` asks for; InputError lists the known suffixes."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"cannot write {path}: no picture format has the suffix {suffix!r}; use one of {', '.join(SUFFIXES)}")
    if SUFFIXES[suffix] == "HEIF":
        heif(Path(path))
    return SUFFIXES[suffix]


def write_image(
    image: Image.Image | Photo,
    path: str | Path,
    like: Photo | None = None,
    origin: Origin | None = None,
    mask: NDArray[np.generic] | None = None,
) -> Path:
    """Write RGB pixels to `path`, whole or not at all, and return it; the suffix names the format.

    From `like` (or `image` itself, where it is a Photo) come alpha, EXIF, XMP, colour profile and, JPEG to JPEG, quality and subsampling.
    With an `origin` the picture is marked: a watermark (only where `mask` (H, W) is above 0) and signed content credentials.
    InputError for an unknown suffix, a missing or read-only folder, a full disk.
    """
    if isinstance(image, Photo):
        like = like or image
        image = image.image
    kind = output_format(path)
    writable(path)
    with atomic(path) as beside:
        if origin is None:
            encode(image, beside, kind, like)
        else:
            from limn.media import marks

            encode(marks.mark_pixels(image, origin, mask), beside, kind, like)
            marks.sign(beside, origin, Path(path).name)
    return Path(path)


def encode(image: Image.Image, path: Path, kind: str, like: Photo | None) -> None:
    """Encode to `path` as it is; `write_image` is the safe way."""
    pixels = _with_alpha(image if image.mode == "RGB" else image.convert("RGB"), like.alpha if like else None, kind)
    own, kept = image.info.get("icc_profile"), pixels.info
    # Pillow writes what it finds there; no copy is made for it: of a picture enlarged to 16000 pixels it would be a gigabyte
    pixels.info = {} if like or not own or image.mode != "RGB" else {"icc_profile": own}
    try:
        pixels.save(path, format=kind, **_options(kind, like))
    except (ValueError, SyntaxError, OverflowError) as error:
        raise InputError(f"cannot write a picture of {image.width}x{image.height} as {kind}: {error}; choose another format") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError(f"cannot write a picture of {image.width}x{image.height} as {kind}: {error}; choose another format") from error
    finally:
        pixels.info = kept


def _with_alpha(image: Image.Image, alpha: Image.Image | None, kind: str) -> Image.Image:
    """Put alpha back; a format without it gets what a viewer would show on white."""
    if alpha is None:
        return image
    if alpha.size != image.size:
        alpha = alpha.resize(image.size, Image.Resampling.LANCZOS)
    if kind == "JPEG":
        return Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    joined = image.copy()
    joined.putalpha(alpha)
    return joined


def _options(kind: str, like: Photo | None) -> dict[str, Any]:
    options: dict[str, Any] = {"quality": QUALITY[kind]} if kind in QUALITY else {}
    if kind == "JPEG":
        options |= {"subsampling": 0, "optimize": True}
    if like is None:
        return options
    if kind == "JPEG" and like.quality:
        # above 95 libjpeg spends bytes without a gain, but a photo that came so goes so
        options |= {"quality": like.quality, "subsampling": 0 if like.subsampling is None else like.subsampling}
    return options | _metadata(kind, like)


def _metadata(kind: str, like: Photo) -> dict[str, Any]:
    kept: dict[str, Any] = {"icc_profile": like.icc} if like.icc else {}
    if kind == "TIFF":
        return kept | _tiff_tags(like)
    if like.exif:
        kept["exif"] = like.exif
    if like.xmp and kind == "PNG":
        kept["pnginfo"] = PngImagePlugin.PngInfo()
        kept["pnginfo"].add_itxt("XML:com.adobe.xmp", like.xmp.decode("utf-8", "replace"))
    elif like.xmp and (kind != "JPEG" or len(like.xmp) <= XMP_LIMIT):
        kept["xmp"] = like.xmp
    return kept


def _tiff_tags(like: Photo) -> dict[str, Any]:
    """In a TIFF file EXIF and XMP are tags among the others (uncompressed: libtiff refuses the EXIF directory)."""
    tags = Image.Exif()
    if like.exif:
        tags.load(like.exif)
    if like.xmp:
        tags[700] = like.xmp
    return {"exif": tags} if len(tags) else {}

"""One reader for every photograph: upright 8-bit RGB pixels, and what has to survive an edit of them."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin, UnidentifiedImageError

from limn.errors import InputError
from limn.media import exif, jpeg

PIXELS = 100_000_000  # largest picture that is decoded unless the caller allows more
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000")  # no format whose decoder starts another program
READABLE = "JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP, JPEG 2000 and, with limn[heif], HEIC"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)  # what decoders raise on damage
# TIFF tags that describe the photo; the others describe how its pixels lie in that file
TIFF_TAGS = {0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825}


@dataclass(frozen=True)
class Photo:
    """A photograph as read: upright RGB pixels, and what is put back when an edit of it is written."""

    image: Image.Image  # RGB, EXIF orientation applied
    alpha: Image.Image | None = None  # L, same size
    exif: bytes | None = None  # orientation reset, thumbnail removed
    icc: bytes | None = None  # an RGB profile; the pixels are in it, unconverted
    xmp: bytes | None = None
    format: str = ""  # as Pillow names it: "JPEG", "PNG", ...
    quality: int | None = None  # estimated libjpeg quality of a JPEG, 1 to 100
    subsampling: int | None = None  # of a JPEG: 0 4:4:4, 1 4:2:2, 2 4:2:0
    path: Path | None = None
    notes: tuple[str, ...] = ()  # what was changed on reading, in words

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size


def read_image(source: str | Path | Image.Image | Photo, pixels: int = PIXELS) -> Photo:
    """Read a photo from a path, or take a PIL image; `pixels` caps width times height, checked before anything is decoded.

    InputError for what is missing, is no picture, is damaged or is larger than the cap.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, Image.Image):
        return _photo(source, None, pixels, "the image")
    path = Path(source).expanduser()
    _check_file(path)
    with _opened(path) as opened:
        return _photo(opened, path, pixels, str(path))


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a picture: give one file")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}: check the name") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise InputError(f"{path} is empty: give a picture")
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        heif(path)


def heif(path: Path) -> None:
    """Teach Pillow to read and write HEIC; InputError where pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{path} is a HEIC file: install limn[heif] for it, or convert it to JPEG") from error
    pillow_heif.register_heif_opener()


def _opened(path: Path) -> Image.Image:
    """Read the header only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the cap is ours to say
            formats = [*FORMATS, "HEIF"] if "HEIF" in Image.OPEN else list(FORMATS)
            return Image.open(path, formats=formats)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} says it is larger than any picture that is read ({error}): scale it down first") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture that can be read: expected {READABLE}") from error
    except BROKEN as error:
        raise InputError(f"{path} is damaged ({_said(error)}): expected a whole picture") from error


def _photo(opened: Image.Image, path: Path | None, pixels: int, name: str) -> Photo:
    width, height = opened.size
    if width * height > pixels:
        raise InputError(f"{name} is {width}x{height} pixels, more than the {pixels / 1e6:g} million allowed: scale it down first")
    kept = _kept(opened)
    notes = list(_notes(opened))
    try:
        opened.load()
        turned = ImageOps.exif_transpose(opened)
        image, alpha, icc = _rgb(turned, kept.icc, notes)
    except BROKEN as error:
        raise InputError(f"{name} is damaged or cut off ({_said(error)}): expected a whole picture") from error
    image.info = {}  # Pillow would write the raw metadata of the file again
    return replace(kept, image=image, alpha=alpha, icc=icc, path=path, notes=tuple(notes))


def _kept(opened: Image.Image) -> Photo:
    """Collect what the header says, before the pixels are touched."""
    name = {"MPO": "JPEG"}.get(opened.format or "", opened.format or "")
    tables = getattr(opened, "quantization", None)
    sampling = JpegImagePlugin.get_sampling(opened) if tables and isinstance(opened, JpegImagePlugin.JpegImageFile) else -1
    block, packet = _exif(opened), _bytes(opened.info.get("xmp") or opened.info.get("XML:com.adobe.xmp"))
    return Photo(
        image=opened,
        exif=exif.upright(block) or None if block else None,
        icc=_bytes(opened.info.get("icc_profile")),
        xmp=exif.upright_xmp(packet) if packet else None,
        format=name,
        quality=jpeg.quality(tables) if tables else None,
        subsampling=sampling if sampling >= 0 else None,
    )


def _exif(opened: Image.Image) -> bytes | None:
    if opened.format != "TIFF":
        return _bytes(opened.info.get("exif"))
    tags = opened.getexif()
    for tag in set(tags) - TIFF_TAGS:
        del tags[tag]
    return tags.tobytes() if len(tags) else None


def _bytes(value: str | bytes | None) -> bytes | None:
    return (value.encode() if isinstance(value, str) else value) or None


def _notes(opened: Image.Image) -> list[str]:
    notes = []
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":
        notes.append(f"{frames} frames or pages: the first one is used")
    if any("16" in str(tile[3]) for tile in getattr(opened, "tile", ()) if opened.mode in {"RGB", "RGBA"}):
        notes.append("16 bits per channel read as 8")
    return notes


def _rgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> tuple[Image.Image, Image.Image | None, bytes | None]:
    """Return RGB, alpha or None, and the profile that holds for the RGB pixels."""
    alpha = None
    if image.has_transparency_data:
        notes.extend(["palette converted to RGB"] if image.mode in {"P", "PA"} else [])
        image = image.convert("RGBA" if image.mode != "LA" else "LA")
        alpha = image.getchannel("A")
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    if image.mode == "RGB":
        return image.copy(), alpha, icc if _space(icc) == "RGB" else None
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image, notes)
    if icc and _space(icc) == {"CMYK": "CMYK", "L": "GRAY"}.get(image.mode):
        return _managed(image, icc, notes), alpha, None
    words = {"L": "grey", "1": "black and white", "P": "palette"}.get(image.mode, image.mode)
    notes.append(f"{words} converted to RGB")
    return image.convert("RGB"), alpha, icc if _space(icc) == "RGB" else None


def _space(icc: bytes | None) -> str:
    """Return the colour space that a profile is for: "RGB", "CMYK", "GRAY" ... (ICC.1:2022, 7.2.8)."""
    return icc[16:20].decode("latin-1").strip() if icc else ""


def _managed(image: Image.Image, icc: bytes, notes: list[str]) -> Image.Image:
    try:
        done = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(BytesIO(icc)), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        done = None
    if done is None:
        notes.append(f"{image.mode} converted to RGB without its profile, which cannot be used")
        return image.convert("RGB")
    notes.append(f"{'grey' if image.mode == 'L' else image.mode} converted to sRGB by its profile")
    return done


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Return L from 16-bit or 32-bit integers (0 to 65535) or floats (0 to 1, or 0 to 255 where they exceed 1)."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F":
        values = values * (255 if values.max(initial=0) <= 1 else 1)
        notes.append("floating-point grey read as 8 bits")
    else:
        values = values / 257
        notes.append("16-bit grey read as 8 bits")
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _said(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]

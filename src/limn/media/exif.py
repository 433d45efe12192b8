"""The EXIF and XMP blocks of a photo, as bytes: orientation reset and the stale thumbnail removed, everything else untouched.

The block is patched in place instead of being written anew, so that maker notes keep the offsets that they rely on.
"""

from __future__ import annotations

import re
import struct

PREFIX = b"Exif\x00\x00"
ORIENTATION, THUMBNAIL_AT, THUMBNAIL_BYTES = 0x0112, 0x0201, 0x0202


def upright(exif: bytes) -> bytes:
    """Return the EXIF block with orientation 1 and without its thumbnail, which would still show the photo as it was."""
    prefix = PREFIX if exif.startswith(PREFIX) else b""
    body = bytearray(exif[len(prefix) :])
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(body[:2])]
        (start,) = struct.unpack_from(order + "I", body, 4)
        entries, link = _directory(body, order, start)
        if ORIENTATION in entries:
            struct.pack_into(order + "H", body, entries[ORIENTATION], 1)
        _drop_thumbnail(body, order, link)
    except (KeyError, struct.error):
        return b""  # no TIFF structure at all: nothing that a reader could use
    return PREFIX + bytes(body)


def upright_xmp(xmp: bytes) -> bytes:
    """Return the XMP packet with tiff:Orientation 1, as attribute or as element."""
    xmp = re.sub(rb"""(tiff:Orientation\s*=\s*["'])\d(["'])""", rb"\g<1>1\g<2>", xmp)
    return re.sub(rb"(<tiff:Orientation>\s*)\d(\s*</tiff:Orientation>)", rb"\g<1>1\g<2>", xmp)


def _directory(body: bytearray, order: str, start: int) -> tuple[dict[int, int], int]:
    """Return where the value field of each tag of the directory at `start` lies, and where its link to the next one lies."""
    (count,) = struct.unpack_from(order + "H", body, start)
    entries = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(order + "H", body, at)
        entries[tag] = at + 8
    return entries, start + 2 + 12 * count


def _drop_thumbnail(body: bytearray, order: str, link: int) -> None:
    """Unlink the second directory and blank the picture it points to (cut off where it is the end of the block)."""
    if link + 4 > len(body):
        return
    (second,) = struct.unpack_from(order + "I", body, link)
    struct.pack_into(order + "I", body, link, 0)
    if not second:
        return
    entries, _ = _directory(body, order, second)
    if THUMBNAIL_AT in entries and THUMBNAIL_BYTES in entries:
        (at,) = struct.unpack_from(order + "I", body, entries[THUMBNAIL_AT])
        (length,) = struct.unpack_from(order + "I", body, entries[THUMBNAIL_BYTES])
        end = min(at + length, len(body))
        if at < end:
            body[at:end] = b"" if end == len(body) else bytes(end - at)

"""Images and video in and out: colour, orientation, metadata, marks of origin.

`read_image` and `write_image` are the one reader and the one writer of photographs, `read_video` and `write_video` of clips;
`to_tensor` and `to_image` lead to the models and back; `Origin` and `verify` say where a picture comes from.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limn.media.files import atomic, writable
    from limn.media.marks import Credentials, Marks, Origin, Watermark, verify
    from limn.media.output import output_format, write_image
    from limn.media.photo import Photo, read_image
    from limn.media.sheet import grid
    from limn.media.tensor import to_image, to_tensor
    from limn.media.video import Clip, read_video
    from limn.media.video_output import write_video

_HOMES = {
    "atomic": "files",
    "writable": "files",
    "Photo": "photo",
    "read_image": "photo",
    "Credentials": "marks",
    "Marks": "marks",
    "Origin": "marks",
    "Watermark": "marks",
    "verify": "marks",
    "output_format": "output",
    "write_image": "output",
    "grid": "sheet",
    "to_tensor": "tensor",
    "to_image": "tensor",
    "Clip": "video",
    "read_video": "video",
    "write_video": "video_output",
}
__all__ = [
    "Clip",
    "Credentials",
    "Marks",
    "Origin",
    "Photo",
    "Watermark",
    "atomic",
    "grid",
    "output_format",
    "read_image",
    "read_video",
    "to_image",
    "to_tensor",
    "verify",
    "writable",
    "write_image",
    "write_video",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import limn.media` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

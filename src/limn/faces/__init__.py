"""One Face record: detect, landmarks, align, measure, paste back."""

from limn.faces.align import align, warp
from limn.faces.detect import choose, detect
from limn.faces.face import Face
from limn.faces.measures import measures
from limn.faces.paste import feathered, paste
from limn.faces.templates import TEMPLATES

__all__ = ["Face", "TEMPLATES", "align", "choose", "detect", "feathered", "measures", "paste", "warp"]

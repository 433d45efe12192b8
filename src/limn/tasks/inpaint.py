"""`limn inpaint`: fill a hole in a photograph, and change nothing else in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from PIL import Image

from limn.errors import FaceError, InputError, WeightsError
from limn.tasks.portrait import Picture, choose_faces, sources_of

if TYPE_CHECKING:
    from limn.faces import Face
    from limn.media import Photo
    from limn.weights import Loaded

MODEL = "limn-inpaint64"
AROUND = 0.08  # how far a region's hole reaches beyond its parts, in distances between the eyes
NEAREST = "nearest"
LINE = 0.12  # share of a pixel of the model that a line of a sketch must cover


@dataclass(frozen=True)
class Inpainted:
    """What was filled, by what, and where it was written."""

    photo: str
    hole: float  # share of the photo's pixels
    face: int | None  # whose surroundings the model saw, by size; None where it saw the whole picture
    model: str
    files: tuple[Path, ...]
    seconds: float
    notes: tuple[str, ...]
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})


@dataclass(frozen=True)
class Wanted:
    """Where a hole is asked for; what is given is joined."""

    mask: Picture | None
    box: str
    region: str
    strokes: bool
    seed: int


def inpaint(
    photo: Annotated[Picture, "A photograph."],
    *,
    out: Annotated[Path, "The filled photograph."],
    mask: Annotated[Picture | None, "A picture of the photo's size, white where it is to be filled."] = None,
    box: Annotated[str, "A hole by its edges in pixels: left,top,right,bottom."] = "",
    region: Annotated[str, "Parts of the face as the hole: mouth, eyes, brows, nose, face ...; several with commas."] = "",
    strokes: Annotated[bool, "A hole of brush strokes drawn from --seed, to try a model."] = False,
    sketch: Annotated[Picture | None, "Lines of the photo's size that the filling follows, where the model can."] = None,
    face: Annotated[int | str, "The face that a face model sees: a number, 0 the largest; or nearest, the one about the hole."] = NEAREST,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    marks: Annotated[bool, "Mark what is written as changed by a model: signed credentials and a watermark in the hole."] = True,
    model: Annotated[str, "Name or file of an inpainter: deepfill-v2, partial-conv."] = MODEL,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
    seed: Annotated[int, "Of the strokes."] = 0,
) -> Inpainted:
    """Fill a hole in a photograph; pixels outside it stay as they are, bit for bit in formats without loss (PNG, TIFF).

    A face model fills what lies in the aligned crop about a face; any other sees the photo about the hole. The filling takes on the
    colours that the photo has at its edge.
    """
    from limn import device as devices
    from limn.media import Origin, output_format, read_image, writable, write_image

    began = time.monotonic()
    output_format(out)
    writable(out)
    taken, loaded = read_image(photo), load_inpainter(model, devices.choose(device))
    wanted = Wanted(mask, box, region, strokes, seed)
    drawn = None if sketch is None else lines_of(sketch, taken)
    if drawn is not None and not getattr(loaded.model, "sketched", False):
        raise InputError(f"{model} takes no sketch: leave --sketch out, or use a model that was trained with one")
    faces = found_faces(taken, wanted, loaded, detector, face)
    hole = hole_of(taken, wanted, faces, loaded)
    image, chosen, notes = filled(taken, hole, faces, loaded, drawn)
    about = {name: value for name, value in (("box", box), ("region", region), ("strokes", strokes)) if value}
    origin = Origin("inpainted", Path(model).stem, loaded.hash, sources_of(taken), about, marked=marks)
    file = write_image(image, out, taken, origin, hole.astype(np.float32))
    took, name = time.monotonic() - began, str(taken.path or "picture")
    index = None if chosen is None else chosen.index
    return Inpainted(name, float(hole.mean()), index, Path(model).stem, (file,), took, (*taken.notes, *notes), (image,))


def load_inpainter(model: str, device: Any) -> Loaded:
    """Load a network that fills holes, by name or file; WeightsError where it is another."""
    from limn.weights import load

    loaded = load(model, device=device)
    if not hasattr(loaded.model, "inpaint"):
        raise WeightsError(f"{model} is the {loaded.part} of {loaded.system}: an inpainter is needed; `limn models list` shows them")
    return loaded


def found_faces(photo: Photo, wanted: Wanted, loaded: Loaded, detector: str, face: int | str) -> list[Face]:
    """Return the faces that may be meant; none are looked for where neither the model nor the hole needs one."""
    if not loaded.model.template and not wanted.region:
        return []
    return choose_faces(photo, "all" if face == NEAREST else face, detector)[0]


def hole_of(photo: Photo, wanted: Wanted, faces: Sequence[Face], loaded: Loaded) -> np.ndarray:
    """Return the hole (H, W) bool that is asked for; InputError where there is none, or nothing but hole."""
    from limn.faces import parse

    width, height = photo.size
    hole = np.zeros((height, width), bool)
    if wanted.mask is not None:
        hole |= levels(wanted.mask, photo, "mask") > 0.5
    if wanted.box:
        x0, y0, x1, y1 = edges_of(wanted.box, photo.size)
        hole[y0:y1, x0:x1] = True
    if wanted.region:
        hole |= parse.mask(photo.image, faces[0], wanted.region, grow=AROUND) > 0.5
    if wanted.strokes:
        hole |= stroked(photo, wanted.seed, faces, loaded)
    if not hole.any():
        asked = wanted.mask is not None or wanted.box or wanted.region or wanted.strokes
        said = "the hole is empty: a mask is white where the photo is to be filled" if asked else "no hole was given"
        raise InputError(f"{said}; say --mask M.png, --box left,top,right,bottom, --region mouth, or --strokes")
    if hole.mean() > 0.95:
        raise InputError(f"the hole covers {hole.mean():.0%} of the photo: leave something to go by (a mask is black where it stays)")
    return hole


def edges_of(box: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Read "left,top,right,bottom" in pixels; InputError for what is no box within (width, height)."""
    try:
        x0, y0, x1, y1 = (int(part) for part in box.split(","))
    except ValueError:
        raise InputError(f"--box {box!r} is not understood: write left,top,right,bottom in pixels, such as 120,80,200,140") from None
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
        raise InputError(f"--box {box} is no box within the photo of {size[0]}x{size[1]}: left < right and top < bottom, inside it")
    return x0, y0, x1, y1


def levels(source: Picture, photo: Photo, what: str) -> np.ndarray:
    """Return how white a picture of the photo's size is, (H, W) in [0, 1]; where it is transparent it is not."""
    from limn.media import read_image

    read = read_image(source)
    name = read.path or f"the {what}"
    if read.size != photo.size:
        told = f"{read.size[0]}x{read.size[1]}, the photo {photo.size[0]}x{photo.size[1]}"
        raise InputError(f"{name} is {told}: draw the {what} on a copy of the photo, at its size")
    white = np.asarray(read.image.convert("L"), np.float32) / 255
    return white if read.alpha is None else white * (np.asarray(read.alpha, np.float32) / 255)


def lines_of(source: Picture, photo: Photo) -> np.ndarray:
    """Return the lines of a sketch (H, W) in [0, 1], drawn dark on light or light on dark; most of it is paper."""
    white = levels(source, photo, "sketch")
    return 1 - white if np.median(white) > 0.5 else white


def stroked(photo: Photo, seed: int, faces: Sequence[Face], loaded: Loaded) -> np.ndarray:
    """Return brush strokes (H, W) bool: over the aligned crop of a face where the model sees that, else over the photo."""
    from limn.blocks import holes
    from limn.faces import fill
    from limn.models.records import seeded

    width, height = photo.size
    if not loaded.config.template:
        return holes.strokes(1, (height, width), seeded(seed))[0, 0].numpy() > 0.5
    size = int(loaded.config.size)
    view = fill.of_face(faces[0], loaded.config.template, size)
    return view.placed(holes.strokes(1, (size, size), seeded(seed))[0, 0].numpy(), photo.size) > 0.5


def filled(
    photo: Photo, hole: np.ndarray, faces: Sequence[Face], loaded: Loaded, sketch: np.ndarray | None
) -> tuple[Image.Image, Face | None, list[str]]:
    """Return the photo with its hole filled, the face that the model saw, and what is to be said of it."""
    from limn.faces import fill

    pixels, network = np.asarray(photo.image), cast(Any, loaded.model)
    if not network.template:
        view = fill.about(hole, network.multiple)
        return Image.fromarray(fill.painted(pixels, hole, view, painter(loaded, sketch, view))), None, []
    views = [fill.of_face(face, network.template, int(loaded.config.size)) for face in faces]
    covered = [float((view.covers(photo.size) & hole).sum()) / float(hole.sum()) for view in views]
    best = int(np.argmax(covered))
    if not covered[best]:
        raise FaceError("the hole lies outside the face, which is all that this model fills: give a whole-picture model with --model")
    view, notes = views[best], list[str]()
    inside = view.covers(photo.size) & hole
    pixels = fill.painted(pixels, hole, view, painter(loaded, sketch, view), inside)
    if covered[best] < 1:
        pixels = fill.spread_into(pixels, hole & ~inside)
        notes.append(
            f"{1 - covered[best]:.0%} of the hole lies beyond the face that this model fills: there colours were spread from its edge"
        )
    return Image.fromarray(pixels), faces[best], notes


def painter(loaded: Loaded, sketch: np.ndarray | None, view: Any) -> Any:
    """Return what paints a crop (h, w, 3) uint8 whose hole (h, w) is 1: the model, with the sketch as the crop sees it."""
    import torch

    from limn.media import to_tensor

    network: Any = loaded.model
    device = next(network.parameters()).device
    lines = None if sketch is None else torch.from_numpy(view.seen(sketch) > LINE)[None, None].float().to(device)

    def paint(crop: np.ndarray, hole: np.ndarray) -> np.ndarray:
        images = to_tensor(Image.fromarray(crop)).to(device)
        mask = torch.from_numpy(np.ascontiguousarray(hole))[None, None].float().to(device)
        with torch.inference_mode():
            found = network.inpaint(images, mask, lines)[0].float().cpu()
        return found.add(1).mul(127.5).clamp(0, 255).permute(1, 2, 0).numpy()

    return paint

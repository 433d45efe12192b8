"""`limn restore`: faces by a face model, the rest by a general one, in the photograph's own resolution or enlarged."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image

from limn.errors import FaceError, InputError, LimnError, WeightsError
from limn.tasks.portrait import SMALLEST, Picture, choose_faces, network, sources_of
from limn.tasks.progress import track

if TYPE_CHECKING:
    import torch

    from limn.faces import Face
    from limn.faces.renew import Renewal
    from limn.media import Photo
    from limn.weights import Loaded

MODEL = "limn-restorer128"
SCALES = (1, 2, 4)


@dataclass(frozen=True)
class Restored:
    """What was restored, where it was written, and how long it took."""

    photo: str
    faces: int  # that were restored
    model: str  # of the faces
    background: str  # of the rest
    scale: int
    files: tuple[Path, ...]
    seconds: float
    notes: tuple[str, ...]
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})  # of a folder none


@dataclass(frozen=True)
class How:
    """What is wanted of every photograph."""

    face: int | str
    model: Loaded | None
    name: str  # of the model
    background: Any  # network, or None
    background_name: str
    scale: int
    strength: float
    colourise: bool
    aligned: bool
    detector: str
    tile: int
    context: int | None
    device: torch.device


def restore(
    photo: Annotated[Picture, "A photograph, or a folder of them."],
    *,
    out: Annotated[Path, "The restored photograph; for a folder, a folder."],
    face: Annotated[int | str, "Which faces: all, none, or the number of one; 0 is the largest."] = "all",
    model: Annotated[str, "Name or file of a face restorer (gpen, gfpgan)."] = MODEL,
    background: Annotated[str, "Name or file of an enlarging network (real-esrgan, esrgan) for the rest."] = "",
    scale: Annotated[int, "How many times larger: 1, 2 or 4."] = 1,
    strength: Annotated[float, "How much of the change to the faces is applied, 0 to 1."] = 1.0,
    colourise: Annotated[bool, "Give the faces of a grey photograph colour."] = False,
    aligned: Annotated[bool, "The photograph is one face, cut out as FFHQ does: none is looked for."] = False,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    tile: Annotated[int, "Pixels a side of the tiles that the enlarging network gets; 0 chooses."] = 0,
    context: Annotated[int, "Pixels around a tile that it gets too; -1: all that it can see, so that there is no seam."] = -1,
    marks: Annotated[bool, "Mark what is written as changed by a model: signed credentials and a watermark."] = True,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Restored:
    """Restore a photograph or a folder of them: faces by a face model, pasted back into the photograph's own resolution.

    Where the photograph is finer than the model its own detail is kept, and only the change is taken from the model. With
    --scale, and with --background, all of the picture is enlarged or restored.
    """
    began = time.monotonic()
    how = planned(face, model, background, scale, strength, colourise, aligned, detector, tile, context, device)
    if not isinstance(photo, Image.Image) and Path(photo).expanduser().is_dir():
        return of_folder(Path(photo).expanduser(), Path(out), how, marks, began)
    done = one(photo, Path(out), how, marks)
    took = time.monotonic() - began
    return Restored(done.photo, done.faces, how.name, how.background_name, scale, done.files, took, done.notes, done.images)


def planned(
    face: int | str,
    model: str,
    background: str,
    scale: int,
    strength: float,
    colourise: bool,
    aligned: bool,
    detector: str,
    tile: int,
    context: int,
    device: str,
) -> How:
    """Check what was asked for and load the networks, before anything long is done."""
    from limn import device as devices

    if scale not in SCALES:
        raise InputError(f"--scale {scale} is not possible: give 1, 2 or 4")
    if not 0 <= strength <= 1:
        raise InputError(f"--strength {strength} is not possible: give a number from 0 to 1")
    if tile < 0 or context < -1:
        raise InputError(f"--tile {tile} --context {context}: tiles have 1 pixel or more (0 chooses), their context 0 or more (-1: all)")
    if face == "none" and colourise:
        raise InputError("--colourise gives faces colour: leave out --face none")
    place = devices.choose(device)
    loaded = None if face == "none" else face_model(model, place)
    general = general_model(background, place) if background else None
    names = (Path(model).stem if loaded else "", Path(background).stem if background else "")
    reach = None if context < 0 else context
    return How(face, loaded, names[0], general, names[1], scale, strength, colourise, aligned, detector, tile, reach, place)


def face_model(name: str, device: torch.device) -> Loaded:
    """Load a restorer of aligned faces; WeightsError for a network of any other kind."""
    from limn.weights import load

    loaded = load(name, device=device)
    if not hasattr(loaded.model, "restore") or not getattr(loaded.model, "template", None):
        hint = "give it with --background" if hasattr(loaded.model, "restore") else "`limn models list` shows which restore"
        raise WeightsError(f"{name} is the {loaded.part} of {loaded.system}, no restorer of faces: {hint}")
    return loaded


def general_model(name: str, device: torch.device) -> Any:
    """Load a network that restores or enlarges whole pictures; WeightsError for a network of any other kind."""
    loaded: Any = network(name, device)
    if not hasattr(loaded, "restore") or getattr(loaded, "template", None):
        raise WeightsError(f"{name} is no network for whole pictures: --background takes a file of real-esrgan or esrgan")
    if vars(loaded.config).get("channels_in", 3) != 3:
        raise WeightsError(f"{name} takes {loaded.config.channels_in} channels: --background takes a network for colour pictures")
    return loaded


def of_folder(folder: Path, out: Path, how: How, marks: bool, began: float) -> Restored:
    """Restore every picture of a folder; one that cannot be is named in the notes and passed over."""
    from limn.media.output import SUFFIXES

    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise InputError(f"{folder} holds no pictures: give a folder with some, or one file")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: the restored pictures of a folder need a folder")
    out.mkdir(parents=True, exist_ok=True)
    files, notes, faces = list[Path](), list[str](), 0
    for path in track(photos, "restoring", len(photos)):
        try:
            done = one(path, out / path.name, how, marks)
        except LimnError as error:
            notes.append(f"{path.name}: {error}")
            continue
        files.extend(done.files)
        notes.extend(f"{path.name}: {note}" for note in done.notes)
        faces += done.faces
    if not files:
        raise InputError(f"none of the {len(photos)} pictures in {folder} could be restored; the first: {notes[0]}")
    return Restored(str(folder), faces, how.name, how.background_name, how.scale, tuple(files), time.monotonic() - began, tuple(notes), ())


@dataclass(frozen=True)
class Done:
    """One photograph, restored and written."""

    photo: str
    faces: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    images: tuple[Image.Image, ...]


def one(photo: Picture, out: Path, how: How, marks: bool) -> Done:
    """Restore one photograph and write it."""
    from limn.faces import renew
    from limn.media import Origin, output_format, read_image, writable, write_image

    output_format(out)
    writable(out)
    taken = read_image(photo)
    chosen, notes = faces_of(taken, how)
    pixels = rest(taken.image, how)
    mask = np.zeros(pixels.shape[:2], bool) if how.background is None else None
    renewals = [renewal(taken, each, how) for each in track(chosen, "faces", len(chosen))]
    for (x0, y0, x1, y1), weight in renew.apply(pixels, renewals, how.strength):
        if mask is not None:
            mask[y0:y1, x0:x1] |= weight > 0
    image = Image.fromarray(pixels)
    del pixels
    settings = {"scale": how.scale, "strength": how.strength, "colourise": how.colourise, "background": how.background_name}
    origin = Origin("restored", how.name, how.model.hash if how.model else "", sources_of(taken), settings, marked=marks)
    untouched = mask is not None and not mask.any()
    file = write_image(image, out, taken, None if untouched else origin, mask)
    return Done(str(taken.path or "picture"), len(chosen), (file,), taken.notes + notes, (image,))


def faces_of(photo: Photo, how: How) -> tuple[list[Face], tuple[str, ...]]:
    """Return the faces to be restored, and what is to be said of them; without any there must be something else to do."""
    from limn.faces.renew import grey

    if how.face == "none":
        return [], ()
    try:
        chosen = [framed(photo.size)] if how.aligned else found(photo, how)
    except FaceError:
        if how.face != "all" or (how.background is None and how.scale == 1):
            raise
        return [], ("no face was found: the rest was worked on",)
    colourless = grey(np.asarray(photo.image.resize((64, 64), Image.Resampling.BOX)))
    if how.colourise and not colourless:
        return chosen, ("the photograph has colours of its own: --colourise replaces those of the faces",)
    if colourless and not how.colourise:
        return chosen, ("the photograph is grey: --colourise gives its faces colour",)
    return chosen, ()


def found(photo: Photo, how: How) -> list[Face]:
    """Return the faces asked for; where a plain look finds none, those that a look for worn ones does."""
    from limn.faces import choose, worn

    try:
        return choose_faces(photo, how.face, how.detector)[0]
    except FaceError as error:
        faces = worn.find(photo.image, how.detector, how.device) if min(photo.size) >= SMALLEST else []
        if not faces:
            raise FaceError(f"{error}; a picture that is one face, as FFHQ cuts it, goes with --aligned") from error
        return choose(faces, how.face)


def framed(size: tuple[int, int]) -> Face:
    """Return the face of a picture that is one, where FFHQ has its points."""
    from limn.faces import Face
    from limn.faces.templates import FACEFUSION

    points = np.asarray(FACEFUSION["ffhq_512"]) * size - 0.5
    return Face((0.0, 0.0, float(size[0]), float(size[1])), 1.0, points.astype(np.float32))


def rest(image: Image.Image, how: How) -> np.ndarray:
    """Return the whole picture at its new size, (H, W, 3) uint8, by the general network or by resampling."""
    from limn.tasks.tiles import enlarged

    size = image.width * how.scale, image.height * how.scale
    if how.background is None:
        return np.array(image if how.scale == 1 else image.resize(size, Image.Resampling.LANCZOS))
    made = enlarged(image, how.background, how.device, how.tile, how.context)
    if made.shape[:2] == (size[1], size[0]):
        return made
    return np.array(Image.fromarray(made).resize(size, Image.Resampling.LANCZOS))


def renewal(photo: Photo, face: Face, how: How) -> Renewal:
    """Restore one face of the photograph; the result says how it lies in the enlarged one."""
    import torch

    from limn.faces import align, fit, renew
    from limn.media import to_image, to_tensor

    assert how.model is not None, "faces are chosen only where there is a model"
    restorer: Any = how.model.model
    crop, matrix = align(photo.image, face, restorer.template, int(restorer.config.size))
    with torch.inference_mode():
        made = to_image(restorer.restore(to_tensor(crop).to(how.device)).float().cpu())
    fine = 1 / fit.scale_of(matrix)
    return renew.Renewal(np.asarray(crop), np.asarray(made), renew.enlarged(matrix, how.scale), fine, how.colourise)

"""`limn edit`: change a face in a photograph, and nothing else in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from PIL import Image

from limn.errors import InputError
from limn.tasks.invert import How, Method, find, tuned_model
from limn.tasks.portrait import ENCODER, GENERATOR, TEMPLATE, Model, Picture, Subject, choose_faces, cut, load_generator, meshes, sources_of
from limn.tasks.progress import track

if TYPE_CHECKING:
    from limn.faces import Face
    from limn.latent.directions import Direction
    from limn.latent.files import Latent
    from limn.media import Origin, Photo

    Known = Mapping[str, Direction]

Changes = Mapping[str, float]  # direction -> strength
SHAPE = ("smile", "mouth_open", "eyes_open", "brow", "yaw", "pitch")  # directions of expression and pose: skin keeps its tone
AROUND, SOFT = 0.15, 0.3  # how far about a region a change may reach, and over how much it fades there, in distances between the eyes
STRIP_HEIGHT = 512  # pixels: the pictures of a strip are no taller


@dataclass(frozen=True)
class Edited:
    """What was changed, where it was written, and how long it took."""

    photo: str
    changes: Mapping[str, float]
    faces: tuple[int, ...]  # that were edited, by size
    faces_found: int
    model: str
    files: tuple[Path, ...]
    seconds: float
    notes: tuple[str, ...]
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})  # the edited photo, or those of the strip


@dataclass(frozen=True)
class Prepared:
    """A face with its code: what every strength of an edit starts from."""

    subject: Subject
    model: Model  # tuned, where the latent asks for it
    latent: Latent
    region: np.ndarray | None = None  # (GRID, GRID) in [0, 1]: where in the crop it may change; None: everywhere


def edit(
    photo: Annotated[Picture, "A photograph."],
    *,
    set: Annotated[Mapping[str, float], "A direction and how far to go: smile=1.5; may be given several times."] = {},
    out: Annotated[Path, "The edited photograph."],
    strip: Annotated[str | None, "Instead of one picture a strip of strengths, first:last:count, such as smile=-2:2:5."] = None,
    face: Annotated[int | str, "Which face: 0 is the largest; or all."] = 0,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    direction: Annotated[Path | None, "A direction file, limn's or published (.npy, .pt, .npz, .pkl); --set names what it holds."] = None,
    region: Annotated[str, "Change only these parts: mouth, eyes, brows, nose, skin, hair, face ...; several with commas."] = "",
    latent: Annotated[Path | None, "A latent of this photo by `limn invert`, instead of inverting again."] = None,
    method: Annotated[Method, "How the face is inverted, as in `limn invert`."] = "encoder",
    marks: Annotated[bool, "Mark what is written as made by a model: signed credentials and a watermark."] = True,
    model: Annotated[str, "Name or file of a generator."] = GENERATOR,
    encoder: Annotated[str, "Name or file of an encoder for it."] = ENCODER,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
    seed: Annotated[int, "Of the optimisation's draws."] = 0,
) -> Edited:
    """Edit a face in a photograph; everything else in it stays as it is, bit for bit.

    The change that the model makes is carried over at the photo's own resolution: shape as a warp, the rest as soft colour.
    """
    from limn.media import Origin, output_format, read_image, writable

    began = time.monotonic()
    output_format(out)
    writable(out)
    wanted = [dict(set)] if strip is None else [{**set, **step} for step in steps_of(strip)]
    if not wanted[0]:
        raise InputError("nothing to change was given: say --set smile=1.5, or --strip smile=-2:2:5")
    taken = read_image(photo)
    if latent is not None and face == "all":
        raise InputError("--latent holds one face: say which with --face, 0 for the largest")
    chosen, count = choose_faces(taken, face, detector)
    generator = load_generator(model, device)
    known = known_directions(generator, direction)
    _check(wanted, known, generator)
    prepared = [_prepare(taken, one, generator, latent, How(encoder, method, seed=seed), region) for one in chosen]
    results = [_apply(taken, prepared, known, changes) for changes in track(wanted, "editing", len(wanted))]
    images = tuple(image for image, _ in results)
    about = ({"strip": strip} if strip else dict(wanted[0])) | ({"region": region} if region else {})
    origin = Origin("edited", generator.name, generator.hash, sources_of(taken), about, marked=marks)
    file = _write(*results[0], out, taken, origin) if strip is None else _write_strip(images, wanted, out, origin)
    indices = tuple(one.index for one in chosen)
    name, took = str(taken.path or "picture"), time.monotonic() - began
    return Edited(name, wanted[0] if strip is None else {}, indices, count, generator.name, (file,), took, taken.notes, images)


def steps_of(strip: str) -> list[dict[str, float]]:
    """Read "smile=-2:2:5" as five settings of smile from -2 to 2."""
    name, _, values = strip.partition("=")
    try:
        first, last, number = values.split(":")
        low, high, count = float(first), float(last), int(number)
    except ValueError:
        raise InputError(f"--strip {strip!r} is not understood: write name=first:last:count, such as smile=-2:2:5") from None
    if not 2 <= count <= 32:
        raise InputError(f"--strip {strip!r} asks for {count} pictures: 2 to 32 are possible")
    return [{name.strip(): low + (high - low) * index / (count - 1)} for index in range(count)]


def known_directions(model: Model, file: Path | None = None) -> dict[str, Direction]:
    """Return the directions that lie beside a model's file, and those of another file, by name."""
    from limn.latent.directions import load_directions, read_directions

    bundle = model.path.with_name(f"{model.path.stem}-directions.safetensors")
    found = load_directions(bundle, model.name, model.hash) if bundle.exists() else {}
    found |= read_directions(file) if file is not None else {}
    if not found:
        raise InputError(f"no directions come with the model {model.name}: give a file with --direction")
    return found


def change_face(image: Image.Image, prepared: Prepared, known: Known, changes: Changes) -> tuple[Image.Image, np.ndarray]:
    """Return the RGB photo with one face changed, and the mask (H, W), 0 to 255, outside which nothing was."""
    import torch

    from limn.faces import transfer
    from limn.latent import directions

    subject, model, code = prepared.subject, prepared.model, prepared.latent.code.to(prepared.model.device)
    moved = directions.apply(model.generator, code, known, changes)
    before, after = model.pictures(torch.cat([code, moved]))
    old, new, own = meshes([before, after, subject.crop], model.device)
    if subject.face.mesh is not None:
        own = transfer.mesh_to_sides(subject.face.mesh, subject.matrix, model.size)
    tone = any(strength for name, strength in changes.items() if name not in SHAPE)
    change = transfer.measure(subject.crop, before, after, (own, old, new), tone)
    change = change if prepared.region is None else transfer.limited(change, prepared.region)
    return transfer.apply(image, change, subject.matrix, model.size)


def _check(wanted: list[dict[str, float]], known: Known, model: Model) -> None:
    """Find unknown names, wild strengths and directions of other models before anything long is done."""
    from limn.latent import directions

    for changes in wanted:
        for name, strength in changes.items():
            directions.check_fits(directions.find(known, name), model.generator, model.name, model.hash)
            if not abs(strength) <= 100:
                raise InputError(f"{name}={strength} is too far: strengths from -5 to 5 make sense")


def _prepare(photo: Photo, face: Face, model: Model, latent: Path | None, how: How, region: str) -> Prepared:
    """Cut out a face, find where it may change, and find its code or take that of a file."""
    from limn.latent.files import load_latent

    place = _region(photo, face, region, model) if region else None
    subject = cut(photo, face, model.size)
    found = find(subject, model, how) if latent is None else load_latent(latent, model.name, model.hash)
    return Prepared(subject, tuned_model(found, model), found, place)


def _region(photo: Photo, face: Face, names: str, model: Model) -> np.ndarray:
    """Return where parts of a face are in its crop, (GRID, GRID) in [0, 1], with a soft edge about them."""
    from limn.faces import align, parse, warp
    from limn.faces.transfer import GRID

    mask = parse.mask(photo.image, face, names, AROUND, SOFT, device=model.device)
    _, matrix = align(photo.image, face, TEMPLATE, GRID)
    return np.clip(warp(mask, matrix, (GRID, GRID), (0, 0, 0)), 0, 1)


def _apply(photo: Photo, prepared: list[Prepared], known: Known, changes: Changes) -> tuple[Image.Image, np.ndarray | None]:
    """Return the photo with all chosen faces changed and the mask of them; strength 0 returns the photo itself and no mask."""
    image, mask = photo.image, None
    for one in prepared if any(changes.values()) else ():
        image, part = change_face(image, one, known, changes)
        mask = part if mask is None else np.maximum(mask, part)
    return image, mask


def _write(image: Image.Image, mask: np.ndarray | None, out: Path, photo: Photo, origin: Origin) -> Path:
    """Write like the photo, marked where it was changed; one that was not and keeps its format is copied as it is."""
    from shutil import copyfile

    from limn.media import atomic, output_format, write_image

    if mask is None and photo.path is not None and output_format(out) == photo.format:
        with atomic(out) as beside:
            copyfile(photo.path, beside)
        return out
    return write_image(image, out, like=photo) if mask is None else write_image(image, out, photo, origin, mask.astype(np.float32) / 255)


def _write_strip(images: tuple[Image.Image, ...], wanted: list[dict[str, float]], out: Path, origin: Origin) -> Path:
    from limn.media import grid, write_image

    height = min(STRIP_HEIGHT, images[0].height)
    size = (max(1, round(images[0].width * height / images[0].height)), height)
    labels = [", ".join(f"{name} {strength:+.3g}" for name, strength in changes.items()) for changes in wanted]
    small = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    return write_image(grid(small, columns=len(small), labels=labels), out, origin=origin)

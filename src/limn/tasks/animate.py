"""`limn animate`: let a portrait move as the person in a clip does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image

from limn.errors import FaceError, InputError, WeightsError
from limn.tasks.consent import consent_of
from limn.tasks.portrait import MESH, TEMPLATE, Picture, one_face, sources_of

if TYPE_CHECKING:
    from limn.faces import Face
    from limn.faces.transfer import Change
    from limn.media import Clip

    Mover = Callable[[Image.Image, Face, float], Image.Image]  # driving frame, the face in it, seconds -> the portrait moved

LOOKS = 60  # frames of a clip among which the initial one is chosen
FINE = 224  # pixels: the pictures of a model of at least so many are pasted, the change of a smaller one is transferred
WARM = 12  # frames that a run that goes on is shown again
SHUT = 0.06  # distances between the irises: lips no farther apart than this are shut
GRID = 256  # pixels a side of the driving crops that lend the inside of a mouth


@dataclass(frozen=True)
class Animated:
    """What was made, and of what."""

    portrait: str
    driving: str
    model: str
    face: int  # of the portrait, by size
    faces_found: int
    initial: float  # seconds into the driving clip, where the driver looks most like the portrait
    frames: int
    resumed: int  # of these, done by an earlier run that was interrupted
    consent: str
    file: Path
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What one look through the driving clip told."""

    initial: Image.Image  # the frame that movement is counted from
    seconds: float  # when it is shown
    face: Face  # its face
    points: np.ndarray  # (5, 2): the mean place of the face in the clip


def animate(
    portrait: Annotated[Picture, "A photograph of the face to move."],
    *,
    driving: Annotated[Path, "A clip of somebody who moves, the largest face in it."],
    out: Annotated[Path, "The clip to write: .mp4, .mov, .mkv or .webm."],
    consent: Annotated[str | None, "Whose face the portrait shows and who allowed its use; asked once per portrait."] = None,
    absolute: Annotated[bool, "Take pose and expression as they are, not their change since the initial frame."] = False,
    sound: Annotated[bool, "Take over the driving clip's sound."] = False,
    face: Annotated[int, "Which face of the portrait: 0 is the largest."] = 0,
    longest: Annotated[int, "Longest side of the clip in pixels; 0: that of the photograph."] = 1920,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    marks: Annotated[bool, "Mark what is written as made by a model: signed credentials and a watermark."] = True,
    model: Annotated[str, "Name or file of an animator, or of a face mesh, by which the photograph itself is warped."] = MESH,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Animated:
    """Let the face in PORTRAIT move as the one in the clip DRIVING; the clip written has its frame rate and length.

    Movement is relative: counted from the frame in which the driver looks most like the portrait. Interrupted, the same command goes on.
    """
    from limn.media import Origin, read_image, read_video, writable
    from limn.media.video_output import suffix_of
    from limn.tasks.frames import through

    began, photo = time.monotonic(), read_image(portrait)
    suffix_of(out)
    writable(out)
    said = consent_of(photo, consent)
    clip = read_video(driving)
    image = fitted(photo.image, longest)
    chosen, count = one_face(replace(photo, image=image), face, detector)
    moves = load_animator(model, device)
    found = survey(clip, chosen, detector)
    about = {"absolute": absolute, "face": face}
    origin = Origin("animated", moves.name, moves.hash, (*sources_of(photo), clip.path), about, said, marks)
    mover = moves.start(image, chosen, found, absolute)
    settings = {**about, "model": moves.hash, "portrait": digest(image), "detector": detector}
    following = Following(mover, detector)
    passed = through(driving, out, following, settings=settings, what="animating", sound=sound, origin=origin, before=image, warm=WARM)
    name, took = str(photo.path or "picture"), time.monotonic() - began
    notes = (*photo.notes, *clip.notes, *passed.faults)
    return Animated(name, str(driving), moves.name, face, count, found.seconds, passed.frames, passed.kept, said, out, took, notes)


def fitted(image: Image.Image, longest: int) -> Image.Image:
    """Return the picture, made smaller where a side is longer than asked for."""
    if longest < 0:
        raise InputError(f"--longest {longest} is below 0: give the longest side in pixels, or 0 for the photograph's")
    factor = longest / max(image.size)
    if not longest or factor >= 1:
        return image
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def digest(image: Image.Image) -> str:
    """Return what tells a picture from any other."""
    import hashlib

    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def survey(clip: Clip, own: Face, detector: str) -> Survey:
    """Look at frames all through a clip for the one most like the portrait; FaceError where no face is seen.

    A second look finds the frame in which the driver's eyes are open, and the mouth is shut if the portrait's is.
    """
    from limn.faces.measures import measures
    from limn.faces.reenact import likeness
    from limn.faces.track import Track

    def like(seconds: float, frame: Image.Image, face: Face) -> tuple[float, Survey]:
        apart = likeness(face.mesh, own.mesh) if own.mesh is not None and face.mesh is not None else 0.0
        return apart, Survey(frame, seconds, face, face.points)

    best, points = looked(clip, detector, like)
    track = Track(best.initial, best.face)
    lips = 5.0 if own.mesh is not None and measures(own.mesh)["mouth_open"] < SHUT else 0.0

    def awake(seconds: float, frame: Image.Image, face: Face) -> tuple[float, Survey]:
        apart, found = like(seconds, frame, face)
        return apart + lips * track.gap(track(frame, face)) + 2 * track.lit, found

    best, points = looked(clip, detector, awake)
    return replace(best, points=points)


def looked(clip: Clip, detector: str, score: Callable[[float, Image.Image, Face], tuple[float, Survey]]) -> tuple[Survey, np.ndarray]:
    """Return the frame of the least score among LOOKS of a clip, and the mean place (5, 2) of the face; one frame at a time is kept."""
    from limn.faces import detect

    best: tuple[float, Survey] | None = None
    places = []
    for seconds, frame in clip.at(min(float(clip.fps), LOOKS / max(clip.duration, 1e-3))):
        faces = detect(frame, detector)
        if not faces or faces[0].mesh is None:
            continue
        places.append(faces[0].points)
        found = score(seconds, frame, faces[0])
        best = found if best is None or found[0] < best[0] else best
    if best is None:
        raise FaceError(f"{clip.path}: no face was found in it: give a clip that shows one from the front")
    return best[1], np.mean(places, axis=0)


class Following:
    """Finds the driver in every frame and lets the portrait follow."""

    def __init__(self, mover: Mover, detector: str) -> None:
        from limn.faces.steady import Follower

        self.mover, self.detector, self.follower = mover, detector, Follower()

    def __call__(self, frame: Image.Image, seconds: float) -> Image.Image:
        from limn.faces import detect

        found = self.follower.find(detect(frame, self.detector), seconds)
        if found is None or self.follower.last is None:
            raise FaceError("the driver's face was not found")
        return self.mover(frame, self.follower.last, seconds)  # as it was found: how much to smooth, the mover knows


# --------------------------------------------------------------------------------------------------------------------- animators


@dataclass(frozen=True)
class Moves:
    """What moves portraits, and what it is called."""

    name: str
    hash: str
    start: Callable[[Image.Image, Face, Survey, bool], Mover]  # portrait, its face, the driver, absolute


def load_animator(model: str, device: str) -> Moves:
    """Load an animator, or a face mesh to warp by; WeightsError for any other network."""
    from functools import partial

    from limn import device as devices
    from limn.models import system
    from limn.weights import load
    from limn.weights.store import resolve

    place, path = devices.choose(device), resolve(model)
    loaded = load(path, device=place)
    if hasattr(loaded.model, "landmarks"):
        return Moves(path.stem, loaded.hash, warped_by_mesh)
    kind = getattr(system(loaded.system), "Animator", None)
    if kind is None:
        raise WeightsError(f"{model} is the {loaded.part} of {loaded.system}: an animator is needed; `limn models list` shows them")
    networks = {part: load(path, part=part, device=place).model for part in kind.parts}
    return Moves(path.stem, loaded.hash, partial(animated_by_network, kind(networks), place))


def warped_by_mesh(portrait: Image.Image, face: Face, found: Survey, absolute: bool) -> Mover:
    """Return what moves a portrait by its own mesh: nothing is painted but the inside of a mouth that opens."""
    from limn.faces import align, reenact, transfer
    from limn.faces.track import Track

    if face.mesh is None or found.face.mesh is None:
        raise FaceError("no mesh was found on the face: give a portrait that shows it from the front")
    crop, matrix = align(portrait, face, TEMPLATE, GRID)
    photo, own = reenact.on_grid(crop), transfer.mesh_to_sides(face.mesh, matrix, GRID)
    driver, track = reenact.Driver(face.mesh, found.face.mesh, absolute), Track(found.initial, found.face)

    def move(frame: Image.Image, seen: Face, seconds: float) -> Image.Image:
        if seen.mesh is None:
            raise FaceError("the driver's face has no mesh")
        mesh = track(frame, seen)
        target = transfer.mesh_to_sides(driver(mesh, seconds), matrix, GRID)
        view, turn = align(frame, seen, TEMPLATE, GRID)
        lent = transfer.mesh_to_sides(mesh, turn, GRID)
        change = reenact.change(photo, own, target, lent, reenact.on_grid(view), driver.shut)
        return transfer.apply(portrait, change, matrix, GRID)[0]

    return move


def animated_by_network(animator: Any, place: Any, portrait: Image.Image, face: Face, found: Survey, absolute: bool) -> Mover:
    """Return what moves a portrait by an animator's networks; the driver is cut out at one place, so that its head moves in the crop."""
    import torch

    from limn.faces import align
    from limn.faces.align import warp
    from limn.faces.templates import matrix
    from limn.media import to_tensor

    size, template = animator.size, animator.template
    crop, where = align(portrait, face, template, size)
    window = matrix(template, found.points.astype(np.float32), size)
    source = to_tensor(crop).to(place)

    def read(frame: Image.Image) -> Any:
        seen = Image.fromarray(warp(np.asarray(frame.convert("RGB")), window, (size, size)))
        return animator.motion(to_tensor(seen).to(place))

    own, initial = animator.motion(source), read(found.initial)
    put = put_back(animator, portrait, crop, where, source, own)

    def move(frame: Image.Image, _: Face, __: float) -> Image.Image:
        motion = read(frame)
        with torch.inference_mode():
            return put(motion if absolute else animator.transferred(own, motion, initial))

    return move


def put_back(
    animator: Any, portrait: Image.Image, crop: Image.Image, where: np.ndarray, source: Any, own: Any
) -> Callable[[Any], Image.Image]:
    """Return what shows the portrait in a wanted motion.

    The picture of a fine model is pasted; a small one that says where every pixel comes from moves the photograph's own pixels, and any
    other lends the change that it makes.
    """
    from limn.faces import paste, transfer
    from limn.faces.paste import feathered
    from limn.media import to_image
    from limn.tasks.portrait import meshes

    size = animator.size
    if size >= FINE or animator.template != TEMPLATE:
        return lambda wanted: paste(portrait, to_image(animator.animate(source, own, wanted).float().cpu()[0]), where, feathered(size))
    if hasattr(animator, "moved"):
        (mesh,), still = meshes([crop]), animator.moved(source, own, own)
        mask = transfer.face_mask(mesh)
        return lambda wanted: transfer.apply(portrait, by_flow(animator.moved(source, own, wanted), still, mask), where, size)[0]
    before = to_image(animator.animate(source, own, own).float().cpu()[0])

    def changed(wanted: Any) -> Image.Image:
        after = to_image(animator.animate(source, own, wanted).float().cpu()[0])
        three = meshes([crop, before, after])
        change = transfer.measure(crop, before, after, (three[0], three[1], three[2]), tone=False)
        return transfer.apply(portrait, change, where, size)[0]

    return changed


def by_flow(made: Any, still: Any, mask: np.ndarray) -> Change:
    """Turn a backward flow into a change: what the model painted beyond its warp is added, less what it paints when nothing moves."""
    import cv2

    from limn.blocks.warp import grid
    from limn.faces import transfer

    def spread(maps: Any) -> np.ndarray:
        return cv2.resize(maps.float().cpu().numpy(), (transfer.GRID, transfer.GRID), interpolation=cv2.INTER_CUBIC)

    def painted(one: Any) -> np.ndarray:
        return spread((one.image - one.warped)[0].permute(1, 2, 0) * 127.5)

    size = made.image.shape[-1]
    shift = (made.flow - grid(made.flow.shape[1:3], made.flow))[0] * (size - 1) / (2 * size)
    rest = (still.flow - grid(still.flow.shape[1:3], still.flow))[0] * (size - 1) / (2 * size)
    flow = transfer.unfold(spread(shift - rest) * mask[..., None])
    colour = cv2.GaussianBlur(painted(made) - transfer.sample(painted(still), flow), (0, 0), transfer.GRID / size) * mask[..., None]
    return transfer.Change(flow, colour, np.zeros((transfer.GRID, transfer.GRID, 4), np.float32), mask)

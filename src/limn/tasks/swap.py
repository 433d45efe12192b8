"""`limn swap`: give a face in a photograph or a clip the identity of another."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import Image

from limn.errors import FaceError, InputError, WeightsError
from limn.tasks.consent import consent_of
from limn.tasks.portrait import IDENTITY, TEMPLATE, Picture, choose_faces, meshes, one_face, sources_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from limn.faces import Face
    from limn.faces.transfer import Change
    from limn.media import Origin, Photo

SWAPPER = "limn-swapper64"
FINE = 224  # pixels: a model of at least so many is pasted, the change of a smaller one is transferred
WARM = 12  # frames that a run that goes on is shown again
TINT, CALM = 12.0, 18.0  # levels of 255 by which tint changes at most, and light outside the features
SOFT = 0.03  # standard deviation, in crop sides, of a change of light outside the features
IDENTITIES = {"limn-identity": "ffhq", "arcface": "arcface-112"}  # system -> the alignment that it wants; others take the swapper's
IDENTITY_SIZES = {"arcface-112": 112, "ffhq": 128}

Colour = Literal["rct", "lct", "mkl", "idt", "sot", "hist", "none"]
Way = Literal["auto", "transfer", "paste", "seamless"]


@dataclass(frozen=True)
class Swapped:
    """What was made, and how far it went."""

    source: str
    target: str
    faces: tuple[int, ...]  # of the target, by size
    faces_found: int
    model: str
    likeness: tuple[float, float]  # cosine similarity to the source, in the identity network: before and after
    consent: str
    files: tuple[Path, ...]
    frames: int
    seconds: float
    notes: tuple[str, ...]
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})  # the photo; of a clip none


@dataclass(frozen=True)
class Swapper:
    """A swapper and an identity network that fit each other, and how the result is put in place."""

    network: Any
    name: str
    hash: str
    identity: Any
    identity_template: str
    device: torch.device
    colour: Colour
    strength: float
    way: Way  # never auto

    def embed(self, image: Image.Image, face: Face) -> Tensor:
        """Return who a face is: (1, D)."""
        import torch

        from limn.faces import align
        from limn.media import to_tensor

        size = IDENTITY_SIZES.get(self.identity_template, self.network.size)
        crop, _ = align(image, face, self.identity_template, size)
        with torch.inference_mode():
            shown = to_tensor(crop).to(self.device)
            made: Tensor = self.identity.embed(shown) if hasattr(self.identity, "embed") else self.identity(shown)
            return torch.nn.functional.normalize(made.float())

    def face(self, crop: Image.Image, wanted: Tensor, own: Tensor) -> Image.Image:
        """Return the aligned face with the identity wanted, the strength's share of the way from its own."""
        import torch

        from limn.media import to_image, to_tensor

        latent = wanted if self.strength == 1 else torch.nn.functional.normalize(own + self.strength * (wanted - own))
        with torch.inference_mode():
            return to_image(self.network.swap(to_tensor(crop).to(self.device), latent).float().cpu()[0])


def swap(
    source: Annotated[Picture, "A photograph of the face to take."],
    target: Annotated[Picture, "A photograph or a clip of the face to replace."],
    *,
    out: Annotated[Path, "The picture or clip to write."],
    consent: Annotated[str | None, "Whose face the source shows and who allowed its use; asked once per source."] = None,
    face: Annotated[int | str, "Which face of the target: 0 is the largest; or all, in a photograph."] = 0,
    source_face: Annotated[int, "Which face of the source: 0 is the largest."] = 0,
    strength: Annotated[float, "How far to go from the target's identity to the source's; 1 is all the way."] = 1.0,
    colour: Annotated[Colour, "How the new face takes the target's colours."] = "rct",
    way: Annotated[Way, "transfer: the change, at the photo's resolution; paste: the model's pixels; seamless: their gradients."] = "auto",
    sound: Annotated[bool, "Keep a clip's sound."] = True,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    marks: Annotated[bool, "Mark what is written as made by a model: signed credentials and a watermark."] = True,
    model: Annotated[str, "Name or file of a swapper."] = SWAPPER,
    identity: Annotated[str, "Name or file of the identity network that the swapper was made for."] = IDENTITY,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Swapped:
    """Give a face of TARGET, a photograph or a clip, the identity of the face in SOURCE; everything else in it stays.

    In a clip the same face is followed, and its place and the change are kept steady. The consent statement goes into the credentials.
    """
    from limn.media import Origin, read_image

    if not 0 <= strength <= 2:
        raise InputError(f"--strength {strength} is out of range: 0 leaves the face as it is, 1 takes the other identity, 2 goes beyond")
    began, given = time.monotonic(), read_image(source)
    check_out(target, out)
    said = consent_of(given, consent)
    swapper = load_swapper(model, identity, device, colour, strength, way)
    taken, _ = one_face(given, source_face, detector)
    wanted = swapper.embed(given.image, taken)
    about = {"strength": strength, "colour": colour, "way": swapper.way}
    origin = Origin("swapped", swapper.name, swapper.hash, (), about, said, marks)
    do = swap_clip if is_clip(target) else swap_photo
    made = do(target, out, swapper, wanted, origin, given, face, detector, sound)
    name = str(given.path or "picture")
    took = time.monotonic() - began
    return Swapped(
        name, str(target), made.faces, made.found, swapper.name, made.likeness, said, (out,), made.frames, took, made.notes, made.images
    )


@dataclass(frozen=True)
class Made:
    """What one photo or clip came to."""

    faces: tuple[int, ...]
    found: int
    likeness: tuple[float, float]
    frames: int
    notes: tuple[str, ...]
    images: tuple[Image.Image, ...] = ()


def is_clip(target: Picture) -> bool:
    """Say by its name whether a target is a clip."""
    from limn.media.marks import CLIPS

    return not isinstance(target, Image.Image) and Path(target).suffix.lower() in CLIPS


def check_out(target: Picture, out: Path) -> None:
    """Refuse a place that cannot be written, or that is of another kind than the target, before anything long is done."""
    from limn.media import output_format, writable
    from limn.media.marks import CLIPS

    if is_clip(target) != (out.suffix.lower() in CLIPS):
        raise InputError(f"{target} is a {'clip' if is_clip(target) else 'picture'}, and {out.name} is not: choose an --out of its kind")
    if not is_clip(target):
        output_format(out)
    writable(out)


def load_swapper(model: str, identity: str, device: str, colour: Colour, strength: float, way: Way = "auto") -> Swapper:
    """Load a swapper and its identity network; WeightsError where a file is of another kind or the two do not fit."""
    from limn import device as devices
    from limn.weights import load
    from limn.weights.store import resolve

    place, path = devices.choose(device), resolve(model)
    loaded, knows = load(path, device=place), load(identity, device=place)
    network: Any = loaded.model
    if not hasattr(network, "swap"):
        raise WeightsError(f"{model} is the {loaded.part} of {loaded.system}: a swapper is needed; `limn models list` shows them")
    made_for = str(loaded.meta.get("training", {}).get("identity", "")).split()
    if len(made_for) == 2 and made_for[1] != knows.hash:
        raise WeightsError(f"{model} was trained beside {made_for[0]}, and {identity} is another network: give that one with --identity")
    template = IDENTITIES.get(knows.system, network.template)
    chosen: Way = "transfer" if network.template == TEMPLATE and network.size < FINE else "paste"
    if way != "auto":
        if way == "transfer" and network.template != TEMPLATE:
            raise InputError(
                f"--way transfer needs a swapper whose faces are aligned as {TEMPLATE}; {model} has {network.template}: use paste"
            )
        chosen = way
    swapper = Swapper(network, path.stem, loaded.hash, knows.model, template, place, colour, strength, chosen)
    _check_fit(swapper, model, identity)
    return swapper


def _check_fit(swapper: Swapper, model: str, identity: str) -> None:
    """Compare the length of an embedding with what the swapper takes."""
    from limn.faces import Face

    blank = Image.new("RGB", (64, 64))
    points = np.array([(24, 26), (40, 26), (32, 36), (26, 44), (38, 44)], np.float32)
    long = swapper.embed(blank, Face((16, 16, 48, 48), 1.0, points)).shape[1]
    takes = int(getattr(swapper.network.config, "latent", long))
    if takes != long:
        raise WeightsError(f"{model} takes identities of {takes} numbers, {identity} gives {long}: give --identity the one it was made for")


# ------------------------------------------------------------------------------------------------------------------------ one face


def change_face(
    image: Image.Image, face: Face, swapper: Swapper, wanted: Tensor, steady: Callable[[Change], Change] | None = None
) -> tuple[Image.Image, np.ndarray]:
    """Return the RGB picture with one face swapped, and the mask (H, W), 0 to 255, outside which nothing was changed."""
    from limn.faces import align, transfer

    size = swapper.network.size
    crop, matrix = align(image, face, swapper.network.template, size)
    after = swapper.face(crop, wanted, swapper.embed(image, face))
    if swapper.way != "transfer":
        return _pasted(image, face, crop, after, matrix, swapper)
    old, new = meshes([crop, after], swapper.device)
    own = old if face.mesh is None else transfer.mesh_to_sides(face.mesh, matrix, size)
    after = recoloured(after, crop, _oval(own * size - 0.5, size), swapper.colour)
    change = within_face(transfer.measure(crop, crop, after, (own, old, new)), crop, after, own)
    return transfer.apply(image, change if steady is None else steady(change), matrix, size)


def within_face(change: Change, before: Image.Image, after: Image.Image, mesh: np.ndarray) -> Change:
    """Let the face become the model's, save for the photo's detail, and hair and background keep their colours; ``mesh`` is in crop sides.

    `measure` doubts colours that an inversion may have missed; here the model saw the face itself, and all it says is meant.
    """
    from dataclasses import replace

    from limn.faces import masks, transfer

    size = (transfer.GRID, transfer.GRID)
    old, new = (np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float32) for picture in (before, after))
    points = mesh * transfer.GRID - 0.5
    inside = masks.oval(points, size, grow=0.1, feather=0.4)[..., None]
    colour = calmed(new - transfer.sample(old, change.flow), masks.features(points, size)[..., None])
    return replace(change, colour=colour * inside, shown=np.zeros_like(change.shown))


def calmed(colour: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Bound a change of colour (H, W, 3), in levels: tint everywhere, light on cheeks and forehead, where small models leave blotches.

    ``features`` (H, W, 1) is 1 on eyes, brows, nose and mouth: there the light may change as it will.
    """
    import cv2

    light = colour @ np.array([[0.299], [0.587], [0.114]], np.float32)
    tint = TINT * np.tanh((colour - light) / TINT)
    soft = cv2.GaussianBlur(light, (0, 0), SOFT * len(light))[..., None]
    calm = CALM * np.tanh(soft / CALM)
    return (calm + features * (light - calm) + tint).astype(np.float32)


def _oval(mesh: np.ndarray, size: int) -> np.ndarray:
    from limn.faces import masks

    return masks.oval(mesh, (size, size), feather=0.3)


def recoloured(after: Image.Image, before: Image.Image, mask: np.ndarray, method: Colour) -> Image.Image:
    """Give a swapped face the colours that the target has under the mask."""
    from limn.faces import colour

    if method == "none":
        return after
    one, other = (np.asarray(picture, np.float32) / 255 for picture in (after, before))
    moved = colour.transfer(method, one, other, mask)
    soft = mask[..., None]
    return Image.fromarray(np.rint((one + soft * (moved - one)) * 255).clip(0, 255).astype(np.uint8))


def _pasted(
    image: Image.Image, face: Face, crop: Image.Image, after: Image.Image, matrix: np.ndarray, swapper: Swapper
) -> tuple[Image.Image, np.ndarray]:
    """Put the model's own pixels, or their gradients, in place under the face's oval."""
    from limn.faces import fit, masks, paste

    size = crop.width
    if face.mesh is None:
        raise FaceError("a face is pasted under the outline of its mesh, and this one has none: use the detector's meshes")
    mesh = fit.apply(matrix, face.mesh[:, :2])
    mask = _oval(mesh, size) * masks.inside_frame((size, size))
    shown = recoloured(after, crop, mask, swapper.colour)
    white = Image.fromarray(np.full((size, size, 3), 255, np.uint8))
    reach = np.asarray(paste(Image.new("RGB", image.size), white, matrix, mask))[..., 0]
    if swapper.way == "seamless":
        return _cloned(image, paste(image, shown, matrix, np.ones_like(mask)), reach), reach
    return paste(image, shown, matrix, mask), reach


def _cloned(image: Image.Image, front: Image.Image, reach: np.ndarray) -> Image.Image:
    """Clone the front's gradients into the picture under a mask (H, W), 0 to 255; where OpenCV refuses, the front itself is blended in."""
    import cv2

    from limn.faces import blending

    x, y, width, height = cv2.boundingRect((reach > 127).astype(np.uint8))
    back, over = np.asarray(image), np.asarray(front)
    with suppress(InputError):  # the mask touches the border
        over = blending.seamless(over, back, (reach > 127).astype(np.uint8) * 255, (x + width // 2, y + height // 2))
    weight = reach[..., None] / 255
    return Image.fromarray(np.rint(back + weight * (over.astype(np.float32) - back)).clip(0, 255).astype(np.uint8))


def likeness(image: Image.Image, face: Face, swapper: Swapper, wanted: Tensor) -> float:
    """Return the cosine similarity of a face to the identity wanted."""
    return float((swapper.embed(image, face) * wanted).sum())


# ------------------------------------------------------------------------------------------------------------------ photo and clip


def swap_photo(
    target: Picture,
    out: Path,
    swapper: Swapper,
    wanted: Tensor,
    origin: Origin,
    source: Photo,
    face: int | str,
    detector: str,
    sound: bool,  # noqa: ARG001 - a photo has none
) -> Made:
    """Swap the chosen faces of a photograph and write it like the photograph."""
    from dataclasses import replace
    from shutil import copyfile

    from limn.media import atomic, read_image, write_image

    photo = read_image(target)
    chosen, count = choose_faces(photo, face, detector)
    image, mask = photo.image, None
    before = likeness(image, chosen[0], swapper, wanted)
    for one in chosen if swapper.strength else ():
        image, part = change_face(image, one, swapper, wanted)
        mask = part if mask is None else np.maximum(mask, part)
    after = likeness(image, chosen[0], swapper, wanted)
    if mask is None and photo.path is not None and photo.path.suffix.lower() == out.suffix.lower():
        with atomic(out) as beside:
            copyfile(photo.path, beside)
    elif mask is None:
        write_image(image, out, photo)
    else:
        write_image(image, out, photo, replace(origin, sources=sources_of(photo, source)), mask.astype(np.float32) / 255)
    indices = tuple(one.index for one in chosen)
    return Made(indices, count, (before, after), 1, photo.notes + source.notes, (image,))


def swap_clip(
    target: Picture,
    out: Path,
    swapper: Swapper,
    wanted: Tensor,
    origin: Origin,
    source: Photo,
    face: int | str,
    detector: str,
    sound: bool,
) -> Made:
    """Swap one face all through a clip; frames in which it is not found stay as they are."""
    from dataclasses import replace

    from limn.media import read_video
    from limn.tasks.frames import through

    if not isinstance(face, int):
        raise InputError("--face all: in a clip one face is followed; give its number in the first frame, 0 for the largest")
    clip = read_video(str(target))
    following = Following(swapper, wanted, face, detector)
    settings = {
        **origin.settings,
        "face": face,
        "detector": detector,
        "model": swapper.hash,
        "source": wanted.cpu().numpy().tobytes().hex(),
    }
    marked = replace(origin, sources=(clip.path, *sources_of(source)))
    passed = through(clip.path, out, following, settings=settings, what="swapping", sound=sound, origin=marked, warm=WARM)
    unseen = [f"the face was not found in {following.missed} of {passed.frames} frames: they are unchanged"] if following.missed else []
    notes = (*clip.notes, *unseen, *passed.faults)
    return Made((face,), following.found, following.likeness(), passed.frames, notes)


class Following:
    """Swaps one face in the frames of a clip, one after the other; remembers where it was and what was changed."""

    def __init__(self, swapper: Swapper, wanted: Tensor, face: int, detector: str) -> None:
        from limn.faces.steady import Follower, SteadyChange

        self.swapper, self.wanted, self.detector, self.number = swapper, wanted, detector, face
        self.follower, self.steady = Follower(), SteadyChange()
        self.missed, self.found = 0, 0
        self.seen: list[tuple[float, float]] = []  # likeness before and after, of some frames

    def __call__(self, frame: Image.Image, seconds: float) -> Image.Image:
        from limn.faces import choose, detect

        faces = detect(frame, self.detector, device=self.swapper.device)
        if self.follower.last is None and faces:
            self.found = len(faces)
            faces = choose(faces, self.number)
            own = self.swapper.embed(frame, faces[0])
            self.follower.likeness = lambda face: float((self.swapper.embed(frame, face) * own).sum())
        face = self.follower.find(faces, seconds)
        if face is None:
            self.missed += 1
            return frame
        image, _ = change_face(frame, face, self.swapper, self.wanted, lambda change: self.steady(change, seconds))
        if len(self.seen) < 5:
            self.seen.append((likeness(frame, face, self.swapper, self.wanted), likeness(image, face, self.swapper, self.wanted)))
        return image

    def likeness(self) -> tuple[float, float]:
        """Return the mean likeness before and after."""
        before, after = np.mean(self.seen, 0) if self.seen else (0.0, 0.0)
        return float(before), float(after)

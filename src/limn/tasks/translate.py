"""`limn translate`: a photograph or a label map becomes a picture of another kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image

from limn.errors import InputError, LimnError, WeightsError
from limn.tasks.portrait import TEMPLATE, Picture, choose_faces, meshes, sources_of
from limn.tasks.progress import track

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from limn.faces import Face
    from limn.media import Photo
    from limn.weights import Loaded

LARGEST = 1024  # pixels of the longer side at which a network sees a picture, unless more are asked for
FACE_MAPS = "face-mesh"  # the label maps of limn.faces.drawn, in a configuration's `labels`
PAINTED = 0.95  # share of a picture's pixels that must have colours of the palette for it to be a label map


@dataclass(frozen=True)
class Translated:
    """What became of what, and where it was written."""

    photos: tuple[str, ...]
    model: str
    part: str
    faces: int  # that were translated; 0: whole pictures
    files: tuple[Path, ...]
    seconds: float
    failed: tuple[str, ...]  # pictures of a folder that could not be translated, and why
    notes: tuple[str, ...]
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})


@dataclass(frozen=True)
class Tool:
    """A translator that is ready, and how it is to be used."""

    loaded: Loaded
    name: str
    device: torch.device
    face: int | str | None  # None: whole pictures
    size: int
    detector: str
    seed: int | None
    style: Tensor | None = None

    @property
    def classes(self) -> int:
        """Of the label maps that the network reads; 0 where it reads pictures."""
        return int(getattr(self.loaded.model, "classes", 0))

    @property
    def draws_maps(self) -> bool:
        """Whether the label maps are those that a face mesh draws."""
        return bool(self.classes) and getattr(self.loaded.config, "labels", "") == FACE_MAPS


@dataclass(frozen=True)
class Done:
    """One picture, translated."""

    image: Image.Image
    mask: np.ndarray | None = None  # (H, W) in [0, 1] where it was changed; None: everywhere
    faces: int = 0
    notes: tuple[str, ...] = ()


def translate(
    photo: Annotated[Picture, "A photograph, a label map (class numbers or their colours, PNG), or a folder of them."],
    *,
    out: Annotated[Path, "The new picture; for a folder, a folder."],
    model: Annotated[str, "Name or file of a translator: pix2pix, cyclegan, spade; `limn train` makes one."],
    part: Annotated[str, "Which network of the model: a_to_b or b_to_a for CycleGAN; by default the first."] = "",
    face: Annotated[int | str | None, "Translate the aligned face alone and put it back: 0 the largest, all; or none."] = None,
    size: Annotated[int, f"Pixels of the longer side that the network sees; 0: at most {LARGEST}."] = 0,
    style: Annotated[Path | None, "A picture whose style is taken, where the model reads styles."] = None,
    seed: Annotated[int | None, "Draw what the model leaves open: a style, dropout. Without it, the mean of all draws."] = None,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    marks: Annotated[bool, "Mark what is written as made by a model: signed credentials and a watermark."] = True,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Translated:
    """Translate a picture of any size: between two kinds of photographs, or from a label map to a photograph.

    Models that were trained on aligned faces translate the largest face and put it back, unless --face none is said.
    """
    from limn.media import Origin, write_image

    began = time.monotonic()
    tool = load_tool(model, part, face, size, detector, seed, device, style)
    pairs = paired(photo, out)
    done, files, failed, sources = [], [], [], []
    for source, target in track(pairs, "translating", len(pairs)):
        try:
            result, taken = one(source, tool)
        except LimnError as error:
            if len(pairs) == 1 and source is photo:
                raise
            failed.append(f"{source}: {error}")
            continue
        about = {key: value for key, value in (("part", part), ("seed", seed)) if value not in (None, "")}
        origin = Origin("translated", tool.name, tool.loaded.hash, sources_of(taken), about, marked=marks)
        like = taken if result.image.size == taken.size else None
        files.append(write_image(result.image, target, like, origin, result.mask))
        done.append(result)
        sources.append(str(taken.path or "picture"))
    if not done:
        raise InputError(f"{photo}: none of its {len(pairs)} pictures could be translated; the first: {failed[0]}")
    notes = tuple(dict.fromkeys(note for result in done for note in result.notes))
    faces, took = sum(result.faces for result in done), time.monotonic() - began
    images = tuple(result.image for result in done[:1])
    return Translated(tuple(sources), tool.name, tool.loaded.part, faces, tuple(files), took, tuple(failed), notes, images)


def load_tool(
    model: str,
    part: str = "",
    face: int | str | None = None,
    size: int = 0,
    detector: str = "limn",
    seed: int | None = None,
    device: str = "auto",
    style: Path | None = None,
) -> Tool:
    """Load a translator by name or file; WeightsError where the network is another, InputError for a size that makes no sense."""
    from limn import device as devices
    from limn.weights import load

    if size < 0:
        raise InputError(f"--size {size}: give the pixels of the longer side, or 0")
    place = devices.choose(device)
    loaded = load(model, part=part or None, device=place)
    if not hasattr(loaded.model, "translate"):
        raise WeightsError(f"{model} is the {loaded.part} of {loaded.system}: a translator is needed; `limn models list` shows them")
    default = 0 if getattr(loaded.config, "template", "") else None
    chosen = default if face is None else None if face == "none" else face
    tool = Tool(loaded, Path(model).stem, place, chosen, size, detector, seed)
    return tool if style is None else with_style(tool, model, style)


def with_style(tool: Tool, model: str, style: Path) -> Tool:
    """Read the style of a picture with the encoder that lies in the model's file."""
    import torch

    from limn.media import read_image, to_tensor
    from limn.weights import load

    if not getattr(tool.loaded.config, "z_dim", 0):
        raise InputError(f"{model} has no styles: leave --style out")
    encoder = load(model, part="encoder", device=tool.device).model
    taken = read_image(style)
    image = taken.image if tool.face is None else aligned(taken, choose_faces(taken, 0, tool.detector)[0][0], tool)[0]
    with torch.inference_mode():
        mean, _ = encoder(to_tensor(image).to(tool.device))
    return replace(tool, style=mean)


def paired(photo: Picture, out: Path) -> list[tuple[Picture, Path]]:
    """Return what is read and where it is written: one picture, or those of a folder, by name."""
    from limn.media import output_format, writable
    from limn.media.output import SUFFIXES

    if not isinstance(photo, str | Path) or not Path(photo).expanduser().is_dir():
        output_format(out)
        writable(out)
        return [(photo, out)]
    folder = Path(photo).expanduser()
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in {*SUFFIXES, ".gif", ".bmp"})
    if not found:
        raise InputError(f"{folder}: holds no pictures")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, but {folder} is a folder: give a folder as --out")
    out.mkdir(parents=True, exist_ok=True)
    twice = {file.stem for file in found if sum(other.stem == file.stem for other in found) > 1}
    names = [file.name if file.suffix.lower() in SUFFIXES and file.suffix.lower() != ".heic" else f"{file.name}.png" for file in found]
    return [(file, out / (name if file.stem not in twice else f"{name}.png")) for file, name in zip(found, names, strict=True)]


def one(source: Picture, tool: Tool) -> tuple[Done, Photo]:
    """Translate one picture; whether it is a label map it shows itself."""
    from limn.media import read_image

    taken = read_image(source)
    numbers = label_map(source, tool) if tool.classes else None
    if numbers is not None:
        done = painted(numbers, tool)
    elif tool.classes and not tool.draws_maps:
        raise InputError(f"{taken.path or 'the picture'} is no label map: {tool.name} reads class numbers 0 to {tool.classes - 1} (PNG)")
    elif tool.face is None and not tool.classes:
        done = whole(taken, tool)
    else:
        done = faces(taken, tool)
    return replace(done, notes=(*(() if numbers is not None else taken.notes), *done.notes)), taken


def label_map(source: Picture, tool: Tool) -> np.ndarray | None:
    """Return the class numbers (H, W) that a picture holds, or None for a photograph; InputError for numbers that are no classes."""
    if isinstance(source, Image.Image):
        return numbers_of(source, "the picture", tool)
    with Image.open(Path(source).expanduser()) as picture:
        return numbers_of(picture, str(source), tool)


def numbers_of(picture: Image.Image, name: str, tool: Tool) -> np.ndarray | None:
    """Read class numbers from an index or grey picture, or where a face is drawn in the colours of limn.faces.drawn, from those."""
    from limn.faces.drawn import COLOURS

    if picture.mode in ("P", "L", "1") and (picture.format in (None, "PNG", "TIFF", "GIF", "BMP")):
        numbers = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
        if numbers.max(initial=0) < tool.classes:
            return numbers
        if not tool.draws_maps:
            raise InputError(f"{name}: has the class {numbers.max()}; {tool.name} knows 0 to {tool.classes - 1}")
    if not tool.draws_maps:
        return None
    pixels = np.asarray(picture.convert("RGB"), np.int32)
    distances = np.stack([np.abs(pixels - colour).max(-1) for colour in COLOURS])
    near = distances.min(0) <= 8  # a few levels: what a lossy format makes of one colour
    return distances.argmin(0).astype(np.uint8) if near.mean() >= PAINTED else None


def whole(taken: Photo, tool: Tool) -> Done:
    """Translate a whole photograph."""
    from limn.media import to_image, to_tensor

    seen, notes = fitted(taken.image, tool, Image.Resampling.LANCZOS)
    image = to_image(run(to_tensor(seen), tool))
    if image.size != taken.size:
        image = image.resize(taken.size, Image.Resampling.LANCZOS)
    return Done(image, notes=notes)


def painted(numbers: np.ndarray, tool: Tool) -> Done:
    """Paint a label map (H, W); the picture is as large as the map."""
    from limn.media import to_image

    seen, notes = fitted(Image.fromarray(numbers.astype(np.uint8)), tool, Image.Resampling.NEAREST)
    image = to_image(run(one_hot(np.asarray(seen), tool.classes), tool))
    size = (numbers.shape[1], numbers.shape[0])
    return Done(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS), notes=notes)


def fitted(image: Image.Image, tool: Tool, way: Image.Resampling) -> tuple[Image.Image, tuple[str, ...]]:
    """Bring a picture to a size that the network allows and the memory bears, and say so."""
    fixed, longest = getattr(tool.loaded.model, "fixed", None), max(image.size)
    if fixed is not None:
        size = (fixed[1], fixed[0])
    elif longest > (tool.size or LARGEST) or (tool.size and longest != tool.size):
        share = (tool.size or LARGEST) / longest
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    else:
        return image, ()
    if size == image.size:
        return image, ()
    return image.resize(size, way), (f"the network saw {size[0]}x{size[1]} pixels, the result was brought to {image.width}x{image.height}",)


def one_hot(numbers: np.ndarray, classes: int) -> Tensor:
    """Return class numbers (H, W) as (1, classes, H, W) of zeros and ones."""
    import torch

    planes = np.arange(classes)[:, None, None] == np.asarray(numbers)[None]
    return torch.from_numpy(planes[None].astype(np.float32))


def run(images: Tensor, tool: Tool) -> Tensor:
    """Send (1, C, H, W) of any size through the network: padded by reflection to what its layers need, and cut back."""
    import torch
    import torch.nn.functional as F

    from limn.models.records import seeded

    network: Any = tool.loaded.model
    images = images if tool.classes else with_channels(images, tool)
    height, width = images.shape[2:]
    sides = (padding(width, network.multiple), padding(height, network.multiple))
    if max(sides):
        mode = "reflect" if sides[0] < width and sides[1] < height else "replicate"
        images = F.pad(images, (0, sides[0], 0, sides[1]), mode=mode)
    rng = None if tool.seed is None else seeded(tool.seed)
    with torch.inference_mode():
        given = images.to(tool.device)
        image = network(given, tool.style) if tool.style is not None else network.translate(given, rng)
    image = image.float().cpu() if image.shape[1] == 3 else image[:, :1].float().cpu().expand(-1, 3, -1, -1)
    return image if getattr(network, "fixed", None) is not None else image[..., :height, :width]


def with_channels(images: Tensor, tool: Tool) -> Tensor:
    """Give a network of grey pictures the luma (Rec. 601) of images (N, 3, H, W); WeightsError for one that reads something else."""
    config = tool.loaded.config
    wanted = getattr(config, "channels_in", getattr(config, "channels", 3))
    if wanted not in (1, 3):
        raise WeightsError(f"{tool.name} reads {wanted} channels: `limn translate` gives it pictures, of 3 or 1")
    return images if wanted == 3 else (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def padding(side: int, multiple: int) -> int:
    """Return how many pixels a side lacks to be divisible by `multiple`; small pictures are padded to two of it."""
    return max(-side % multiple, 2 * multiple - side if side < multiple else 0)


def faces(taken: Photo, tool: Tool) -> Done:
    """Translate aligned faces and put them back."""
    chosen, _ = choose_faces(taken, 0 if tool.face is None else tool.face, tool.detector)
    image, mask = taken.image, np.zeros((taken.size[1], taken.size[0]), np.float32)
    change: Callable[..., tuple[Image.Image, np.ndarray]] = repainted if tool.classes else carried
    for each in chosen:
        image, part = change(image, taken, each, tool)
        mask = np.maximum(mask, part)
    return Done(image, mask, len(chosen))


def aligned(taken: Photo, face: Face, tool: Tool) -> tuple[Image.Image, np.ndarray]:
    """Cut out a face as the network was trained on faces."""
    from limn.faces import align

    config = tool.loaded.config
    return align(taken.image, face, getattr(config, "template", "") or TEMPLATE, tool.size or int(config.size))


def carried(image: Image.Image, taken: Photo, face: Face, tool: Tool) -> tuple[Image.Image, np.ndarray]:
    """Add to face and hair of a photo what the translation changes there: detail finer than the network sees is kept."""
    from limn.faces.paste import region, unwarp
    from limn.faces.transfer import face_mask
    from limn.media import to_tensor

    crop, matrix = aligned(taken, face, tool)
    soft = np.asarray(Image.fromarray(face_mask(*meshes([crop], tool.device))).resize(crop.size, Image.Resampling.BILINEAR))
    before = to_tensor(crop)
    change = ((run(before, tool) - before)[0].permute(1, 2, 0) * 127.5).numpy()
    box = region(matrix, crop.size, image.size)
    x0, y0, x1, y1 = box
    pixels, mask = np.array(image), np.zeros((image.height, image.width), np.float32)
    mask[y0:y1, x0:x1] = np.clip(unwarp(soft, matrix, box, beyond=False), 0, 1)
    added = unwarp(np.ascontiguousarray(change, np.float32), matrix, box) * mask[y0:y1, x0:x1, None]
    pixels[y0:y1, x0:x1] = np.clip(np.rint(pixels[y0:y1, x0:x1] + added), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), mask


def repainted(image: Image.Image, taken: Photo, face: Face, tool: Tool) -> tuple[Image.Image, np.ndarray]:
    """Draw the label map of a face, paint it, and put the painted face in the place of the photo's."""
    from limn.faces import masks
    from limn.faces.drawn import labels
    from limn.faces.paste import paste, region, unwarp
    from limn.media import to_image

    crop, matrix = aligned(taken, face, tool)
    (mesh,) = meshes([crop], tool.device)
    points = mesh * crop.width - 0.5
    new = to_image(run(one_hot(labels(points, crop.size), tool.classes), tool)).resize(crop.size, Image.Resampling.LANCZOS)
    soft = masks.oval(points, crop.size, grow=0.15, feather=0.3) * masks.inside_frame(crop.size)
    box = region(matrix, crop.size, image.size)
    mask = np.zeros((image.height, image.width), np.float32)
    mask[box[1] : box[3], box[0] : box[2]] = np.clip(unwarp(soft, matrix, box, beyond=False), 0, 1)
    return paste(image, new, matrix, soft), mask

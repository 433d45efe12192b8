"""What several verbs share: the models they use, the face that was asked for, and its code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from limn.errors import FaceError, InputError, WeightsError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from limn.faces import Face
    from limn.media import Photo
    from limn.weights import Loaded

GENERATOR = "limn-portraits64"
ENCODER = "limn-encoder64"
MESH = "limn-mesh"
IDENTITY = "limn-identity"
TEMPLATE = "ffhq"  # the alignment that all of limn's own portrait models were trained on
SMALLEST = 16  # pixels a side of a photo in which a face is looked for
READ_AT = 128  # pixels of the crops that the mesh and identity networks of the box read

Picture = str | Path | Image.Image


@dataclass(frozen=True)
class Model:
    """A generator that is ready, and what it is called."""

    generator: Any
    name: str
    hash: str
    path: Path  # its file
    device: torch.device

    @property
    def size(self) -> int:
        """Pixels a side of its pictures."""
        return int(self.generator.config.size)

    def draw(self, seeds: Sequence[int], truncation: float, label: int | None = None) -> Tensor:
        """Return the styles w (N, w_dim) of seeds; a conditional generator needs the number of a class."""
        import torch

        from limn.latent import spaces

        classes = int(self.generator.config.c_dim)
        if (label is None) != (not classes) or (label is not None and not 0 <= label < classes):
            wanted = f"give --label 0 to {classes - 1}" if classes else "leave out --label"
            raise InputError(f"{self.name} {'makes faces of several classes' if classes else 'has no classes'}: {wanted}")
        z = spaces.sample_z(self.generator, seeds)
        row = None if label is None else torch.eye(classes, device=z.device)[label].expand(len(z), -1)
        return spaces.truncate(self.generator, spaces.z_to_w(self.generator, z, row), truncation)

    def pictures(self, w_plus: Tensor, batch: int = 8) -> list[Image.Image]:
        """Synthesise codes (N, num_ws, w_dim), some at a time, with the constant noise."""
        import torch

        from limn.media import to_image

        with torch.inference_mode():
            parts = [self.generator.synthesis(part.to(self.device)).cpu() for part in w_plus.split(batch)]
        return [to_image(image) for image in torch.cat(parts)]


@dataclass(frozen=True)
class Subject:
    """One face of a photo, cut out as the model sees it."""

    face: Face
    crop: Image.Image  # aligned, of the model's size
    matrix: np.ndarray  # (2, 3): pixels of the photo -> pixels of the crop


def load_generator(model: str, device: str) -> Model:
    """Load a generator by name or path; WeightsError where the file holds another kind of network."""
    from limn import device as devices
    from limn.weights import load
    from limn.weights.store import resolve

    place, path = devices.choose(device), resolve(model)
    loaded = load(path, device=place)
    if loaded.part != "generator" or not hasattr(loaded.model, "synthesis"):
        raise WeightsError(f"{model} is the {loaded.part} of {loaded.system}: a generator is needed; `limn models list` shows them")
    return Model(loaded.model, path.stem, loaded.hash, path, place)


def network(name: str, device: torch.device | str) -> Any:
    """Load a network by name or path, once for all faces of a picture and all pictures of a strip."""
    return _loaded(name, device).model


def _loaded(name: str, device: torch.device | str) -> Loaded:
    from limn.weights.store import resolve

    path = resolve(name)
    return _kept(path, path.stat().st_mtime_ns, str(device))


@lru_cache(maxsize=4)
def _kept(path: Path, written: int, device: str) -> Loaded:  # noqa: ARG001 - a file that was written anew is another file
    from limn.weights import load

    return load(path, device=device)


def load_encoder(encoder: str, model: Model) -> Any:
    """Load an encoder into W+ that fits the generator, by name or path."""
    loaded = _loaded(encoder, model.device)
    if not hasattr(loaded.model, "encode"):
        raise WeightsError(f"{encoder} is the {loaded.part} of {loaded.system}: an encoder is needed; `limn models list` shows them")
    theirs, ours = (loaded.config.num_ws, loaded.config.w_dim), (model.generator.num_ws, model.generator.config.w_dim)
    if theirs != ours:
        said = f"{encoder} makes codes of {theirs[0]} x {theirs[1]}, {model.name} takes {ours[0]} x {ours[1]}"
        raise WeightsError(f"{said}: give --encoder one that was made for this generator")
    return loaded.model


def encode(encoder: Any, crop: Image.Image, model: Model) -> Tensor:
    """Return the W+ code (1, num_ws, w_dim) of an aligned crop."""
    import torch

    from limn.media import to_tensor

    with torch.no_grad():
        return encoder.encode(to_tensor(crop).to(model.device)).float()


def choose_faces(photo: Photo, face: int | str, detector: str = "limn") -> tuple[list[Face], int]:
    """Return the faces asked for that a detector finds (a number by size, 0 the largest, or "all") and how many there are.

    FaceError, naming the file, where there is none, or no such number.
    """
    from limn.faces import choose, detect

    name = str(photo.path or "the picture")
    if min(photo.size) < SMALLEST:
        raise FaceError(f"{name} is {photo.size[0]}x{photo.size[1]} pixels, too small to hold a face: {SMALLEST} are the least")
    found = detect(photo.image, detector)
    try:
        return choose(found, face), len(found)
    except FaceError as error:
        raise FaceError(str(error).replace("the picture", name)) from error


def one_face(photo: Photo, face: int | str, detector: str = "limn") -> tuple[Face, int]:
    """Return one face and how many there are; InputError for "all"."""
    if face == "all":
        raise InputError("--face all: one face is needed here; give its number, 0 for the largest")
    (chosen,), count = choose_faces(photo, face, detector)
    return chosen, count


def sources_of(*photos: Photo) -> tuple[Path, ...]:
    """Return the files of photos, for the record of what was made from what; a picture in memory has none."""
    return tuple(photo.path for photo in photos if photo.path is not None)


def cut(photo: Photo, face: Face, size: int) -> Subject:
    """Cut a face out of a photo as the generators and encoders of the box see it."""
    from limn.faces import align

    crop, matrix = align(photo.image, face, TEMPLATE, size)
    return Subject(face, crop, matrix)


def meshes(crops: Iterable[Image.Image], device: torch.device | str = "cpu") -> list[np.ndarray]:
    """Return the mesh (478, 2) of each aligned crop of any size, in crop sides."""
    import torch

    from limn.media import to_tensor

    images = torch.cat([to_tensor(crop.resize((READ_AT, READ_AT), Image.Resampling.BICUBIC)) for crop in crops]).to(device)
    with torch.inference_mode():
        return [points[:, :2] / READ_AT for points in network(MESH, device).landmarks(images).float().cpu().numpy()]

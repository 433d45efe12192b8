"""`limn invert`: the code by which a generator makes the face of a photograph."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from PIL import Image

from limn.errors import InputError
from limn.tasks.portrait import (
    ENCODER,
    GENERATOR,
    IDENTITY,
    Model,
    Picture,
    Subject,
    cut,
    encode,
    load_encoder,
    load_generator,
    network,
    one_face,
    sources_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from limn.latent.files import Latent

Method = Literal["encoder", "optimise", "both", "pivotal"]
STEPS: Mapping[str, int] = {"encoder": 0, "optimise": 400, "both": 150, "pivotal": 150}
TUNING = 120  # steps of pivotal tuning
PULL = 0.05  # weight of the squared way from the encoder's code, in "both" and "pivotal": further away, edits fail


@dataclass(frozen=True)
class How:
    """How codes are found."""

    encoder: str = ENCODER
    method: Method = "encoder"
    steps: int | None = None  # of optimisation; by the method if None
    seed: int = 0  # of its draws

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise InputError(f"--steps {self.steps}: optimisation needs at least 1 step")


@dataclass(frozen=True)
class Inverted:
    """What was found, and how close it came to the photograph."""

    photo: str
    face: int
    faces_found: int
    method: str
    model: str
    closeness: Mapping[str, float]  # of the reconstruction to the aligned face
    files: tuple[Path, ...]
    seconds: float
    notes: tuple[str, ...]
    image: Image.Image = field(repr=False, metadata={"json": False})  # the reconstruction
    latent: Latent = field(repr=False, metadata={"json": False})


def invert(
    photo: Annotated[Picture, "A photograph."],
    *,
    out: Annotated[Path, "The latent (.safetensors); a picture of face and reconstruction is written beside it."],
    method: Annotated[Method, "By the encoder, by optimisation, by both, or by both and bending the generator."] = "both",
    face: Annotated[int, "Which face: 0 is the largest."] = 0,
    detector: Annotated[str, "What finds faces: limn, retinaface, yunet, or a weight file of one."] = "limn",
    steps: Annotated[int | None, "Steps of optimisation; by the method if not given."] = None,
    marks: Annotated[bool, "Mark what is written as made by a model: signed credentials and a watermark."] = True,
    model: Annotated[str, "Name or file of a generator."] = GENERATOR,
    encoder: Annotated[str, "Name or file of an encoder for it."] = ENCODER,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
    seed: Annotated[int, "Of the optimisation's draws."] = 0,
) -> Inverted:
    """Find the latent of a face in a photograph, and say how close its picture comes.

    Closeness: a perceptual distance (0 is the same; limn's own features), PSNR in dB, and the cosine similarity of identities.
    """
    from limn.latent.files import save_latent
    from limn.media import Origin, grid, read_image, writable, write_image

    began = time.monotonic()
    latent_file, picture_file = out.with_suffix(".safetensors"), out.with_suffix(".png" if out.suffix == ".safetensors" else out.suffix)
    writable(latent_file)
    taken = read_image(photo)
    chosen, count = one_face(taken, face, detector)
    generator = load_generator(model, device)
    subject = cut(taken, chosen, generator.size)
    latent = find(subject, generator, How(encoder, method, steps, seed))
    image = reconstruction(latent, generator)
    measured = closeness(subject.crop, image, generator)
    about = {"photo": taken.path.name if taken.path else "", "matrix": subject.matrix.tolist(), "photo_size": list(taken.size)}
    latent = replace(latent, source={**latent.source, **about, "closeness": measured})
    origin = Origin("inverted", generator.name, generator.hash, sources_of(taken), {"method": method}, marked=marks)
    files = (save_latent(latent_file, latent), write_image(grid([subject.crop, image]), picture_file, origin=origin))
    took = time.monotonic() - began
    return Inverted(str(taken.path or "picture"), face, count, method, generator.name, measured, files, took, taken.notes, image, latent)


def find(subject: Subject, model: Model, how: How) -> Latent:
    """Find the W+ code of an aligned face; "pivotal" keeps what was changed in the generator with it."""
    from limn.latent.files import Latent, difference

    code: Tensor | None = None
    tuned: Mapping[str, Tensor] = {}
    if how.method != "optimise":
        code = encode(load_encoder(how.encoder, model), subject.crop, model)
    if how.method != "encoder":
        code = _optimised(subject, model, code, how.steps or STEPS[how.method], how.seed)
    if how.method == "pivotal":
        tuned = difference(_tuned(subject, model, code), model.generator)
    assert code is not None, "every method finds a code"
    return Latent("w_plus", (code.cpu(),), model.name, model.hash, {"method": how.method, "seed": how.seed}, tuned)


def reconstruction(latent: Latent, model: Model) -> Image.Image:
    """Return the picture of a latent, by the generator it was tuned to."""
    return tuned_model(latent, model).pictures(latent.code)[0]


def tuned_model(latent: Latent, model: Model) -> Model:
    """Return the model that a latent asks for: itself, or one with the latent's tuning."""
    from limn.latent.files import with_tuning

    return replace(model, generator=with_tuning(model.generator, latent))


def closeness(crop: Image.Image, image: Image.Image, model: Model) -> dict[str, float]:
    """Return the perceptual distance, PSNR in dB and identity similarity of a reconstruction to an aligned face."""
    import torch

    from limn.media import to_tensor
    from limn.metrics import identity, perceptual

    reader = network(IDENTITY, model.device)
    target, found = (to_tensor(picture).to(model.device) for picture in (crop, image))
    with torch.inference_mode():
        error = float((target - found).square().mean()) / 4
        return {
            "perceptual": round(float(perceptual.distance(reader.features, found, target)), 4),
            "psnr": round(10 * math.log10(1 / max(error, 1e-10)), 2),
            "identity": round(float(identity.similarity(reader, perceptual.fit(found, 128), perceptual.fit(target, 128))), 4),
        }


def _target(subject: Subject, model: Model) -> Tensor:
    from limn.media import to_tensor

    return to_tensor(subject.crop).to(model.device)


def _distance(model: Model) -> Any:
    """Return the distance that optimisation lowers: perceptual, by limn's own features, and squared error."""
    from limn.metrics import perceptual

    reader = network(IDENTITY, model.device)

    def distance(images: Tensor, target: Tensor) -> Tensor:
        return perceptual.distance(reader.features, images, target).mean() + (images - target).square().mean()

    return distance


def _optimised(subject: Subject, model: Model, start: Tensor | None, steps: int, seed: int) -> Tensor:
    """Search W+ from an encoder's code with a small rate, or W from the average as published."""
    from limn.latent import projector, spaces
    from limn.tasks.progress import bar

    published = projector.Schedule(steps=steps, regularise=0.0)
    schedule = published if start is None else projector.Schedule(steps=steps, lr=0.03, noise_factor=0.0, regularise=0.0)
    with bar("optimising", steps) as step:
        found = projector.project(
            model.generator,
            _target(subject, model),
            _distance(model),
            seed=seed,
            start=start,
            schedule=schedule,
            pull=0.0 if start is None else PULL,
            progress=step,
        )
    return spaces.w_to_w_plus(model.generator, found.code)


def _tuned(subject: Subject, model: Model, pivot: Tensor | None) -> Any:
    from limn.latent import projector
    from limn.tasks.progress import bar

    assert pivot is not None, "tuning comes after a code was found"
    with bar("tuning", TUNING) as step:
        tuned = projector.tune(model.generator, pivot, _target(subject, model), _distance(model), steps=TUNING, lr=1e-3, progress=step)
    return tuned.generator

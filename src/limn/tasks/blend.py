"""`limn blend`: two faces become one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from PIL import Image

from limn.errors import InputError
from limn.tasks.invert import How, Method, find
from limn.tasks.portrait import ENCODER, GENERATOR, Model, cut, load_generator, one_face

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Blended:
    """What was made of what."""

    parents: tuple[str, str]
    share: float
    layers: str
    model: str
    files: tuple[Path, ...]
    seconds: float
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})


def blend(
    first: Annotated[str | Path, "A photograph, a latent (.safetensors), or seed:N."],
    second: Annotated[str | Path, "Another."],
    *,
    out: Annotated[Path, "The picture; a latent is written beside it."],
    share: Annotated[float, "How much of the second: 0.5 is the middle."] = 0.5,
    layers: Annotated[str, "In which layers: all, coarse (pose), middle (features), fine (colours), or numbers such as 0-3,7."] = "all",
    strip: Annotated[int, "Instead of one picture, so many steps from the first to the second."] = 0,
    face: Annotated[int, "Which face of the photographs: 0 is the largest."] = 0,
    method: Annotated[Method, "How photographs are inverted, as in `limn invert`."] = "both",
    truncation: Annotated[float, "Of seeds."] = 0.7,
    marks: Annotated[bool, "Mark what is written as made by a model: signed credentials and a watermark."] = True,
    model: Annotated[str, "Name or file of a generator."] = GENERATOR,
    encoder: Annotated[str, "Name or file of an encoder for it."] = ENCODER,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
    seed: Annotated[int, "Of the optimisation's draws."] = 0,
) -> Blended:
    """Blend two faces: the middle between them, the layers of one in the other, or all steps from one to the other.

    `--layers coarse --share 1` gives the first face the pose and shape of the second (style mixing).
    """
    import torch

    from limn.latent import spaces
    from limn.latent.files import Latent, save_latent
    from limn.media import Origin, grid, output_format, writable, write_image

    began = time.monotonic()
    output_format(out)
    writable(out)
    if strip == 1 or not 0 <= strip <= 64:
        raise InputError(f"--strip {strip}: give the number of pictures, 2 to 64")
    chosen = load_generator(model, device)
    taken = spaces.parse_layers(layers, chosen.generator.num_ws)
    a, b = (_code(parent, chosen, face, truncation, How(encoder, method, seed=seed)) for parent in (first, second))
    shares = [step / (strip - 1) for step in range(strip)] if strip else [share]
    codes = torch.cat([spaces.mix(a, spaces.lerp(a, b, part), taken) for part in shares])
    images = chosen.pictures(codes)
    about = {"first": str(first), "second": str(second), "share": share, "layers": layers}
    sources = tuple(Path(parent) for parent in (first, second) if not str(parent).startswith("seed:"))
    origin = Origin("blended", chosen.name, chosen.hash, sources, about, marked=marks)
    files = [write_image(grid(images, columns=len(images)), out, origin=origin)]
    if not strip:
        files.append(save_latent(out.with_suffix(".safetensors"), Latent("w_plus", (codes.cpu(),), chosen.name, chosen.hash, about)))
    took = time.monotonic() - began
    return Blended((str(first), str(second)), share, layers, chosen.name, tuple(files), took, tuple(images))


def _code(parent: str | Path, model: Model, face: int, truncation: float, how: How) -> Tensor:
    """Return the W+ code (1, num_ws, w_dim) of a parent; a tuning that its latent bears is left out, for two cannot be joined."""
    from limn.latent import spaces
    from limn.latent.files import load_latent
    from limn.media import read_image

    generator = model.generator
    if str(parent).startswith("seed:"):
        number = str(parent).removeprefix("seed:")
        if not number.isdigit():
            raise InputError(f"{parent!r} is no seed: write seed: and a whole number, such as seed:7")
        return spaces.w_to_w_plus(generator, model.draw([int(number)], truncation))
    if Path(parent).suffix == ".safetensors":
        found = load_latent(parent, model.name, model.hash)
        return spaces.to_w_plus(generator, found.space, found.code.to(model.device))
    photo = read_image(parent)
    chosen, _ = one_face(photo, face)
    if how.method == "pivotal":
        raise InputError("two tuned generators cannot be blended: use --method both")
    return find(cut(photo, chosen, model.size), model, how).code.to(model.device)

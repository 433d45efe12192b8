"""`limn generate`: portraits of people who never were."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from PIL import Image

from limn.errors import InputError
from limn.tasks.portrait import GENERATOR, Model, load_generator
from limn.tasks.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from limn.media import Origin

BATCH = 8  # faces synthesised at a time


@dataclass(frozen=True)
class Generated:
    """What was made."""

    model: str
    seeds: tuple[int, ...]
    truncation: float
    size: int  # pixels a side
    files: tuple[Path, ...]
    seconds: float
    images: tuple[Image.Image, ...] = field(repr=False, metadata={"json": False})


def generate(
    *,
    seeds: Annotated[tuple[int, ...], "Whole numbers, one face each: 0-15 or 3,8,21."] = tuple(range(16)),
    truncation: Annotated[float, "How far from the average face: 0 is the average, 1 the full variety."] = 0.7,
    out: Annotated[Path | None, "A picture file for a sheet of all faces, or a folder for one file each."] = None,
    columns: Annotated[int | None, "Faces per row of the sheet; about square if not given."] = None,
    mix: Annotated[tuple[int, ...] | None, "Further seeds: a table in which each face takes --layers of these."] = None,
    layers: Annotated[str, "Layers taken in --mix: coarse, middle, fine, all, or numbers such as 0-3,7."] = "middle",
    video: Annotated[Path | None, "A video file (.mp4) that wanders from face to face."] = None,
    frames: Annotated[int, "Frames of the video from one face to the next."] = 40,
    label: Annotated[int | None, "The class, for a generator that has classes."] = None,
    latents: Annotated[bool, "Also write each face's latent into the folder."] = False,
    marks: Annotated[bool, "Mark what is written as made by a model: signed credentials and a watermark."] = True,
    model: Annotated[str, "Name or file of a generator."] = GENERATOR,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Generated:
    """Generate portraits from seeds: a sheet, single files, a style-mixing table, an interpolation video.

    The same seed, model and device give the same face, whichever seeds stand beside it.
    """
    from limn.latent import spaces
    from limn.media import Origin

    began = time.monotonic()
    _check(out, video, latents, truncation)
    chosen = load_generator(model, device)
    w = chosen.draw(seeds, truncation, label)
    codes = spaces.w_to_w_plus(chosen.generator, w)
    images, files = chosen.pictures(codes), []
    origin = Origin(
        "generated", chosen.name, chosen.hash, settings={"seeds": " ".join(map(str, seeds)), "truncation": truncation}, marked=marks
    )
    if out is not None and _is_folder(out):
        files += _write_each(out, seeds, images, origin)
        files += _write_latents(out, seeds, codes, truncation, chosen) if latents else []
    elif out is not None:
        table = None if mix is None else _mixed(chosen, codes, chosen.draw(mix, truncation, label), layers)
        files.append(_write_sheet(out, images, columns, table, origin))
    if video is not None:
        files.append(_write_video(video, chosen, w, frames, origin))
    return Generated(chosen.name, tuple(seeds), truncation, chosen.size, tuple(files), time.monotonic() - began, tuple(images))


def _check(out: Path | None, video: Path | None, latents: bool, truncation: float) -> None:
    """Find what cannot be written before anything is computed."""
    from limn.media import output_format, writable

    if latents and (out is None or not _is_folder(out)):
        raise InputError("--latents needs a folder to write into: give --out FOLDER/")
    if not -2 <= truncation <= 2:
        raise InputError(f"--truncation {truncation} makes no faces: 0 to 1 is usual, -2 to 2 allowed")
    if out is not None and _is_folder(out):
        writable(out / "seed") if out.is_dir() else writable(out)
    elif out is not None:
        output_format(out)
        writable(out)
    if video is not None:
        if video.suffix.lower() not in {".mp4", ".mkv", ".mov", ".webm"}:
            raise InputError(f"cannot write {video}: a video file ends in .mp4, .mkv, .mov or .webm")
        writable(video)


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _write_each(folder: Path, seeds: tuple[int, ...], images: list[Image.Image], origin: Origin) -> list[Path]:
    from limn.media import write_image

    folder.mkdir(exist_ok=True)
    return [
        write_image(image, folder / f"seed{seed:04d}.png", origin=replace(origin, settings={**origin.settings, "seeds": str(seed)}))
        for seed, image in zip(seeds, images, strict=True)
    ]


def _write_latents(folder: Path, seeds: tuple[int, ...], codes: Tensor, truncation: float, model: Model) -> list[Path]:
    from limn.latent.files import Latent, save_latent

    return [
        save_latent(
            folder / f"seed{seed:04d}.safetensors",
            Latent("w_plus", (code[None],), model.name, model.hash, {"seed": seed, "truncation": truncation}),
        )
        for seed, code in zip(seeds, codes, strict=True)
    ]


def _write_sheet(out: Path, images: list[Image.Image], columns: int | None, table: list[Image.Image] | None, origin: Origin) -> Path:
    from limn.media import grid, write_image

    if table is not None:
        return write_image(grid(table, columns=len(table) // (len(images) + 1)), out, origin=origin)
    if columns is not None and columns < 1:
        raise InputError(f"--columns {columns}: a sheet has at least 1")
    return write_image(grid(images, columns=columns), out, origin=origin)


def _mixed(model: Model, codes: Tensor, w: Tensor, layers: str) -> list[Image.Image]:
    """Return the cells of a style-mixing table, row by row: above, the faces that give `layers`; on the left, those that take them."""
    import torch

    from limn.latent import spaces

    generator = model.generator
    taken = spaces.parse_layers(layers, generator.num_ws)
    givers = spaces.w_to_w_plus(generator, w)
    cells = torch.cat([spaces.mix(code[None].expand_as(givers), givers, taken) for code in codes])
    above, left, inside = model.pictures(givers), model.pictures(codes), model.pictures(cells)
    table = [Image.new("RGB", above[0].size, "white"), *above]
    for row, face in enumerate(left):
        table += [face, *inside[row * len(w) : (row + 1) * len(w)]]
    return table


def _write_video(video: Path, model: Model, w: Tensor, frames: int, origin: Origin, *, height: int = 256) -> Path:
    """Write a video that wanders through w (N, w_dim) and back to its start, enlarged to at least `height` pixels."""
    import torch

    from limn.latent import spaces
    from limn.media import write_video

    if len(w) < 2 or frames < 1:
        raise InputError(f"a video needs at least two seeds and one frame between them, not {len(w)} and {frames}")
    side = max(model.size, height)

    def pictures() -> Iterator[Image.Image]:
        codes = torch.cat(list(spaces.journey(w, frames)))
        for part in track(codes.split(BATCH), "video", -(-len(codes) // BATCH)):
            for image in model.pictures(spaces.w_to_w_plus(model.generator, part)):
                yield image.resize((side, side), Image.Resampling.BICUBIC)

    return write_video(video, pictures(), fps=25, origin=origin)

"""Pictures with masks: folders images and masks matched by stem, or a .jpg and a .png of one name beside each other.

A mask of levels or a palette is read as it is; with `classes` its values are class numbers; with `colours` the nearest colour counts.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limn.errors import InputError
from limn.media.photo import BROKEN
from limn.training.datasets.order import generator, is_held_out
from limn.training.datasets.paired import joined, moved, stem, two_folders
from limn.training.datasets.pictures import MEMORY, Store, filled, opened, squared, tensor
from limn.training.datasets.source import Source, open_source

FOLDERS = (("images", "masks"), ("image", "mask"), ("images", "labels"), ("CelebA-HQ-img", "mask"))


@dataclass(frozen=True)
class Masks:
    """`batch` gives `image` (N, 3, S, S) in [-1, 1] and `mask`: (N, 1, S, S) in [0, 1], or with classes (N, S, S) int64."""

    store: Store  # of (S, S, 4): RGB and mask
    names: tuple[tuple[str, ...], ...]
    size: int
    classes: int
    train: bool
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return the pictures of a step with their masks, the same ones for the same (seed, step), mirrored alike in training."""
        taken = moved(self.store.batch(step, size, seed), self.size, generator(seed, step) if self.train else None)
        mask = torch.from_numpy(np.ascontiguousarray(taken[..., 3]))
        return {"image": tensor(taken[..., :3]), "mask": mask.long() if self.classes else mask[:, None].float().div_(255)}


def open(
    path: Path,
    config: Any,
    train: bool = True,
    folders: Sequence[str] = (),
    classes: int = 0,
    colours: Sequence[tuple[int, int, int]] = (),
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Masks:
    """Open pictures at `config.size` with masks: of so many `classes` (or one per colour of `colours`), or 0 to 255 for 0 to 1.

    The held-out twentieth is chosen by the stem. InputError names the file without a partner, and the mask whose size or values
    are wrong.
    """
    source = open_source(path)
    pairs, alone = matched(source, folders)
    if alone and not skip_bad:
        raise InputError(f"{source.path}: {alone[0]} has no partner" + (f" (and {len(alone) - 1} more)" if alone[1:] else ""))
    pairs = [pair for pair in pairs if is_held_out(stem(pair[0])) != train]
    if not pairs:
        raise InputError(f"{source.path}: holds no pictures with masks of the {'training' if train else 'held-out'} share")
    classes, size = classes or len(colours), config.size

    def make(number: int) -> np.ndarray:
        picture, mask = pairs[number]
        rgb = opened(source.read(picture), source.title(picture))
        levels = read_mask(source.read(mask), source.title(mask), classes, colours)
        if levels.size != rgb.size:
            raise InputError(f"{source.title(mask)}: is {_size(levels)}, its picture {_size(rgb)}: make them equal")
        fitted = levels.resize((size, size), Image.Resampling.NEAREST if classes else Image.Resampling.BOX)
        return np.concatenate([squared(rgb, size, source.title(picture)), np.asarray(fitted)[..., None]], -1)

    store = Store(len(pairs), (size, size, 4), make, memory)
    left_out = filled(store, source, pairs, skip_bad)
    noted = tuple(f"{source.title(name)}: has no partner" for name in alone)
    return Masks(store, tuple(pairs[n] for n in store.good), size, classes, train, noted + left_out)


def read_mask(data: bytes, name: str, classes: int = 0, colours: Sequence[tuple[int, int, int]] = ()) -> Image.Image:
    """Decode a mask to mode L: levels, the numbers of a palette, or the number of the nearest colour; InputError beyond the classes."""
    try:
        with Image.open(io.BytesIO(data)) as opened_:
            opened_.load()
            picture = opened_.convert("L") if opened_.mode == "1" else opened_.copy()
    except BROKEN as error:
        raise InputError(f"{name}: cannot be decoded ({error}); remove or replace it") from error
    if colours:
        distances = [np.square(np.asarray(picture.convert("RGB"), int) - colour).sum(-1) for colour in colours]
        return Image.fromarray(np.argmin(distances, 0).astype(np.uint8))
    if picture.mode not in ("L", "P"):
        bands = np.asarray(picture.convert("RGB"))
        if classes or not (bands == bands[..., :1]).all():
            raise InputError(f"{name}: is a mask in colours ({picture.mode}): give the colour of each class")
        return Image.fromarray(bands[..., 0])
    levels = np.asarray(picture)
    if classes and levels.max(initial=0) >= classes:
        raise InputError(f"{name}: has the value {levels.max()}; expected 0 to {classes - 1}")
    return Image.fromarray(levels)


def matched(source: Source, folders: Sequence[str] = ()) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return (picture, mask) pairs and the files without a partner."""
    for pair in [tuple(folders)] if folders else FOLDERS:
        tops = {PurePosixPath(name).parts[0] for name in source.names if "/" in name}
        if tops >= set(pair):
            return joined(*two_folders(source, pair) or ([], []))
    pictures = [name for name in source.names if PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg")]
    return joined(pictures, [name for name in source.names if PurePosixPath(name).suffix.lower() == ".png"])


def _size(image: Image.Image) -> str:
    return f"{image.width}×{image.height}"

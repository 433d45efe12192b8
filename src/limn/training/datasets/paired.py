"""Pairs of pictures of the same thing: two folders matched by stem, or each pair side by side in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from limn.errors import InputError
from limn.training.datasets.order import generator, is_held_out
from limn.training.datasets.pictures import MEMORY, Store, decode, filled, opened, squared, tensor
from limn.training.datasets.source import Source, open_source

FOLDERS = (("source", "target"), ("input", "target"), ("A", "B"), ("a", "b"), ("trainA", "trainB"))  # CycleGAN's names among them


@dataclass(frozen=True)
class Paired:
    """`batch` gives `source` and `target` (N, 3, S, S) in [-1, 1]: both of a pair are mirrored and shifted alike in training."""

    store: Store  # of (2, S + jitter, S + jitter, 3)
    names: tuple[tuple[str, ...], ...]
    size: int
    train: bool
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return the pairs of a step, the same ones for the same (seed, step)."""
        taken = self.store.batch(step, size, seed)
        rng = generator(seed, step) if self.train else None
        both = moved(np.concatenate([taken[:, 0], taken[:, 1]], -1), self.size, rng)
        return {"source": tensor(both[..., :3]), "target": tensor(both[..., 3:])}


def moved(pictures: np.ndarray, size: int, rng: np.random.Generator | None) -> np.ndarray:
    """Cut squares (N, size, size, C), anywhere and mirrored at random, or without a generator out of the middle."""
    spare = pictures.shape[1] - size
    if rng is None:
        return pictures[:, spare // 2 :, spare // 2 :][:, :size, :size]
    flip = rng.random(len(pictures)) < 0.5
    corners = rng.integers(0, spare + 1, (len(pictures), 2))
    cut = np.stack([picture[y : y + size, x : x + size] for picture, (y, x) in zip(pictures, corners, strict=True)])
    return np.where(flip[:, None, None, None], cut[:, :, ::-1], cut)


def open(
    path: Path,
    config: Any,
    train: bool = True,
    folders: Sequence[str] = (),
    swapped: bool = False,
    jitter: int = 0,
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Paired:
    """Open pairs at `config.size`: of two folders (`folders`, else source/target, A/B ...), or side by side, left to right.

    `swapped` learns from right to left; `jitter` decodes so many pixels more, of which a random square is cut. The held-out
    twentieth is chosen by the stem. InputError names the file without a partner.
    """
    source = open_source(path)
    pairs, alone = matched(source, folders)
    if alone and not skip_bad:
        raise InputError(f"{source.path}: {alone[0]} has no partner" + (f" (and {len(alone) - 1} more)" if alone[1:] else ""))
    pairs = [pair for pair in pairs if is_held_out(stem(pair[0])) != train]
    if not pairs:
        raise InputError(f"{source.path}: holds no pairs of the {'training' if train else 'held-out'} share: add pictures")
    side = config.size + jitter
    order = (1, 0) if swapped else (0, 1)

    def make(number: int) -> np.ndarray:
        names = pairs[number]
        if len(names) == 1:
            both = halves(source, names[0], side)
        else:
            both = [decode(source.read(name), side, source.title(name)) for name in names]
        return np.stack([both[n] for n in order])

    store = Store(len(pairs), (2, side, side, 3), make, memory)
    left_out = filled(store, source, pairs, skip_bad)
    noted = tuple(f"{source.title(name)}: has no partner" for name in alone)
    return Paired(store, tuple(pairs[n] for n in store.good), config.size, train, noted + left_out)


def halves(source: Source, name: str, size: int) -> list[np.ndarray]:
    """Cut a picture that is twice as wide as high into two squares."""
    rgb = opened(source.read(name), source.title(name), size)
    if rgb.width != 2 * rgb.height:
        raise InputError(f"{source.title(name)}: is {rgb.width}×{rgb.height}; pairs side by side are twice as wide as high")
    return [squared(rgb.crop((x, 0, x + rgb.height, rgb.height)), size, source.title(name)) for x in (0, rgb.height)]


def matched(source: Source, folders: Sequence[str] = ()) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the pairs of file names, or single names where pairs lie side by side, and the files without a partner."""
    two = two_folders(source, folders)
    if two is None:
        return [(name,) for name in source.names], []
    return joined(*two)


def joined(first: Sequence[str], second: Sequence[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Match the names of two folders by what is left of the suffix and right of the folder."""
    ours, theirs = {stem(name): name for name in first}, {stem(name): name for name in second}
    pairs: list[tuple[str, ...]] = [(ours[key], theirs[key]) for key in ours if key in theirs]
    alone = [name for name in first if stem(name) not in theirs] + [name for name in second if stem(name) not in ours]
    return pairs, alone


def two_folders(source: Source, folders: Sequence[str] = ()) -> tuple[list[str], list[str]] | None:
    """Return the names in each of two folders; None where there are no such two and none were asked for."""
    tops = {PurePosixPath(name).parts[0] for name in source.names if "/" in name}
    asked = [tuple(folders)] if folders else FOLDERS
    for pair in asked:
        if len(pair) == 2 and tops >= set(pair):
            return [n for n in source.names if n.startswith(f"{pair[0]}/")], [n for n in source.names if n.startswith(f"{pair[1]}/")]
    if folders:
        raise InputError(f"{source.path}: has no folders {' and '.join(folders)}; it has {', '.join(sorted(tops)) or 'none'}")
    return None


def stem(name: str) -> str:
    """Return a name without its first folder and its suffix: what the two of a pair have in common."""
    at = PurePosixPath(name)
    return str(PurePosixPath(*at.parts[1:]).with_suffix("")) if len(at.parts) > 1 else at.stem

"""Clips: a folder of videos, from which every item takes frames of one clip at random times, in order of time.

Clips lie in a folder, not in a zip or shards: a decoder needs a file that it can seek in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limn.errors import InputError
from limn.faces.align import warp
from limn.media import Clip, read_video
from limn.training.datasets import moving
from limn.training.datasets.ahead import in_order
from limn.training.datasets.order import generator, indices, is_held_out
from limn.training.datasets.pictures import MEMORY, Store, filled, squared, tensor
from limn.training.datasets.source import Source, open_source

CLIPS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ogv", ".gif"})


@dataclass(frozen=True)
class Clips:
    """`batch` gives `frames` (N, F, 3, S, S) in [-1, 1], `time` (N, F) in seconds and `clip` (N,), the number of each in `names`.

    F frames of one clip are mirrored together in training. The first frames are `source` and the last ones `target` for a system
    that is driven. With `portraits`, that `share` of the items are still portraits that move; their clip is -1.
    """

    store: Store  # of (FRAMES, S, S, 3): a clip's frames at a constant rate, the last one repeated
    counts: np.ndarray  # of the frames that each clip has
    names: tuple[str, ...]
    fps: float
    frames: int
    train: bool
    left_out: tuple[str, ...] = ()
    portraits: moving.Portraits | None = None
    share: float = 0.0
    posed: bool = False

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return frames of the clips of a step, the same ones for the same (seed, step)."""
        rng, clips = generator(seed, step), indices(step, size, len(self), seed)
        taken = self.store.batch(step, size, seed)
        times = np.stack([np.sort(rng.choice(self.counts[n], self.frames, replace=self.counts[n] < self.frames)) for n in clips])
        chosen = taken[np.arange(size)[:, None], times]
        if self.train:
            flip = rng.random(size) < 0.5
            chosen = np.where(flip[:, None, None, None, None], chosen[..., ::-1, :], chosen)
        if self.train and self.posed:
            chosen = np.stack([np.stack([moving.posed(frame, rng) for frame in item]) for item in chosen])
        if self.portraits is not None:
            chosen, clips = chosen.copy(), clips.copy()
            for item in np.flatnonzero(rng.random(size) < self.share):
                chosen[item], clips[item] = self.portraits.frames(rng, self.frames, chosen.shape[-2]), -1
        frames = tensor(chosen.reshape(-1, *chosen.shape[2:])).unflatten(0, (size, self.frames))
        return {"frames": frames, "time": torch.from_numpy(times / self.fps).float(), "clip": torch.from_numpy(clips)}


def open(
    path: Path,
    config: Any,
    train: bool = True,
    frames: int = 2,
    fps: float = 12.5,
    seconds: float = 4.0,
    memory: float = MEMORY,
    skip_bad: bool = False,
    faces: bool = False,
    portraits: str = "",
    share: float = 0.5,
) -> Clips:
    """Open the clips of a folder at `config.size`: the middle square of their frames, `fps` a second, of the first `seconds`.

    With `faces` it is the square about the largest face, the same for a whole clip so that the head moves in it, and in training
    frames are shifted and tilted a little. `portraits` is a zip of portraits with meshes, of which `share` of the items are made.
    The held-out twentieth is chosen by name. Cut longer clips into pieces of `seconds` to use all of them.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is no folder: clips are read from a folder, unpack it first")
    source = open_source(path)
    names = [name for name in names_of(source) if is_held_out(name) != train]
    if not names:
        raise InputError(f"{path}: holds no clip of the {'training' if train else 'held-out'} share: MP4, MOV, MKV, WebM, AVI are read")
    most = max(int(seconds * fps), 1)
    shape = (most, config.size, config.size, 3)
    store = Store(len(names), shape, lambda n: decoded(source, names[n], config.size, fps, most, faces), memory)
    left_out = filled(store, source, [(name, f"{fps} {seconds} {faces}") for name in names], skip_bad)
    kept = tuple(names[n] for n in store.good)
    counts = np.array(list(in_order(lambda name: count(read_video(path / name), fps, most), kept)))
    stills = moving.open(Path(portraits), train) if portraits else None
    return Clips(store, counts, kept, fps, frames, train, left_out, stills, share, faces)


def names_of(source: Source) -> list[str]:
    """Return the names of the clips, sorted."""
    return [name for name in sorted((*source.names, *source.others)) if Path(name).suffix.lower() in CLIPS]


def fault(source: Source, name: str) -> str:
    """Decode a whole clip and say what is wrong with it, or nothing."""
    try:
        clip = read_video(source.path / name)
        frames = sum(1 for _ in clip)
    except InputError as error:
        return str(error).replace(f"{source.path / name} ", "")
    return f"ends after {frames} of about {len(clip)} frames" if frames < 0.9 * len(clip) else ""


def count(clip: Clip, fps: float, most: int) -> int:
    """Return how many frames of a clip are used: what its header says, for its last frames may be repeats."""
    return int(np.clip(round(clip.duration * fps), 1, most))


def decoded(source: Source, name: str, size: int, fps: float, most: int, faces: bool = False) -> np.ndarray:
    """Decode the first `most` frames of a clip, (most, size, size, 3) uint8; what it lacks repeats its last frame."""
    try:
        clip = read_video(source.path / name)
        matrix = framing(clip, size, most / fps) if faces else None
        taken = (image for _, (_, image) in zip(range(most), clip.at(fps), strict=False))
        frames = [_middle(image, size) if matrix is None else warp(np.asarray(image), matrix, (size, size)) for image in taken]
    except InputError as error:
        raise InputError(str(error).replace(str(source.path / name), source.title(name))) from error
    if not frames:
        raise InputError(f"{source.title(name)}: holds no frame that can be decoded; remove or replace it")
    return np.stack(frames + frames[-1:] * (most - len(frames)))


def framing(clip: Clip, size: int, seconds: float, looks: int = 5) -> np.ndarray:
    """Return the matrix (2, 3) that cuts the square about the largest face out of every frame: that of its mean place."""
    from limn.faces import detect
    from limn.faces.templates import matrix

    rate = max(looks / min(max(seconds, 0.1), max(clip.duration, 0.1)), 0.1)
    found = [detect(image, mesh=False) for _, (_, image) in zip(range(looks), clip.at(rate), strict=False)]
    points = [faces[0].points for faces in found if faces]
    if not points:
        raise InputError(f"{clip.path}: no face was found in it; read it without faces=true, or remove it")
    return matrix("ffhq", np.mean(points, axis=0), size)


def _middle(image: Image.Image, size: int) -> np.ndarray:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return squared(image.crop((left, top, left + side, top + side)), size, "frame")

"""Aligned faces with the class of every pixel, for parsers: painted by hand, or guessed where only a mesh is known.

`portraits128.zip` with `portraits128-mesh.npz` beside it gets the classes of `limn_parser.CLASSES` from `guessed.labels`, which takes
about 30 ms a picture and is kept in the user's data folder. Any other folder or zip holds pictures and label maps, matched and read as
the kind "masks" does. Left and right classes are exchanged where a picture is mirrored, which published recipes forget.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from limn.media.files import atomic
from limn.models.perception import bisenet, limn_parser
from limn.training.datasets import guessed, masks, mesh
from limn.training.datasets.ahead import in_order
from limn.training.datasets.pictures import MEMORY, Store, tensor
from limn.training.datasets.spoil import spoilt
from limn.weights import load
from limn.weights.store import resolve, store

KNOWN = (limn_parser.CLASSES, bisenet.CLASSES)  # the classes whose left and right sides have names
PRIOR = 0.85  # how much of the prior a parser's answer makes, where one is asked
COVERED = 0.12  # share of the pictures in which something hides part of the face: that part is background


@dataclass(frozen=True)
class Parsing:
    """`batch` gives `image` (N, 3, S, S) in [-1, 1], `mask` (N, S, S) int64 and `sure` (N, S, S) in [0, 1]."""

    store: Store  # of (S, S, 5): RGB, class, and how sure it is
    mirror: np.ndarray  # the class that each becomes when left and right are exchanged
    train: bool

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return the pictures of a step with their classes, the same ones for the same (seed, step); spoilt and moved in training."""
        rows = self.store.batch(step, size, seed)
        if self.train:
            rows = np.stack([self.varied(row, np.random.default_rng([seed, step, index])) for index, row in enumerate(rows)])
        mask, sure = (torch.from_numpy(np.ascontiguousarray(rows[..., channel])) for channel in (3, 4))
        return {"image": tensor(rows[..., :3]), "mask": mask.long(), "sure": sure.float().div_(255)}

    def varied(self, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Mirror, move, cover and spoil one picture (S, S, 5); its classes follow."""
        picture, drawn = row[..., :3], row[..., 3:]
        if rng.random() < 0.5:
            picture, drawn = picture[:, ::-1], drawn[:, ::-1].copy()
            drawn[..., 0] = self.mirror[drawn[..., 0]]
        matrix, border = jitter(picture.shape[0], rng), cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_REPLICATE
        side = (picture.shape[0],) * 2
        picture = cv2.warpAffine(np.ascontiguousarray(picture), matrix, side, flags=cv2.INTER_LINEAR, borderMode=border)
        drawn = cv2.warpAffine(np.ascontiguousarray(drawn), matrix, side, flags=cv2.INTER_NEAREST, borderMode=border)
        if rng.random() < COVERED:
            picture, drawn = covered(picture, drawn, rng)
        return np.concatenate([spoilt(picture, rng), drawn], -1)


def open(
    path: str | Path,
    config: Any,
    train: bool = True,
    prior: str = "",
    folders: Sequence[str] = (),
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Parsing:
    """Open faces with classes at `config.size`; guesses start from a parser (`prior`: its name or file) in place of an average head.

    Held out are one person in ten of the portraits, one picture in twenty of other data. TrainingError or InputError name what is wrong.
    """
    path = Path(path)
    source = path / "portraits128.zip" if path.is_dir() else path
    if source.with_name(source.stem + "-mesh.npz").is_file():
        pictures = mesh.open(source, config, train)
        shape = (config.size, config.size, 5)
        drawn = remembered(source, pictures, train, prior)
        kept = Store(len(pictures), shape, lambda number: np.concatenate([pictures.pictures[number], drawn[number]], -1), memory)
        kept.fill()
        return Parsing(kept, mirrored(len(limn_parser.CLASSES)), train)
    painted = masks.open(path, config, train, folders, config.classes, memory=memory, skip_bad=skip_bad)
    sure = np.full((config.size, config.size, 1), 255, np.uint8)
    given = painted.store
    kept = Store(
        len(painted), (config.size, config.size, 5), lambda number: np.concatenate([given.take(np.array([number]))[0], sure], -1), 0
    )
    return Parsing(kept, mirrored(config.classes), train)


def mirrored(classes: int) -> np.ndarray:
    """Return what each class becomes in a mirrored picture, for the published numbers of classes; itself for others."""
    names = next((known for known in KNOWN if len(known) == classes), ())
    if not names:
        return np.arange(classes, dtype=np.uint8)
    other = {"left": "right", "right": "left"}
    swapped = ["_".join([other.get(name.split("_")[0], name.split("_")[0]), *name.split("_")[1:]]) for name in names]
    return np.array([names.index(name) for name in swapped], np.uint8)


def remembered(source: Path, data: mesh.Meshes, train: bool, prior: str) -> np.ndarray:
    """Return the guesses (N, S, S, 2) for all pictures, from the user's data folder where they were made before."""
    facts, rules = source.stat(), Path(guessed.__file__).read_bytes()
    asked = hashlib.sha256(resolve(prior).read_bytes()).hexdigest() if prior else "average head"
    told = f"{source.resolve()} {facts.st_size} {facts.st_mtime_ns} {train} {asked} {hashlib.sha256(rules).hexdigest()}"
    file = store().parent / "guessed" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.npz"
    if file.exists():
        with np.load(file) as arrays:
            return np.asarray(arrays["labels"])
    likely = answers(load(prior).model, data) if prior else [None] * len(data)
    pairs = in_order(lambda n: guessed.labels(data.pictures[n], data.points[n] - (0.5, 0.5, 0), likely[n]), range(len(data)))
    found = np.stack([np.stack(pair, -1) for pair in pairs])
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as beside, beside.open("wb") as opened:
        np.savez_compressed(opened, labels=found)
    return found


def answers(parser: Any, data: mesh.Meshes, batch: int = 32) -> list[np.ndarray]:
    """Return what a parser holds likely at each pixel of each picture, (5, S, S) for `guessed.OUTER`, with the average head mixed in."""
    groups = {name: [limn_parser.CLASSES.index(name)] for name in guessed.OUTER}
    groups["skin"] = [n for n, name in enumerate(limn_parser.CLASSES) if name not in guessed.OUTER or name == "skin"]
    found: list[np.ndarray] = []
    for start in range(0, len(data), batch):
        shares = parser.parse(tensor(np.stack(data.pictures[start : start + batch]))).softmax(1)
        joined = torch.stack([shares[:, groups[name]].sum(1) for name in guessed.OUTER], 1).numpy()
        for offset, likely in enumerate(joined):
            points = data.points[start + offset] - (0.5, 0.5, 0)
            head = guessed.prior(guessed.frame(points, likely.shape[-1]))
            found.append((PRIOR * likely + (1 - PRIOR) * head).astype(np.float16))
    return found


def jitter(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a matrix (2, 3) that moves, turns and scales a crop as alignments differ, sometimes much more."""
    wild = 2.5 if rng.random() < 0.25 else 1.0
    angle = np.deg2rad(np.clip(rng.normal(0, 5 * wild), -40, 40))
    scale = np.exp(np.clip(rng.normal(0, 0.07 * wild), -0.4, 0.4))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(np.exp(rng.normal(0, 0.04, 2)))
    middle = np.array([size / 2, size * 0.56])
    return np.concatenate([turn, (middle - turn @ middle + rng.normal(0, 0.03 * wild * size, 2))[:, None]], 1)


def covered(picture: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hide part of a picture behind a blob of one colour or of the picture's own upper corner, which is background from then on."""
    size = picture.shape[0]
    blob = np.zeros((size, size), np.uint8)
    centre, axes = (tuple(float(v) for v in rng.uniform(low, high, 2) * size) for low, high in ((0.1, 0.9), (0.06, 0.3)))
    cv2.ellipse(blob, (centre, axes, float(rng.uniform(0, 180))), 1, -1)
    patch = picture[: size // 4, : size // 4] if rng.random() < 0.5 else rng.integers(0, 256, (1, 1, 3)).astype(np.uint8)
    behind = cv2.resize(patch, (size, size), interpolation=cv2.INTER_CUBIC)
    picture, drawn = picture.copy(), drawn.copy()
    picture[blob > 0], drawn[blob > 0] = behind[blob > 0], (0, 255)
    return picture, drawn

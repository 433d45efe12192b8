"""Aligned portraits with label maps drawn from their meshes: what stands in for masks that somebody painted.

Reads a set like `portraits128.zip` and `portraits128-mesh.npz` beside it (`names`, `points_x8`: pixels times eight).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from limn.errors import InputError
from limn.faces.drawn import CLASSES, labels
from limn.training.datasets.labels import chosen, rows
from limn.training.datasets.masks import Masks
from limn.training.datasets.pictures import MEMORY, Store, filled, opened, squared
from limn.training.datasets.source import open_source


def open(
    path: Path,
    config: Any,
    train: bool = True,
    where: Sequence[str] = (),
    memory: float = MEMORY,
    skip_bad: bool = False,
) -> Masks:
    """Open the portraits that have a mesh, at `config.size`, with `mask` (N, S, S) of numbers in limn.faces.drawn.CLASSES.

    The held-out twentieth is that of `images`. InputError where the meshes are not beside the portraits.
    """
    source, meshes = open_source(path), Path(path).with_name(f"{Path(path).stem}-mesh.npz")
    if not meshes.is_file():
        raise InputError(f"{meshes}: no such file; label maps are drawn from the meshes beside the portraits")
    with np.load(meshes) as arrays:
        known = dict(zip(arrays["names"].tolist(), arrays["points_x8"].astype(np.float32) / 8, strict=True))
    numbers = [n for n in chosen(source, rows(source), train, where) if PurePosixPath(source.names[n]).name in known]
    if not numbers:
        raise InputError(f"{source.path}: none of the portraits chosen is named in {meshes.name}")
    names, size = [source.names[n] for n in numbers], config.size

    def make(number: int) -> np.ndarray:
        rgb = opened(source.read(names[number]), source.title(names[number]))
        points = (known[PurePosixPath(names[number]).name][:, :2] + 0.5) * (size / rgb.width) - 0.5
        return np.concatenate([squared(rgb, size, source.title(names[number])), labels(points, (size, size))[..., None]], -1)

    store = Store(len(names), (size, size, 4), make, memory)
    left_out = filled(store, source, [(name,) for name in names], skip_bad)
    return Masks(store, tuple((names[n],) for n in store.good), size, len(CLASSES), train, left_out)

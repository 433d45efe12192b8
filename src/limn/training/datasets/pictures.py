"""Decoded pictures by number: in memory when they fit, else decoded ahead of use by threads.

The bound is `memory` GiB of decoded pictures (2 by default). The first pictures that fit into it stay; as every epoch is a new
shuffle of all of them, none is worth more than another. The others are decoded anew whenever they come, AHEAD batches early.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limn.errors import InputError
from limn.media import atomic, read_image
from limn.media.photo import BROKEN, FORMATS
from limn.training.datasets.ahead import in_order, workers
from limn.training.datasets.order import indices
from limn.training.datasets.source import Source
from limn.weights.store import store

MEMORY = 2.0  # GiB of decoded pictures that are kept
AHEAD = 2  # batches that are decoded before they are asked for
ALL = slice(None)  # rows of a batch
GAP = 3  # a JPEG is decoded at no less than so many times the size wanted: halving in its transform costs nothing and is not seen


def opened(data: bytes, name: str, least: int = 0) -> Image.Image:
    """Decode a picture to upright RGB, of at least GAP * `least` pixels a side if it has them; the InputError names the file."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if least:
                picture.draft(None, (GAP * least, GAP * least))  # type: ignore[arg-type]
            simple = picture.mode == "RGB" or (picture.mode == "L" and "icc_profile" not in picture.info)
            if simple and "exif" not in picture.info and picture.format != "TIFF":
                return picture.convert("RGB")
            return read_image(picture).image
    except (*BROKEN, Image.DecompressionBombError, InputError) as error:
        raise InputError(f"{name}: cannot be decoded ({str(error).splitlines()[0][:120]}); remove or replace it") from error


def decode(data: bytes, size: int, name: str) -> np.ndarray:
    """Decode one square picture to (size, size, 3) bytes; the error names the file."""
    return squared(opened(data, name, size), size, name)


def squared(rgb: Image.Image, size: int, name: str) -> np.ndarray:
    """Bring a square picture to (size, size, 3) bytes; InputError for one that is not square."""
    if rgb.width != rgb.height:
        raise InputError(f"{name}: is {rgb.width}×{rgb.height}, but training pictures are square: align or crop them first")
    return np.asarray(rgb if rgb.width == size else rgb.resize((size, size), Image.Resampling.LANCZOS))


def tensor(pictures: np.ndarray) -> Tensor:
    """Bytes (N, H, W, 3) as float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class Store:
    """`count` arrays of one shape, uint8, made by `make(number)`; the first `room` of them stay in memory once `fill` made them."""

    def __init__(self, count: int, shape: tuple[int, ...], make: Callable[[int], np.ndarray], memory: float = MEMORY) -> None:
        self.make, self.shape = make, shape
        self.room = min(count, int(memory * 2**30) // int(np.prod(shape)))
        self.kept = np.empty((self.room, *shape), np.uint8)
        self.good = np.arange(count)  # numbers that may be asked for; fewer after skipping
        self.coming: dict[int, Future[np.ndarray]] = {}
        self.pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.good)

    def fill(self, known: dict[int, str] | None = None) -> dict[int, str]:
        """Make every array once, in parallel, keep those that stay, and return what is wrong, by number.

        With `known`, the result of an earlier pass over the same files, only those that stay are made.
        """
        bad = dict(known or {})
        wanted = [number for number in range(len(self.good) if known is None else self.room) if number not in bad]
        for number, found in zip(wanted, in_order(self._tried, wanted), strict=True):
            if isinstance(found, str):
                bad[number] = found
            elif number < self.room:
                self.kept[number] = found
        self.good = np.array([number for number in self.good if number not in bad], int)
        return bad

    def _tried(self, number: int) -> np.ndarray | str:
        try:
            return self.make(number)
        except InputError as error:
            return str(error)

    def take(self, wanted: np.ndarray, soon: Iterable[int] = ()) -> np.ndarray:
        """Return the arrays (len(wanted), *shape) at positions among the good ones; `soon` are decoded meanwhile."""
        numbers = self.good[wanted]
        if len(self.good) and self.good[-1] < self.room:
            return self.kept[numbers]
        self.pool = self.pool or ThreadPoolExecutor(workers(), "limn-data")
        asked = [int(n) for n in [*numbers, *self.good[np.fromiter(soon, int)]] if n >= self.room]
        for late in self.coming.keys() - set(asked):
            self.coming.pop(late).cancel()
        for number in asked:
            if number not in self.coming:
                self.coming[number] = self.pool.submit(self.make, number)
        rows = [self.kept[n] if n < self.room else self.coming[int(n)].result() for n in numbers]
        for number in {int(n) for n in numbers} - set(asked[len(numbers) :]):
            self.coming.pop(number, None)
        return np.stack(rows)

    def batch(self, step: int, size: int, seed: int, rows: slice = ALL) -> np.ndarray:
        """Return the arrays of a step, or `rows` of them, and begin with those of the AHEAD next ones; a function of (seed, step)."""
        count = len(self)
        lazy = self.room <= self.good[-1]
        soon = [int(i) for later in range(1, AHEAD + 1) for i in indices(step + later, size, count, seed)[rows]] if lazy else []
        return self.take(indices(step, size, count, seed)[rows], soon)


def filled(store_: Store, source: Source, files: Sequence[Sequence[str]], skip_bad: bool) -> tuple[str, ...]:
    """Make or check every item before the first step, and return what was left out; `files` names those of each item.

    Without `skip_bad` a bad file is an InputError; with it, it is reported on stderr. Items that stay in memory are made at every
    opening. Where the others were found to be whole once, and have not changed since, they are not read again.
    """
    remembered = _remembered(source, files, store_.shape) if store_.room < len(files) else None
    known = {int(n): said for n, said in json.loads(remembered.read_text()).items()} if remembered and remembered.exists() else None
    bad = store_.fill(known)
    if remembered and known is None:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        with atomic(remembered) as beside:
            beside.write_text(json.dumps(bad))
    said = tuple(bad[number] for number in sorted(bad))
    if bad and not skip_bad:
        more = f" (and {len(bad) - 1} more of {len(files)}: `limn data check` lists them)" if len(bad) > 1 else ""
        raise InputError(said[0] + more)
    if len(bad) == len(files):
        raise InputError(f"{source.path}: none of its {len(files)} pictures can be used, the first because: {said[0]}")
    if bad:
        sys.stderr.write(f"limn: left out {len(bad)} of {len(files)} of {source.path}:\n" + "".join(f"  {line}\n" for line in said))
    return said


def _remembered(source: Source, files: Sequence[Sequence[str]], shape: tuple[int, ...]) -> Path:
    """Return where it is noted that these very files are whole."""
    told = hashlib.sha256(f"{source.path.resolve()} {shape}".encode())
    for item in files:
        told.update("".join(f"\n{name} {source.stamps.get(name, '')}" for name in item).encode())
    return store().parent / "checked" / f"{told.hexdigest()[:32]}.json"

"""Which item comes when: shuffled epochs and held-out shares that need no state."""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np

HELD_OUT = 0.05


def is_held_out(key: str, share: float = HELD_OUT) -> bool:
    """Whether the group named `key` (an identity, a file) belongs to the held-out share; depends on the name alone."""
    return zlib.crc32(f"limn:{key}".encode()) % 10_000 < share * 10_000


def indices(step: int, size: int, count: int, seed: int) -> np.ndarray:
    """Return the `size` items of a step: every epoch of `count` items is a new shuffle of all of them."""
    first, last = step * size, (step + 1) * size - 1
    return np.array([_order(seed, position // count, count)[position % count] for position in range(first, last + 1)])


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The shuffle of one epoch, kept: every step of the epoch asks for it."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.setflags(write=False)
    return order


def generator(seed: int, step: int) -> np.random.Generator:
    """Return the numpy generator of a step's augmentations."""
    return np.random.default_rng((seed, step, 1))

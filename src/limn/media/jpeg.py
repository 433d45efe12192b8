"""How strongly a JPEG file was compressed, read from its quantisation tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

# ITU T.81 Annex K, tables K.1 and K.2, row by row: what libjpeg scales by the quality
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip


@cache
def _scaled(table: tuple[int, ...]) -> np.ndarray:
    """Return libjpeg's table (100, 64) for each quality 1 to 100."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((np.array(table)[None] * scale + 50) // 100, 1, 255)


def quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """Return the libjpeg quality (1 to 100) whose tables are nearest to `tables` (by id, 64 values each); None without tables."""
    distance = np.zeros(100)
    for index, table in sorted(tables.items())[:2]:
        if len(table) == 64:
            standard = _scaled(LUMA if index == 0 else CHROMA)
            # as a ratio: a step of one matters more to a fine table than to a coarse one; sorted, so that no zigzag matters
            distance += np.abs(np.log(np.sort(standard, 1) / np.sort(np.maximum(table, 1)))).mean(1)
    return int(distance.argmin()) + 1 if distance.any() else None

"""BiSeNet, the small one: mean IoU on held-out portraits, against the guesses that limn-parser learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from limn.weights import load
from recipes.limn_parser import held_out

DATA = "."
PRESET = "portraits128"
OPTIONS = ("--warmup", "50")


def measure(model: Path, data: Path) -> dict[str, float]:
    """Return IoU in per cent: the mean over all classes, and those of the large and the small parts."""
    found = list(held_out(load(model).model, data).values())
    small = found[3:11]  # brows to lower lip
    return {"mean": 100 * float(np.mean(found)), "small_parts": 100 * float(np.mean(small)), "hair": 100 * found[11]}

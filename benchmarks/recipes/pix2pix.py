"""People from their outlines: 128 pixels, the 176 pairs of square pictures that are not held out.

The archive is called facades.zip and described as the CMP facades; what it holds is 220 pairs of people cut out on white and their
outlines, many of them twice under different names. Pairs that the training share holds too are left out of the figures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from limn.training.datasets import open_dataset
from limn.weights import load
from recipes.frechets import crops, frechet_limn

DATA = "facades.zip"
PRESET = "outlines128"
OPTIONS = ["--read", "skip_bad=true"]  # a tenth of the pairs is not square


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return the mean difference to pictures never seen (levels of 255), and the Fréchet distance of 64-pixel crops to theirs.

    `l1_white` is what a white picture reaches. A picture counts as seen where one of the training share is within 4 levels on average.
    """
    loaded = load(model)
    held, seen = (open_dataset("paired", data, loaded.config, train, swapped=True, skip_bad=True) for train in (False, True))
    known = seen.store.take(np.arange(len(seen)))[:, 1].astype(np.int16)  # type: ignore[attr-defined]
    wanted = held.store.take(np.arange(len(held)))[:, 1].astype(np.int16)  # type: ignore[attr-defined]
    new = [index for index, picture in enumerate(wanted) if np.abs(known - picture).mean((1, 2, 3)).min() > 4]
    pairs = torch.from_numpy(held.store.take(np.array(new))).permute(0, 1, 4, 2, 3).float() / 127.5 - 1  # type: ignore[attr-defined]
    target = pairs[:, 1]
    translated = torch.cat([loaded.model.translate(source[None]) for source in pairs[:, 0]])
    distance = frechet_limn(crops(translated, 64, 16), crops(target, 64, 16))
    figures = {"l1": float((translated - target).abs().mean()) * 127.5, "l1_white": float((1 - target).abs().mean()) * 127.5}
    return figures | {"fd_limn_crops": distance, "pairs": float(len(new))}

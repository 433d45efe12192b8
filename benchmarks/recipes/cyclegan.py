"""Modern colour portraits and portraits from before 1931, which nobody sat for twice: 64 pixels, unpaired."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from limn.training.datasets import open_dataset
from limn.weights import load
from recipes.frechets import frechet_limn, frechet_thumbnails

DATA = "portraits128.zip"
PRESET = "portraits64"
READING = {
    "source_where": ["era=modern", "chroma>3", "sharp>150"],
    "target_where": ["era=pre1931", "chroma<1.5", "sharp>150", "sharp<1400"],
}
OPTIONS = [word for name, where in READING.items() for word in ("--read", f"{name}={json.dumps(where)}")]


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return, for both ways, the Fréchet distance of translated portraits of people held out to those of the other kind.

    `untouched` is what leaving the portraits as they are gives, `thumbs` are distances in tone and colour, and `cycle` says how far
    portraits are off after both ways (levels of 255).
    """
    a_to_b, b_to_a = load(model, part="a_to_b"), load(model, part="b_to_a")
    held = open_dataset("unpaired", data, a_to_b.config, False, **READING)
    a, b = (torch.cat([held.batch(step, 1, 0)[kind] for step in range(count)]) for kind, count in counts(held))
    old, new = translated(a_to_b.model, a), translated(b_to_a.model, b)
    figures = {"fd_limn_to_old": frechet_limn(old, b), "fd_limn_to_new": frechet_limn(new, a), "untouched": frechet_limn(a, b)}
    figures |= {"thumbs_to_old": frechet_thumbnails(old, b), "thumbs_to_new": frechet_thumbnails(new, a)}
    figures["thumbs_untouched"] = frechet_thumbnails(a, b)
    return figures | {"cycle": float((translated(b_to_a.model, old) - a).abs().mean()) * 127.5, "people": float(len(a))}


def counts(held: object) -> list[tuple[str, int]]:
    """Say how many pictures there are of each kind."""
    return [(kind, len(store)) for kind, store in zip(("source", "target"), held.stores, strict=True)]  # type: ignore[attr-defined]


def translated(network: torch.nn.Module, images: Tensor) -> Tensor:
    """Translate images (N, 3, H, W), some at a time."""
    return torch.cat([network.translate(part) for part in images.split(32)])  # type: ignore[operator]

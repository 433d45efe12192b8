"""First Order Motion Model on talking heads: how well frames of a held-out clip, and of held-out portraits that move, are rebuilt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from limn.models.animation.fomm import Animator
from limn.training.datasets import moving
from limn.training.datasets.clips import open as clips
from limn.training.datasets.pictures import tensor
from limn.weights import load

DATA = "clips"
PRESET = "talking64"
OPTIONS: list[str] = []
PAIRS, BATCH = 96, 16
IRISES = (468, 473)


def measure(model: Path, data: Path) -> dict[str, float]:
    """Return mean absolute differences (of 1) and mesh errors (of the distance between the irises) of rebuilt frames.

    `still` is the error of showing the source as it is; `clip` are frames of one speaker, `portrait` photographs moved by their mesh.
    """
    animator = Animator({part: load(model, part=part).model for part in Animator.parts})
    figures: dict[str, float] = {}
    for name, pairs in (
        ("clip", clip_pairs(data, animator.size)),
        ("portrait", portrait_pairs(data.parent / "portraits128.zip", animator.size)),
    ):
        rows = [of_batch(animator, source, target) for source, target in pairs]
        figures |= {f"{name} {key}": float(np.mean([row[key] for row in rows])) for key in (rows[0] if rows else ())}
    return figures


def clip_pairs(data: Path, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of frames of the held-out clip."""
    from types import SimpleNamespace

    held = clips(data, SimpleNamespace(size=size), False, fps=25.0, faces=True)
    batches = [held.batch(step, BATCH, 0)["frames"] for step in range(PAIRS // BATCH)]
    return [(frames[:, 0], frames[:, -1]) for frames in batches]


def portrait_pairs(path: Path, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return pairs made of portraits of people who were held out; none where there is no such file."""
    if not path.exists():
        return []
    held, rng = moving.open(path, False), np.random.default_rng(0)
    made = np.stack([held.frames(rng, 2, size) for _ in range(PAIRS)])
    source, target = tensor(made[:, 0]), tensor(made[:, 1])
    return list(zip(source.split(BATCH), target.split(BATCH), strict=True))


def of_batch(animator: Animator, source: Tensor, target: Tensor) -> dict[str, float]:
    """Return the figures of one batch."""
    made = animator.moved(source, animator.motion(source), animator.motion(target))
    network = load("limn-mesh").model
    meshes = {name: network.landmarks(images) for name, images in (("target", target), ("made", made.image), ("source", source))}
    span = (meshes["target"][:, IRISES[0], :2] - meshes["target"][:, IRISES[1], :2]).norm(dim=-1)

    def apart(name: str) -> float:
        away = (meshes[name] - meshes["target"])[..., :2].norm(dim=-1).mean(1)
        return float((away / span).mean())

    def l1(images: Tensor) -> float:
        return float((images - target).abs().mean() / 2)

    return {
        "l1": l1(made.image),
        "l1 warped": l1(made.warped),
        "l1 still": l1(source),
        "mesh": apart("made"),
        "mesh still": apart("source"),
    }

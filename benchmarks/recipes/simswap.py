"""SimSwap at 64 pixels: does the swapped face look like the source, and stand and act like the target? On people whom it has not seen.

Likeness is the cosine in limn-identity, which is also what the swapper learnt from; LIMN_JUDGE may name a file of an identity network that
it has not seen (`limn train limn-identity ... --seed 7`), and `shape` is of the mesh alone. Every held-out portrait is a target once.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from limn.faces import measures
from limn.training.datasets import identities
from limn.weights import load

DATA = "portraits128.zip"
PRESET = "portraits64"
OPTIONS: list[str] = []
MOST = 200  # portraits
ACTS = ("smile", "mouth_open", "eyes_open", "brow")
TURNS = ("yaw", "pitch", "roll")


def measure(model: Path, data: Path) -> dict[str, float]:
    """Return likeness to the source and to the target, shape, and what became of pose (degrees) and expression (units of `measures`).

    Each comes for the target as it was (`was_`), where that is not 0 by definition, and for the swapped face. What a copy of the source
    would do to pose and expression is `source_`.
    """
    swapper = load(model, part="generator").model
    held = identities.open(data, swapper.config, train=False, distorted=False, where=("era=modern", "chroma>2"))
    targets = held.pictures[:MOST].float() / 127.5 - 1
    who = held.labels[:MOST]
    sources = targets.roll(len(targets) // 2, 0)
    other = who != who.roll(len(targets) // 2, 0)
    targets, sources = targets[other], sources[other]
    network = load("limn-identity").model
    swapped = torch.cat([swapper.swap(t, network.embed(s)) for t, s in zip(targets.split(32), sources.split(32), strict=True)])
    found = {"pairs": float(len(targets)), **likenesses(network, targets, sources, swapped, "")}
    if judge := os.environ.get("LIMN_JUDGE"):
        found |= likenesses(load(judge).model, targets, sources, swapped, "judge_")
    return found | geometry(targets, sources, swapped)


def likenesses(network: torch.nn.Module, targets: Tensor, sources: Tensor, swapped: Tensor, prefix: str) -> dict[str, float]:
    """Return the mean cosines to source and target, before and after, and the share of swapped faces that are nearer to the source."""
    t, s, x = (network.embed(images) for images in (targets, sources, swapped))
    before, after, kept = (t * s).sum(1), (x * s).sum(1), (x * t).sum(1)
    return {
        f"{prefix}was_like_source": float(before.mean()),
        f"{prefix}like_source": float(after.mean()),
        f"{prefix}like_target": float(kept.mean()),
        f"{prefix}nearer_to_source": float((after > kept).float().mean()),
    }


def geometry(targets: Tensor, sources: Tensor, swapped: Tensor) -> dict[str, float]:
    """Compare the meshes: the distance of shapes, turned to frontal, in distances between the irises; pose; expression."""
    t, s, x = (meshes(images) for images in (targets, sources, swapped))
    found = {"was_shape": far(t, s), "shape": far(x, s)}
    told = [[measures(mesh) for mesh in group] for group in (t, s, x)]
    for name, parts in (("pose", TURNS), ("expression", ACTS)):
        values = [np.array([[one[part] for part in parts] for one in group]) for group in told]
        found |= {name: float(np.abs(values[2] - values[0]).mean()), f"source_{name}": float(np.abs(values[1] - values[0]).mean())}
    return found


def meshes(images: Tensor) -> np.ndarray:
    """Return meshes (N, 478, 3) in pixels of 128."""
    network = load("limn-mesh").model
    large = torch.nn.functional.interpolate(images, size=128, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
    with torch.inference_mode():
        return torch.cat([network.landmarks(part) for part in large.split(32)]).float().numpy()


def far(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean distance of the points of frontal meshes."""
    from limn.faces.measures import frontal

    return float(np.mean([np.linalg.norm(frontal(a) - frontal(b), axis=1).mean() for a, b in zip(one, other, strict=True)]))

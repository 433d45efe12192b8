"""What goes wrong in training, told in plain words while it can still be mended: each sign is a function of numbers, told once.

Thresholds are rules of thumb: they are wide of what healthy runs of the recipes here show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

POCKET = 2048  # training pictures kept, small, to compare samples with
SIDE = 16  # pixels of the pictures compared


def divergence(history: Sequence[float]) -> str | None:
    """Tell where a loss that was settled (at least eight lines of the log) has stayed ten times above its median for three lines.

    A loss below 0.1 is not told of: a penalty that begins when its subject does (offsets, path length) grows from nothing.
    """
    if len(history) < 11:
        return None
    usual = max(median(abs(value) for value in history[:-3]), 1e-3)
    if min(abs(value) for value in history[-3:]) < max(10 * usual, 0.1):
        return None
    return f"it is {abs(history[-1]) / usual:.0f} times its usual size and stays there: go back to the last good checkpoint, halve the rate"


def discriminator_won(real: float, fake: float, generator: float) -> str | None:
    """Tell where a discriminator's logistic losses have vanished and the generator's has grown: it learns nothing any more."""
    if real + fake > 0.05 or generator < 5:
        return None
    return (
        f"the discriminator has won (its loss is {real + fake:.3f}, the generator's {generator:.1f}), and the generator no longer learns: "
        "raise gamma, turn augmentation on, or use more pictures"
    )


def discriminator_memorises(overfit: float, augment: float) -> str | None:
    """Tell where the logits of real pictures are nearly all positive although augmentation is at its limit (ADA, section 3)."""
    if overfit < 0.9 or augment < 0.8:
        return None
    return (
        f"the discriminator knows the training pictures by heart (sign {overfit:.2f} although augmentation is at {augment:.2f}): "
        "stop here, use more pictures, or fine-tune with freeze"
    )


def collapse(spread: float, largest: float, real: float) -> str | None:
    """Tell where samples have become alike: their mean distance is below half of what it was, and of the training pictures'."""
    if spread > 0.5 * largest or spread > 0.5 * real:
        return None
    return (
        f"the generator is collapsing: its samples are {spread / real:.0%} as different from each other as the training pictures are "
        f"(they were {largest / real:.0%}): go back to an earlier checkpoint, raise gamma"
    )


def memorising(samples: Tensor, pictures: Tensor) -> str | None:
    """Tell where samples (N, D) lie nearer to training pictures (M, D) than these lie to each other: median distances, half or less.

    Distances between pictures of the same set are those of different people, poses and light; a copy is far below them.
    """
    if len(pictures) < 16:
        return None
    among = torch.cdist(pictures, pictures)
    among.fill_diagonal_(torch.inf)
    usual, nearest = float(among.min(1).values.median()), float(torch.cdist(samples, pictures).min(1).values.median())
    if nearest > 0.5 * usual:
        return None
    return (
        f"the generator repeats training pictures: its samples are {nearest / max(usual, 1e-9):.0%} as far from the nearest one as "
        "these are from each other: use more pictures, or stop at an earlier checkpoint"
    )


def small(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) as rows (N, D) of a few pixels each: noise and hair do not count, faces and colours do."""
    return F.adaptive_avg_pool2d(images.detach().float().cpu(), SIDE).flatten(1)


def distance(rows: Tensor) -> float:
    """Mean distance of all pairs of rows (N, D)."""
    return float(torch.pdist(rows).mean()) if len(rows) > 1 else 0.0


class Watch:
    """Applies the signs to a run; each is told once."""

    def __init__(self, generates: bool) -> None:
        self.generates, self.told, self.largest = generates, set[str](), 0.0
        self.histories = dict[str, list[float]]()
        self.pictures: list[Tensor] = []

    def see(self, batch: Mapping[str, Tensor]) -> None:
        """Keep the first pictures of the run, small."""
        if self.generates and "image" in batch and sum(map(len, self.pictures)) < POCKET:
            self.pictures += [small(batch["image"])]

    def figures(self, line: Mapping[str, Any]) -> list[str]:
        """Return what the figures of a line of the log say for the first time."""
        found: dict[str, str | None] = {}
        for name, value in line.items():
            if "/" in name and not name.startswith("rate/"):
                history = self.histories.setdefault(name, [])
                history.append(value)
                said = divergence(history)
                found[f"divergence of {name}"] = f"{name} diverges: {said}" if said else None
        if {"discriminator/real", "discriminator/fake", "generator/adversarial"} <= line.keys():
            found["won"] = discriminator_won(line["discriminator/real"], line["discriminator/fake"], line["generator/adversarial"])
        if {"overfit", "augment"} <= line.keys():
            found["memorises"] = discriminator_memorises(line["overfit"], line["augment"])
        return self.first(found)

    def samples(self, images: Tensor | None) -> list[str]:
        """Return what samples (N, 3, H, W) say for the first time."""
        if images is None or not self.generates or not self.pictures:
            return []
        rows, pictures = small(images), torch.cat(self.pictures).unique(dim=0)
        spread = distance(rows)
        self.largest = max(self.largest, spread)
        found = {"collapse": collapse(spread, self.largest, distance(pictures[:256])), "repeats": memorising(rows, pictures)}
        return self.first(found)

    def first(self, found: Mapping[str, str | None]) -> list[str]:
        new = {sign: said for sign, said in found.items() if said and sign not in self.told}
        self.told |= new.keys()
        return list(new.values())

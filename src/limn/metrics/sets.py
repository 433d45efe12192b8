"""Measures between two sets of pictures: both are read once, a batch at a time, and only what the measures need is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from limn.metrics.frechet import frechet
from limn.metrics.kernel import kid
from limn.metrics.measurement import Measurement
from limn.metrics.networks import Networks
from limn.metrics.pictures import floats
from limn.metrics.precision import precision_recall
from limn.metrics.protocol import MEASURES, Convention
from limn.metrics.score import inception_score
from limn.metrics.sliced import DIRECTIONS, PATCH, PATCHES, REPEATS, SMALLEST, compare, descriptors

Describe = Callable[[Tensor], Tensor]  # images (n, 3, H, W) in [-1, 1] -> (n, D)
Terms = Mapping[str, str | int | float]
TEXTURES = 2000  # pictures of each set whose patches are compared: 300 kB of patches are kept of each at 128 pixels
RANK = "fewer pictures than features: the covariance has no full rank and the distance is biased upwards"


@dataclass
class Gathered:
    """What one set leaves behind."""

    count: int = 0
    vectors: dict[str, Tensor] = field(default_factory=dict)  # space -> (count, D) float32
    textures: dict[int, Tensor] = field(default_factory=dict)  # size of the level -> descriptors


@dataclass(frozen=True)
class Way:
    """How the measures of sets are taken."""

    networks: Networks
    convention: Convention
    library: str  # name of the convention
    neighbours: int = 3
    subsets: int = 100
    subset: int = 1000
    splits: int = 10
    seed: int = 0


def describers(measures: Iterable[str], way: Way) -> dict[str, Describe]:
    """Return, by space, what the measures need to know of a picture."""
    spaces = {MEASURES[name].space for name in measures if MEASURES[name].kind == "sets"}
    found: dict[str, Describe] = {}
    if "limn" in spaces and way.networks.limn is not None:
        found["limn"] = way.networks.limn.model.moments  # type: ignore[assignment]
    if "inception" in spaces and way.networks.inception is not None:
        network: Any = way.networks.inception.model
        found["inception"] = lambda images: network(chain(way)((images + 1) * 127.5))[-1].flatten(1)
    return found


def chain(way: Way) -> Describe:
    """Return the resize chain of the convention, from pixels in 0..255 to what Inception sees."""
    from limn.models.perception.inception import CHAINS

    return CHAINS[way.convention.chain]


@torch.inference_mode()
def gather(batches: Iterable[Tensor], spaces: Mapping[str, Describe], textures: torch.Generator | None, way: Way) -> Gathered:
    """Read batches of uint8 (n, 3, H, W) once; patches of the first TEXTURES pictures are drawn where a generator is given."""
    found = Gathered()
    parts: dict[str, list[Tensor]] = {space: [] for space in spaces}

    def passing() -> Iterable[Tensor]:
        for batch in batches:
            images = floats(batch, way.networks.device)
            for space, describe in spaces.items():
                parts[space].append(describe(images).float().cpu())
            wanted = max(TEXTURES - found.count, 0)
            found.count += len(batch)
            if textures is not None and wanted:
                yield images[:wanted]

    found.textures = descriptors(passing(), textures) if textures is not None else _drained(passing())
    found.vectors = {space: torch.cat(each) for space, each in parts.items()}
    return found


def _drained(images: Iterable[Tensor]) -> dict[int, Tensor]:
    for _ in images:
        pass
    return {}


def measured(name: str, ours: Gathered, others: Gathered, way: Way, terms: Terms, rng: torch.Generator) -> list[Measurement]:
    """Take one measure of sets; `terms` say what the pictures went through, `rng` is the one that their patches were drawn with."""
    protocol = {**terms, **_features(name, way)}
    if name == "swd":
        return [_textures(ours, others, way, protocol, rng)]
    a, b = (each.vectors[MEASURES[name].space] for each in (ours, others))
    if name in {"fid", "fd-limn"}:
        covariance = way.convention.covariance if name == "fid" else "unbiased"
        protocol["covariance"] = {"unbiased": "over n - 1", "nvlabs": "over n"}[covariance]
        if min(len(a), len(b)) <= a.shape[1]:
            protocol["note"] = RANK
        return [Measurement(MEASURES[name].title, frechet(a.numpy(), b.numpy(), covariance), protocol)]
    if name in {"kid", "kd-limn"}:
        size = min(way.subset, len(a), len(b))
        mean, deviation = kid(a.numpy(), b.numpy(), way.subsets, size)
        protocol |= {"subsets": f"{way.subsets} x {size}, drawn as torch-fidelity (seed 2020)", "deviation": deviation}
        return [Measurement(MEASURES[name].title, mean, protocol)]
    if name == "is":
        return [_score(a, way, protocol)]
    shares = precision_recall(a, b, way.neighbours)
    protocol["neighbours"] = way.neighbours
    suffix = MEASURES[name].title.removeprefix("precision and recall")
    return [Measurement(f"precision{suffix}", shares.precision, protocol), Measurement(f"recall{suffix}", shares.recall, protocol)]


def _features(name: str, way: Way) -> dict[str, str]:
    """Return which features a measure is taken in, by which chain and whose convention."""
    space = MEASURES[name].space
    if space == "inception":
        return {**way.networks.terms("inception"), "resize": f"{way.convention.chain} to 299", "convention": way.library}
    if space == "limn" and way.networks.limn is not None:
        size = way.networks.limn.config.size
        return {**way.networks.terms("limn-identity"), "resize": f"bilinear antialiased to {size}", "convention": "limn"}
    return {}


def _score(features: Tensor, way: Way, protocol: dict[str, Any]) -> Measurement:
    assert way.networks.inception is not None, "the features are Inception's"
    network: Any = way.networks.inception.model
    with torch.inference_mode():
        logits = network.logits(features.to(way.networks.device)).cpu().numpy()
    mean, deviation = inception_score(logits, way.splits, way.convention.shuffle)
    order = "as they come" if way.convention.shuffle is None else f"shuffled with seed {way.convention.shuffle}"
    return Measurement(MEASURES["is"].title, mean, protocol | {"splits": way.splits, "order": order, "deviation": deviation})


def _textures(ours: Gathered, others: Gathered, way: Way, protocol: dict[str, Any], rng: torch.Generator) -> Measurement:
    found = compare(ours.textures, others.textures, rng)
    used = min(ours.count, others.count, TEXTURES)
    protocol |= {"patches": f"{PATCHES} of {PATCH}x{PATCH} per level of {used} pictures", "directions": DIRECTIONS * REPEATS}
    protocol |= {"seed": way.seed, "levels": " ".join(f"{size}:{value:.3f}" for size, value in found.levels.items())}
    return Measurement(MEASURES["swd"].title, found.mean, protocol | {"convention": f"ProGAN, Laplacian pyramid down to {SMALLEST}"})

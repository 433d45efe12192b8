"""Which measures there are, what each needs, and by whose convention it is taken: everything that decides a number beside the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from limn.errors import InputError
from limn.metrics.frechet import Convention as Covariance

Kind = Literal["sets", "pairs", "paths"]
Space = Literal["", "limn", "inception", "lpips", "mesh"]


@dataclass(frozen=True)
class Measure:
    """One measure that `limn evaluate` knows."""

    name: str
    title: str  # how the number is called, its feature space included
    kind: Kind  # between two sets, between pictures of one name, or along paths of a generator
    space: Space  # whose features it is taken in; "" for none
    least: int = 1  # pictures of each set, pairs or paths that it needs
    usual: bool = True  # taken without being asked for, where its network is here


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("fid", "Fréchet Inception Distance (FID)", "sets", "inception", 2),
        Measure("kid", "Kernel Inception Distance (KID)", "sets", "inception", 2),
        Measure("precision-recall", "precision and recall, Inception features", "sets", "inception", 4),
        Measure("is", "Inception score of the first set", "sets", "inception", 10),
        Measure("fd-limn", "Fréchet distance, limn-identity features", "sets", "limn", 2),
        Measure("kd-limn", "kernel distance, limn-identity features", "sets", "limn", 2),
        Measure("precision-recall-limn", "precision and recall, limn-identity features", "sets", "limn", 4),
        Measure("swd", "sliced Wasserstein distance x 1000", "sets", "", 2),
        Measure("psnr", "PSNR, dB", "pairs", ""),
        Measure("ssim", "SSIM", "pairs", ""),
        Measure("ms-ssim", "MS-SSIM", "pairs", ""),
        Measure("lpips", "LPIPS", "pairs", "lpips"),
        Measure("perceptual-limn", "perceptual distance, limn-identity features", "pairs", "limn"),
        Measure("identity", "identity similarity, limn-identity", "pairs", "limn"),
        Measure("landmarks", "landmark error, % of the distance between the outer eye corners", "pairs", "mesh", usual=False),
        Measure("pose", "head pose error, degrees", "pairs", "mesh", usual=False),
        Measure("ppl", "perceptual path length (PPL), LPIPS", "paths", "lpips", 100),
        Measure("ppl-limn", "perceptual path length, limn-identity features", "paths", "limn", 100),
    )
}
GROUPS: tuple[Kind, ...] = ("sets", "pairs", "paths")


@dataclass(frozen=True)
class Convention:
    """How a published library takes the measures on Inception features."""

    chain: str  # how pictures come to 299 pixels: one of models.perception.inception.CHAINS
    covariance: Covariance
    shuffle: int | None  # seed of the order in which the Inception score splits the pictures; None leaves it


CONVENTIONS: dict[str, Convention] = {
    "clean-fid": Convention("clean", "unbiased", 2020),
    "pytorch-fid": Convention("pytorch-fid", "unbiased", 2020),
    "torch-fidelity": Convention("tensorflow", "unbiased", 2020),
    "nvlabs": Convention("tensorflow", "nvlabs", None),
}


def chosen(text: str | None) -> list[tuple[Measure, bool]]:
    """Read "fid,psnr" or "sets" as measures in the order of the table, each with whether its own name was given; None is all of them.

    InputError suggests the nearest name for one that is not known.
    """
    if text is None:
        return [(measure, False) for measure in MEASURES.values()]
    wanted = {name.strip().lower() for name in text.split(",") if name.strip()}
    for name in sorted(wanted - {*MEASURES, *GROUPS}):
        near = get_close_matches(name, [*MEASURES, *GROUPS], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MEASURES)}"
        raise InputError(f"there is no measure {name!r}: {hint}")
    if not wanted:
        raise InputError(f"--metrics names none: give some of {', '.join(MEASURES)}, or leave it out")
    return [(measure, measure.name in wanted) for measure in MEASURES.values() if wanted & {measure.name, measure.kind}]


def convention(name: str) -> Convention:
    """Return a convention by the name of the library it is of; InputError for another name."""
    if name not in CONVENTIONS:
        raise InputError(f"there is no convention {name!r}: use one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def enough(measure: Measure, counts: Sequence[int]) -> str:
    """Return what is missing for a measure, in words that name both numbers; "" where there is enough."""
    if min(counts) >= measure.least:
        return ""
    what = {"sets": "pictures in each set", "pairs": "pairs of pictures", "paths": "samples"}[measure.kind]
    return f"needs at least {measure.least} {what}, not {min(counts)}"

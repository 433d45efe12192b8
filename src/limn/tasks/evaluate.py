"""`limn evaluate`: the papers' measures of two sets of pictures, or of a generator, each with the protocol that it follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from limn.errors import InputError, WeightsError
from limn.tasks.portrait import Model, load_generator
from limn.tasks.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from limn.metrics.measurement import Measurement
    from limn.metrics.networks import Networks
    from limn.metrics.pictures import Pictures
    from limn.metrics.protocol import Measure

SAMPLES = 16  # pictures that a generator makes at a time


@dataclass(frozen=True)
class Evaluation:
    """What was measured between two sets, and what was not."""

    images: str
    against: str
    measurements: tuple[Measurement, ...]
    left_out: tuple[str, ...]  # usual measures that could not be taken, and why
    networks: Mapping[str, str]  # feature network -> sha256 of its weights
    device: str
    file: Path | None
    seconds: float


@dataclass(frozen=True)
class Set:
    """One side of the comparison."""

    name: str
    count: int
    sizes: Mapping[str, tuple[int, int]]  # name of a picture -> width and height as it is measured; a generator's samples are one entry
    batches: Callable[[], Iterator[Tensor]] = field(repr=False)  # uint8 (n, 3, H, W)


def evaluate(
    a: Annotated[Path, "A folder or zip of pictures; with --model, the one that its samples are compared with."],
    b: Annotated[Path | None, "The true or reference pictures."] = None,
    /,
    *,
    metrics: Annotated[str | None, "Such as fid,kid or sets or pairs; all that can be taken here if not given."] = None,
    model: Annotated[str | None, "Name or file of a generator to be measured against A."] = None,
    count: Annotated[int | None, "So many pictures of each set, or samples; all, or as many samples as pictures, if not given."] = None,
    features: Annotated[Sequence[str], "Name or file of a feature network: Inception, LPIPS, its trunk, limn-identity."] = (),
    convention: Annotated[
        Literal["clean-fid", "pytorch-fid", "torch-fidelity", "nvlabs"], "Whose FID, KID and IS: decides the resize chain."
    ] = "clean-fid",
    ssim: Annotated[Literal["basicsr", "skimage", "torchmetrics", "torchmetrics-uniform"], "Whose SSIM."] = "basicsr",
    luma: Annotated[bool, "PSNR, SSIM and MS-SSIM of the brightness alone."] = False,
    crop: Annotated[int, "Pixels left out at every border for PSNR and SSIM."] = 0,
    size: Annotated[int | None, "Resize all pictures to so many pixels a side first; with --model it is the generator's size."] = None,
    truncation: Annotated[float, "Of a generator's samples: 1 is what papers measure."] = 1.0,
    label: Annotated[int | None, "The class, for a generator that has classes."] = None,
    seed: Annotated[int, "First seed of the samples, and of every random choice."] = 0,
    out: Annotated[Path | None, "A .json file for the report."] = None,
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Evaluation:
    """Measure pictures A against B, or a generator against A: between the sets, and between pictures of one name.

    Numbers that papers call FID, KID or LPIPS need the published weights; limn-identity's own are always there, under names of their own.
    """
    from limn import device as devices
    from limn.metrics import matched, networks, protocol, sets
    from limn.metrics.pictures import Pictures

    began = time.monotonic()
    _check(a, b, model, count, size)
    if out is not None:
        _check_out(out)
    asked = protocol.chosen(metrics)
    place = devices.choose(device)
    at_hand = networks.find(features, place, {each.space for each, _ in asked})
    way = sets.Way(at_hand, protocol.convention(convention), convention, seed=seed)
    pair_way = matched.Way(at_hand, ssim, luma, crop)
    generator = None if model is None else load_generator(model, str(place))
    folders = [Pictures(path) for path in (a, b) if path is not None]
    size = generator.size if generator is not None else size
    sides = [read(folder, count if generator is None else None, size, seed) for folder in folders]
    if generator is not None:
        sides = [sampled(generator, count or sides[0].count, truncation, label, seed), *sides]
    taken, left_out = decide(asked, sides, pair_way, generator)
    drawn = "" if generator is None else f"truncation {truncation}, seeds {seed}-{seed + sides[0].count - 1}"
    terms = _terms(sides, size, drawn)
    found = [
        *of_sets([each.name for each in taken if each.kind == "sets"], sides, way, terms),
        *of_pairs([each.name for each in taken if each.kind == "pairs"], folders, sides, pair_way, size, terms),
        *of_paths([each.name for each in taken if each.kind == "paths"], generator, sides[0].count, at_hand, seed),
    ]
    used = {name: value for name, value in at_hand.hashes.items() if any(each.protocol.get("features") == name for each in found)}
    result = Evaluation(sides[0].name, sides[1].name, tuple(found), tuple(left_out), used, str(place), out, time.monotonic() - began)
    if out is not None:
        _write(out, result, generator)
    return result


def _check(a: Path, b: Path | None, model: str | None, count: int | None, size: int | None) -> None:
    """Find what cannot be meant before anything is loaded."""
    if b is None and model is None:
        raise InputError(f"{a} alone cannot be measured: give a second folder, or --model NAME")
    if b is not None and model is not None:
        raise InputError("a generator is compared with one folder: leave out the second, or --model")
    if count is not None and count < 1:
        raise InputError(f"--count {count}: at least 1 picture is needed")
    if size is not None and not 7 <= size <= 4096:
        raise InputError(f"--size {size}: 7 to 4096 pixels a side are possible")
    if size is not None and model is not None:
        raise InputError("--size: pictures are compared at the generator's size, leave it out")


def _check_out(out: Path) -> None:
    from limn.media import writable

    if out.suffix.lower() != ".json":
        raise InputError(f"cannot write {out}: a report is a .json file")
    writable(out)


# ------------------------------------------------------------------------------------------------------------- the sets


def read(pictures: Pictures, count: int | None, size: int | None, seed: int) -> Set:
    """Return the pictures of a folder or zip, or `count` of them drawn with `seed`, resized to (size, size) if given."""
    import numpy as np

    names = pictures.names
    if count is not None and count > len(names):
        raise InputError(f"--count {count}: {pictures.path} holds {len(names)} pictures")
    if count is not None:
        kept = np.random.default_rng(seed).permutation(len(names))[:count]
        names = [names[index] for index in sorted(kept)]
    sizes = {name: (size, size) if size else pictures.size(name) for name in names}
    return Set(str(pictures.path), len(names), sizes, lambda: pictures.batches(names, size))


def sampled(model: Model, count: int, truncation: float, label: int | None, seed: int) -> Set:
    """Return the samples of `count` seeds from `seed` on: as `limn generate` makes them, rounded to bytes, before any mark."""
    from limn.latent import spaces

    def batches() -> Iterator[Tensor]:
        import torch

        for first in range(seed, seed + count, SAMPLES):
            w = model.draw(range(first, min(first + SAMPLES, seed + count)), truncation, label)
            with torch.inference_mode():
                images = model.generator.synthesis(spaces.w_to_w_plus(model.generator, w))
            yield images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()

    return Set(f"samples of {model.name}", count, {"a sample": (model.size, model.size)}, batches)


# ------------------------------------------------------------------------------------------------------------- what to take


def decide(asked: Sequence[tuple[Measure, bool]], sides: Sequence[Set], way: Any, model: Model | None) -> tuple[list[Measure], list[str]]:
    """Return the measures to take, and why others are left out; one that was asked for by its own name is taken or an error."""
    taken: list[Measure] = []
    left_out: dict[str, list[str]] = {}  # reason -> names
    for measure, named in asked:
        reason = obstacle(measure, sides, way, model)
        if not reason and not named and not measure.usual:
            reason = "slow, taken only when --metrics names it"
        if not reason:
            taken.append(measure)
        elif named:
            kind = InputError if way.networks.has(measure.space) else WeightsError
            raise kind(f"{measure.name}: {reason}")
        elif measure.kind != "paths" or model is not None:
            left_out.setdefault(reason, []).append(measure.name)
    said = [f"{', '.join(names)}: {reason}" for reason, names in left_out.items()]
    if not taken:
        raise InputError(f"nothing can be measured here; {'; '.join(said)}")
    return taken, said


def obstacle(measure: Measure, sides: Sequence[Set], way: Any, model: Model | None) -> str:
    """Return why a measure cannot be taken, "" where it can; `way` is that of pairs."""
    from limn.metrics.networks import missing
    from limn.metrics.protocol import enough

    if measure.kind == "paths" and (model is None or int(model.generator.config.c_dim)):
        return "needs --model NAME: it walks through a generator, one without classes"
    if measure.kind == "pairs" and (why := "a generator's samples have no counterparts" if model else _unmatched(sides)):
        return why
    if not way.networks.has(measure.space):
        return missing(measure.space, measure.name)
    short = enough(measure, [sides[0].count] if measure.kind == "paths" else [each.count for each in sides])
    return short or (_misshapen(measure, sides) if measure.kind == "sets" else _unpaired(measure, sides, way))


def _unpaired(measure: Measure, sides: Sequence[Set], way: Any) -> str:
    """Say which pair of pictures is not of one size or is too small; "" where none is."""
    from limn.metrics.matched import check

    try:
        if measure.kind == "pairs":
            check(_sizes(*sides), [measure.name], way)
    except InputError as error:
        return str(error)
    return ""


def _unmatched(sides: Sequence[Set]) -> str:
    """Say which pictures have no counterpart; "" where all have."""
    ours, theirs = ({*each.sizes} for each in sides)
    if ours == theirs:
        return ""
    alone = [
        f"{name} only in {side.name}" for side, names in zip(sides, (ours - theirs, theirs - ours), strict=True) for name in sorted(names)
    ]
    shown = ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else "")
    return f"needs pictures of one name, but only {len(ours & theirs)} of {len(ours | theirs)} names are in both ({shown})"


def _misshapen(measure: Measure, sides: Sequence[Set]) -> str:
    """Say which picture does not have the shape that a measure of sets needs."""
    from limn.metrics.sliced import SMALLEST

    every = {size: f"{name} in {side.name}" for side in sides for name, size in side.sizes.items()}
    if measure.space == "limn":
        oblong = next((f"{where} is {size[0]}x{size[1]}" for size, where in every.items() if size[0] != size[1]), "")
        return f"needs square portraits aligned as 'ffhq', but {oblong}: align them, or resize by --size" if oblong else ""
    if measure.name != "swd":
        return ""
    side = next(iter(every))[0]
    odd = side < SMALLEST or any(width != height for width, height in every)
    while side >= 2 * SMALLEST and not odd:
        odd, side = side % 2 == 1, side // 2
    if len(every) > 1 or odd:
        sizes = ", ".join(f"{width}x{height} ({where})" for (width, height), where in list(every.items())[:2])
        return f"needs square pictures of one size that halves down to {SMALLEST} pixels, not {sizes}: --size 128 resizes all"
    return ""


# ------------------------------------------------------------------------------------------------------------- measuring


def of_sets(names: Sequence[str], sides: Sequence[Set], way: Any, terms: Mapping[str, Any]) -> list[Measurement]:
    """Read both sets once and take the measures between them."""
    from limn.metrics import sets
    from limn.metrics.pictures import BATCH
    from limn.models.records import seeded

    if not names:
        return []
    spaces, rng = sets.describers(names, way), seeded(way.seed)
    ours, others = (
        sets.gather(track(side.batches(), side.name, -(-side.count // BATCH)), spaces, rng if "swd" in names else None, way)
        for side in sides
    )
    return [found for name in names for found in sets.measured(name, ours, others, way, terms, rng)]


def of_pairs(
    names: Sequence[str], folders: Sequence[Pictures], sides: Sequence[Set], way: Any, size: int | None, terms: Mapping[str, Any]
) -> list[Measurement]:
    """Score the pictures of one name and take the means."""
    from limn.metrics import matched
    from limn.metrics.pictures import BATCH

    if not names:
        return []
    ours, others = sides
    common = list(ours.sizes)
    scales = matched.check(_sizes(ours, others), names, way)
    both = zip(folders[0].batches(common, size), folders[1].batches(common, size), strict=True)
    by = matched.scores(names, scales, way)
    values = matched.score(track(both, "pairs", -(-len(common) // BATCH)), by, way)
    return [found for name in names for found in matched.measured(name, values, scales, way, terms)]


def _sizes(ours: Set, others: Set) -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
    return ((name, size, others.sizes[name]) for name, size in ours.sizes.items())


def of_paths(names: Sequence[str], model: Model | None, count: int, networks: Networks, seed: int) -> list[Measurement]:
    """Walk through a generator's W."""
    from limn.metrics import paths

    if model is None:
        return []
    terms = {"model": model.hash[:12], "size": f"{model.size}x{model.size}"}
    return [paths.measured(name, model.generator, count, networks, seed, terms) for name in names]


def _terms(sides: Sequence[Set], size: int | None, samples: str) -> dict[str, str | int | float]:
    """Return what all numbers share: how many pictures of which size, and how they came to their bytes."""
    every = sorted({each for side in sides for each in side.sizes.values()})
    shown = f"{every[0][0]}x{every[0][1]}" + (f" to {every[-1][0]}x{every[-1][1]}" if len(every) > 1 else "")
    terms: dict[str, str | int | float] = {"images": f"{sides[0].count} against {sides[1].count}", "range": "RGB 0..255"}
    terms["size"] = f"{shown}, resized by Lanczos where larger or smaller" if size else shown
    return terms | ({"samples": samples} if samples else {})


def _write(out: Path, result: Evaluation, model: Model | None) -> None:
    import torch

    from limn import __version__
    from limn.metrics.measurement import write

    about: dict[str, Any] = {"images": result.images, "against": result.against, "networks": dict(result.networks)}
    about |= {"model": model.hash} if model is not None else {}
    about |= {"device": result.device, "limn": __version__, "torch": torch.__version__, "left out": list(result.left_out)}
    write(out, result.measurements, about)

"""Measures between pictures of one name: every pair is scored, and the mean over the pairs is the number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.errors import InputError
from limn.media import to_image
from limn.metrics import identity, landmarks, pairs, perceptual
from limn.metrics.measurement import Measurement
from limn.metrics.networks import Networks
from limn.metrics.pictures import floats
from limn.metrics.protocol import MEASURES

Score = Callable[[Tensor, Tensor], Tensor]  # two (n, 3, H, W) in [-1, 1] -> (n,), or (n, 4) for faces
Terms = Mapping[str, str | int | float]
SCALES = {5: 176, 4: 88, 3: 44, 2: 22, 1: 11}  # of MS-SSIM -> pixels a side that they need
FACES = ("landmarks", "pose")


@dataclass(frozen=True)
class Way:
    """How the measures of pairs are taken."""

    networks: Networks
    ssim: str = "basicsr"  # one of pairs.CONVENTIONS
    luma: bool = False  # PSNR, SSIM and MS-SSIM of Y alone
    crop: int = 0  # pixels left out at every border for PSNR and SSIM
    find: landmarks.Find = landmarks.largest


def check(sizes: Iterable[tuple[str, tuple[int, int], tuple[int, int]]], names: Sequence[str], way: Way) -> int:
    """Look at (name, size, other size) of all pairs before anything is computed; return the scales of MS-SSIM.

    InputError names the pair that differs in size, or that is too small for a measure.
    """
    smallest = 1 << 30
    for name, ours, other in sizes:
        if ours != other:
            said = f"{name} is {ours[0]}x{ours[1]} pixels in the first and {other[0]}x{other[1]} in the second"
            raise InputError(f"{said}: pairs are of one size; --size N resizes both")
        if "identity" in names and ours[0] != ours[1]:
            raise InputError(f"needs square portraits aligned as 'ffhq', but {name} is {ours[0]}x{ours[1]}: align them first")
        smallest = min(smallest, *ours)
    if {"psnr", "ssim", "ms-ssim"} & {*names} and smallest - 2 * way.crop < SCALES[1]:
        said = f"the smallest picture has {smallest} pixels a side, {smallest - 2 * way.crop} after --crop {way.crop}"
        raise InputError(f"{said}: at least {SCALES[1]} are needed")
    return next((scales for scales, side in SCALES.items() if smallest >= side), 1)


def scores(names: Sequence[str], scales: int, way: Way) -> dict[str, Score]:
    """Return what scores a batch of pairs, by measure; landmarks and pose share one search for faces, named "faces"."""
    limn: Any = None if way.networks.limn is None else way.networks.limn.model
    known: dict[str, Score] = {
        "psnr": lambda a, b: pairs.psnr(a, b, way.crop, way.luma),
        "ssim": lambda a, b: pairs.ssim(a, b, way.ssim, way.crop, way.luma),
        "ms-ssim": lambda a, b: pairs.ms_ssim(a, b, scales, way.luma),
        "perceptual-limn": lambda a, b: perceptual.distance(limn.features, a, b),
        "identity": lambda a, b: identity.similarity(limn, a, b),
        "faces": lambda a, b: _faces(a, b, way.find),
    }
    if way.networks.lpips:
        known["lpips"] = way.networks.lpips[way.networks.net("alex")]
    wanted = [*dict.fromkeys("faces" if name in FACES else name for name in names)]
    return {name: known[name] for name in wanted}


@torch.inference_mode()
def score(batches: Iterable[tuple[Tensor, Tensor]], by: Mapping[str, Score], way: Way) -> dict[str, np.ndarray]:
    """Score batches of uint8 pairs, each (n, 3, H, W): measure -> (N,) or (N, 4) float64."""
    found: dict[str, list[Tensor]] = {name: [] for name in by}
    for a, b in batches:
        images, others = (floats(each, way.networks.device) for each in (a, b))
        for name, one in by.items():
            found[name].append(one(images, others).double().cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def measured(name: str, values: Mapping[str, np.ndarray], scales: int, way: Way, terms: Terms) -> list[Measurement]:
    """Return the mean over the pairs of one measure, with what it rests on."""
    title, protocol = MEASURES[name].title, {**terms, **_conventions(name, scales, way)}
    if name in FACES:
        return _of_faces(name, values["faces"], protocol)
    found = values[name]
    differing = found[np.isfinite(found)]
    if len(differing) < len(found):  # PSNR of equal pictures is infinite: a mean over all would hide the others
        protocol["equal pairs, not in the mean"] = len(found) - len(differing)
    if not len(differing):
        return [Measurement(title, float("inf"), protocol)]
    return [Measurement(title, float(differing.mean()), protocol | {"deviation": float(differing.std())})]


def _of_faces(name: str, errors: np.ndarray, protocol: dict[str, Any]) -> list[Measurement]:
    seen = errors[~np.isnan(errors).any(1)]
    protocol |= {"pairs with a face in both": len(seen), "without": len(errors) - len(seen)}
    if not len(seen):
        raise InputError(f"{name}: in none of {len(errors)} pairs was a face found in both pictures: give portraits, 64 pixels or larger")
    columns = [0] if name == "landmarks" else [1, 2, 3]
    titles = [MEASURES["landmarks"].title] if name == "landmarks" else [f"{landmarks.TITLES[index]}, degrees" for index in columns]
    means, deviations = seen.mean(0), seen.std(0)
    return [
        Measurement(title, float(means[column]), protocol | {"deviation": float(deviations[column])})
        for title, column in zip(titles, columns, strict=True)
    ]


def _faces(images: Tensor, others: Tensor, find: landmarks.Find) -> Tensor:
    rows = [landmarks.errors(to_image(a), to_image(b), find) for a, b in zip(images, others, strict=True)]
    return torch.from_numpy(np.stack(rows))


def _conventions(name: str, scales: int, way: Way) -> dict[str, str | int]:
    """Return what decides a number of a pair beside the pictures."""
    channels = "Y of RGB (BT.601, 16..235)" if way.luma else "RGB, mean over channels"
    terms: dict[str, dict[str, str | int]] = {
        "psnr": {"channels": channels if way.luma else "RGB, one mean square", "crop": way.crop, "peak": 255},
        "ssim": {"convention": way.ssim, "channels": channels, "crop": way.crop},
        "ms-ssim": {"convention": "Wang 2003, Gaussian 11", "scales": scales, "channels": channels},
        "perceptual-limn": {"resize": f"bilinear antialiased to {perceptual.SIZE}", "weights of layers": "none", "convention": "limn"},
        "identity": {"faces": "pictures taken as aligned 'ffhq'", "embedding": "sum with the mirror image", "convention": "limn"},
        "landmarks": {"features": "limn-detector, limn-mesh", "points": 68, "convention": "300-W, outer eye corners"},
        "pose": {"features": "limn-detector, limn-mesh", "convention": "mean absolute error"},
    }
    if name == "lpips":
        net = way.networks.net("alex")
        return {**way.networks.terms(f"lpips {net}"), "convention": "richzhang v0.1, [-1, 1], no resize"}
    network = way.networks.terms("limn-identity") if MEASURES[name].space == "limn" else {}
    if name == "identity" and way.networks.limn is not None:
        terms[name]["resize"] = f"bilinear antialiased to {way.networks.limn.config.size}"
    return {**network, **terms[name]}

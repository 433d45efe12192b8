"""How the cases of colour transfer call ours: their pictures, directions and rotations are in the order blue, green, red."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cv2
import numpy as np

from limn.faces import colour

if TYPE_CHECKING:
    from parity import Case


def transfers(case: Case) -> dict[str, np.ndarray]:
    kwargs, given = case.spec["kwargs"], case.inputs
    source, target = (np.ascontiguousarray(given[name][..., ::-1]) for name in ("source", "target"))
    sot, mix = kwargs.get("sot", {}), kwargs.get("mix sot", {})

    def along(name: str, settings: dict[str, int]) -> np.ndarray:
        return given[name][:, ::-1].reshape(settings.get("steps", 10), settings.get("batch_size", 5), 3)

    def said(pattern: str, otherwise: float) -> float:
        found = re.search(pattern, case.spec["call"])
        return float(found[1]) if found else otherwise

    threshold, parts = said(r"color_hist_match\(source, target, (\d+)\)", 238), said(r"multiples of 1/(\d+)", 31)
    smooth = sot.get("reg_sigmaV", 5.0), sot.get("reg_sigmaXY", 16.0)
    coarse = [np.round(image * parts) / parts for image in (source, target)]
    made = {
        "rct": lambda: colour.reinhard(source, target),
        "rct_masked": lambda: colour.reinhard(source, target, given["source_mask"], given["target_mask"]),
        "lct": lambda: colour.linear(source, target),
        "lct_chol": lambda: colour.linear(source, target, "chol"),
        "lct_sym": lambda: colour.linear(source, target, "sym"),
        "mkl": lambda: colour.monge(source, target),
        "idt": lambda: colour.distribution(source, target, given["rotations"][:, :, ::-1], kwargs["idt"]["bins"]),
        "sot": lambda: colour.sliced(source, target, along("directions", sot), smooth),
        "sot_unregularized": lambda: colour.sliced(source, target, along("directions", sot), None),
        "mix": lambda: colour.mixed(source, target, along("directions_mix", mix)),
        "hist_match": lambda: colour.histograms(source, target, threshold),
        "hist_match_quantized": lambda: colour.histograms(*coarse),
        "lab_source": lambda: cv2.cvtColor(source, cv2.COLOR_RGB2LAB)[..., ::-1],
    }
    return {name: made[name]()[..., ::-1] for name in case.outputs}


MODULES = {"core.imagelib.color_transfer": transfers}

"""PSNR and SSIM cases: every output name says library, border and channels."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from limn.metrics.pairs import psnr, psnr_b, ssim

CONVENTION = {"default": "skimage", "gaussian": "basicsr"}


def measures(case: Any) -> dict[str, np.ndarray]:
    """Compute each output that the case names, from its BGR pictures."""
    a, b = (case.inputs[name] for name in ("a", "b"))
    return {name: np.float32(_measure(name, a, b)) for name in case.outputs}


def _measure(name: str, a: np.ndarray, b: np.ndarray) -> float:
    library, kind, *rest = name.split("_")
    if kind == "ssim" and rest[:1] == ["gray"]:
        grey = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None] for picture in (a, b)]
        return float(ssim(*(_tensor(picture) for picture in grey), convention="skimage"))
    crop = re.search(r"crop(\d+)", name)
    shared = {"crop": int(crop.group(1)) if crop else 0, "luma": name.endswith("_y")}
    pair = [_tensor(picture) for picture in (a, b)]
    if kind == "psnrb":
        return float(psnr_b(*pair, **shared))
    if kind == "psnr":
        return float(psnr(*pair, **shared, floor=1e-8 if "pt" in rest else 0.0))
    convention = {"skimage": CONVENTION.get(rest[0] if rest else "", "skimage"), "torchmetrics": "torchmetrics"}.get(library, "basicsr")
    return float(ssim(*pair, **shared, convention="torchmetrics-uniform" if "uniform7" in rest else convention))


def _tensor(picture: np.ndarray) -> Tensor:
    """BGR (H, W, C) uint8 -> RGB (1, C, H, W) float64 in [-1, 1]."""
    return torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None].double() / 127.5 - 1


MODULES = {"basicsr.metrics.psnr_ssim, skimage.metrics, torchmetrics.functional.image, SwinIR utils.util_calculate_psnr_ssim": measures}

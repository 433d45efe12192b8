"""How the cases of the degradation model call our kernels, filters, sharpening, pipeline and JPEG."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from limn.blocks import degradation
from limn.blocks.jpeg import jpeg


def kernel_of(row: dict[str, Any], size: int = 0) -> Tensor:
    """Make the kernel that a case describes."""
    size = row.get("kernel_size", size)
    if row["kind"] == "sinc":
        return degradation.sinc(size, torch.tensor([float(row["cutoff"])]), row.get("pad_to") or 0)[0]
    round_ = row.get("isotropic", row["kind"].endswith("iso") and not row["kind"].endswith("aniso"))
    x = torch.tensor([float(row["sigma_x"])])
    y = x if round_ else torch.tensor([float(row["sigma_y"])])
    turn = torch.tensor([0.0 if round_ else float(row["rotation"])])
    plain = row["kind"] in ("iso", "aniso")
    beta = None if plain else torch.tensor([float(row["beta"])])
    return degradation.bumps(size, x, y, turn, beta, row["kind"].startswith("plateau"))[0]


def kernels(case: Any) -> dict[str, Any]:
    return {f"kernel{index}": kernel_of(row) for index, row in enumerate(case.spec["kwargs"]["kernels"])}


def picture(array: np.ndarray) -> Tensor:
    """HWC, or NCHW uint8, as NCHW in [0, 1]."""
    tensor = torch.from_numpy(array.copy())
    return tensor.permute(2, 0, 1)[None] if tensor.ndim == 3 else tensor.float() / 255


def sharpen(case: Any) -> dict[str, Any]:
    kwargs, x = case.spec["kwargs"], picture(case.inputs["x"])
    size = kwargs["kernel_size"]
    both = torch.stack([kernel_of({"beta": 1, **row}, size) for row in kwargs["kernels"]])
    sharp = degradation.sharpened(x, kwargs["weight"], kwargs["threshold"], kwargs["radius"], kwargs.get("sigma") or 0.0)
    side = kwargs["radius"] + 1 - kwargs["radius"] % 2
    sigma = kwargs.get("sigma") or 0.3 * ((side - 1) * 0.5 - 1) + 0.8
    row = degradation.bumps(side, torch.tensor([sigma]), torch.tensor([sigma]), torch.zeros(1))[0, side // 2]
    return {"sharp": sharp[:, :, ::2, ::2], "filtered": degradation.filtered(x, both)[:, :, 1::2, ::2], "usm_kernel_row": row}


def diffjpeg(case: Any) -> dict[str, Any]:
    x, quality = picture(case.inputs["x"]), torch.tensor(case.spec["kwargs"]["quality"]).float().reshape(-1)
    quality = quality.expand(len(x))
    return {"hard": jpeg(x, quality), "soft": jpeg(x, quality, soft=True)}


def face_pipeline(case: Any) -> dict[str, Any]:
    """Our steps, with the codec of OpenCV where the published pipeline has it: training takes the arithmetic of `jpeg` in its place."""
    kwargs, image = case.spec["kwargs"], picture(case.inputs["image"])
    height, width = image.shape[2:]
    blurred = degradation.filtered(image, kernel_of({"beta": 1, **kwargs["kernel"]})[None])
    small = degradation.resized(blurred, (int(height // kwargs["scale"]), int(width // kwargs["scale"])))
    noisy = (small + picture(case.inputs["noise"]) * (kwargs["noise_sigma"] / 255)).clamp(0, 1)
    pixels = np.rint(noisy[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(kwargs["jpeg_quality"])])
    worn = picture(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.float32) / 255)
    lq = degradation.resized(worn, (height, width)).mul(255).round().clamp(0, 255) / 255
    found = {"blurred": blurred, "small": small, "noisy": noisy, "jpeg": worn, "lq": lq}
    return {name: value[0].permute(1, 2, 0) for name, value in found.items()}


MODULES = {
    "basicsr.data.degradations: bivariate_Gaussian, bivariate_generalized_Gaussian, bivariate_plateau, circular_lowpass_kernel": kernels,
    "basicsr.utils.img_process_util.USMSharp and filter2D": sharpen,
    "basicsr.utils.diffjpeg.DiffJPEG": diffjpeg,
    "FFHQDegradationDataset.__getitem__, its degradation part with the random draws fixed": face_pipeline,
}

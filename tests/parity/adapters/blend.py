"""Pasting back as insightface and facefusion do, DeepFaceLab's merger, and the blends that tools share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from limn.faces import blending, dfl_merge, fit, published, templates

if TYPE_CHECKING:
    from parity import Case

Arrays = dict[str, np.ndarray]


def _emap(case: Case) -> np.ndarray:
    seed = re.search(r"default_rng\((\d+)\)", case.spec["call"])
    return np.random.default_rng(int(seed[1]) if seed else 25).standard_normal((512, 512)).astype(np.float32)


def _boost(case: Case) -> np.ndarray:
    model, total = 4, 2
    if found := re.search(r"model size (\d+), total (\d+)", case.spec["call"]):
        model, total = int(found[1]), int(found[2])
    side = model * total
    return published.pixel_boost_tiles(np.arange(side * side * 3).reshape(side, side, 3), model)


def _settings(case: Case) -> tuple[float, tuple[float, ...]]:
    kwargs = case.spec["kwargs"]
    padding = next((value for key, value in kwargs.items() if key.startswith("face_mask_padding")), (0, 0, 0, 0))
    return kwargs.get("face_mask_blur", 0.3), tuple(padding)


def paste_back(case: Case) -> Arrays:
    image, points = case.inputs["image"], case.inputs["points"]
    predicted = np.ascontiguousarray(case.inputs["predicted"].astype(np.float32)[0, ::-1].transpose(1, 2, 0))  # BGR
    size = predicted.shape[0]
    swapped = np.clip(255 * predicted, 0, 255).astype(np.uint8)
    aligned, matrix = published.insightface_crop(image, points, size)
    their_matrix = fit.similarity_ransac(points, np.array(templates.FACEFUSION["arcface_128"]) * size)
    blur, padding = _settings(case)
    mask = published.facefusion_box_mask((size, size), blur, padding)
    target = case.inputs["target_embedding"]
    latent = published.inswapper_latent(case.inputs["embedding"], _emap(case))
    source = case.inputs["embedding"]
    made: dict[str, Any] = {
        "inswapper": published.insightface_paste(image, swapped, matrix),
        "inswapper_latent": latent[:, ::4],
        "inswapper_blob": aligned[::4, ::4, ::-1].transpose(2, 0, 1),
        "facefusion": published.facefusion_paste(image, (predicted * 255).round().astype(np.uint8), mask, their_matrix),
        "facefusion_area": published.facefusion_area(image.shape[:2], (size, size), their_matrix),
        "box_mask": mask[::2, ::2],
        "pixel_boost_tiles": _boost(case),
    }
    balance = {
        name: published.facefusion_balance(source.reshape(1, -1), target, float(name.rpartition("_")[2]))[:, ::4]
        for name in case.outputs
        if name.startswith("facefusion_balance_")
    }
    return {name: np.asarray(made[name] if name in made else balance[name]) for name in case.outputs}


SETTINGS = {
    "mask_mode": "mask",
    "erode_mask_modifier": "erode",
    "blur_mask_modifier": "blur",
    "color_transfer_mode": "colours",
    "output_face_scale": "scale",
    "hist_match_threshold": "threshold",
    "masked_hist_match": "masked_histogram",
    "sharpen_mode": "sharpen",
    "blursharpen_amount": "amount",
    "image_denoise_power": "denoise",
    "bicubic_degrade_power": "degrade",
}


def _radial(_: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:256, :256] / 256 - 0.5
    return (np.round(np.clip(1.2 - 2.6 * np.hypot(x, y), 0, 1) * 255) / 255).astype(np.float32)


def merger(case: Case) -> Arrays:
    """Pictures are BGR there; each is turned on the way in and out."""
    kwargs, given = case.spec["kwargs"], case.inputs
    seen: list[np.ndarray] = []

    def predict(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seen.append(crop)
        return given["predicted"][..., ::-1], given["predicted_mask"], given["predicted_dst_mask"]

    made = {}
    for name, config in kwargs["configs"].items():
        named = {SETTINGS.get(key, key): value for key, value in config.items()}
        settings = dfl_merge.Settings(**named, face_type=kwargs.get("face_type", "full_face"))
        side = given["predicted"].shape[0]
        image = np.ascontiguousarray(given["image"][..., ::-1])
        merged = dfl_merge.merge(image, given["landmarks"], predict, side, settings, _radial)
        made[name] = merged[..., [2, 1, 0, 3]]
    made["predictor_input"] = np.rint(seen[0][..., ::-1] * 255).astype(np.uint8)
    return made


def spent(mask: np.ndarray) -> np.ndarray:
    """What OpenCV leaves in a mask that seamlessClone was called with: its box without the mask, three times eroded."""
    x, y, width, height = cv2.boundingRect(mask)
    left = np.zeros_like(mask)
    left[y : y + height, x : x + width] = 255 - cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=3)[y : y + height, x : x + width]
    return left


def masks(stored: np.ndarray) -> list[np.ndarray]:
    """The masks of the three calls. One array was passed to them in turn and changed by each; the file holds it after the last.

    Before it was an ellipse, which is put together again here where that is how the stored one came about.
    """
    height, width = stored.shape
    y, x = np.mgrid[:height, :width]
    ellipse = ((((x - 0.5 * width) / (0.3 * width)) ** 2 + ((y - 0.48 * height) / (0.33 * height)) ** 2) <= 1 + 1e-9).astype(np.uint8) * 255
    second = spent(ellipse)
    third = spent(second)
    return [ellipse, second, third] if np.array_equal(spent(third), stored) else [stored] * 3


def generic(case: Case) -> Arrays:
    front, back = case.inputs["foreground"], case.inputs["background"]
    each = masks(case.inputs["mask"])
    x, y, width, height = cv2.boundingRect(each[0])
    centre = tuple(case.spec["kwargs"].get("centre") or (x + width // 2, y + height // 2))
    one, other, soft = (np.float32(picture) / 255 for picture in (front, back, each[0]))
    weight = blending.feather(soft, _odd(case))[..., None]
    made = {
        "laplacian": blending.blend_bands(one, other, soft, case.spec["kwargs"].get("levels", 4)),
        "pyr_down_mask": cv2.pyrDown(soft),
        "feather": one * weight + other * (1 - weight),
    }
    flags = {"seamless_normal": 1, "seamless_mixed": 2, "seamless_monochrome": 3}
    made |= {name: blending.seamless(front, back, mask, centre, flag) for (name, flag), mask in zip(flags.items(), each, strict=True)}
    return {name: made[name] for name in case.outputs}


def _odd(case: Case) -> int:
    found = re.search(r"GaussianBlur\(\((\d+)", case.spec["call"])
    return int(found[1]) if found else 21


MODULES = {
    "merger.MergeMasked.MergeMasked": merger,
    "cv2.seamlessClone, pyrDown, pyrUp, GaussianBlur": generic,
    "insightface.model_zoo.inswapper.INSwapper.get; facefusion face_helper.paste_back, face_masker.create_box_mask, "
    "face_swapper.balance_source_embedding, pixel_boost": paste_back,
}

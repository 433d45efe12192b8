"""Pasting back as insightface and facefusion do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from limn.faces import fit, published, templates

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


MODULES = {
    "insightface.model_zoo.inswapper.INSwapper.get; facefusion face_helper.paste_back, face_masker.create_box_mask, "
    "face_swapper.balance_source_embedding, pixel_boost": paste_back,
}

"""The published alignments, landmark orders and crops: our geometry on the inputs of the cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from limn.faces import crops, dfl, ffhq, fit, landmarks, published, templates

if TYPE_CHECKING:
    from parity import Case

Arrays = dict[str, np.ndarray]


def _facefusion_size(name: str) -> int:
    found = re.search(r"_(\d+)(_v\d+)?$", name)
    return int(found[1]) if found else 256


def _five_point_output(name: str, inputs: Arrays) -> Any:
    points = inputs["points"]
    if name.startswith("template."):
        return _template(name.removeprefix("template."))
    if name == "points_in_crop":
        return fit.apply(fit.similarity(points[0], templates.arcface(112)), points[0])
    if name.startswith("warped"):
        crop, matrix = published.insightface_crop(inputs["image"], inputs["image_points"], 112)
        return matrix if name == "warped_matrix" else crop
    if found := re.fullmatch(r"insightface_(\d+)_inverse_first", name):
        return fit.invert(fit.similarity(points[0], templates.arcface(int(found[1]))))
    if found := re.fullmatch(r"simswap_poses_(index_)?(\d+)", name):
        return np.stack([templates.simswap_pose(five, int(found[2]))[1 if found[1] else 0] for five in points])
    solve = fit.similarity_ransac if name.startswith("facefusion_") else fit.similarity
    return np.stack([solve(five, _target(name)) for five in points])


def _target(name: str) -> np.ndarray:
    """Return the template points in pixels of the crop whose size is in the name."""
    if found := re.fullmatch(r"insightface_(\d+)", name):
        return templates.arcface(int(found[1]))
    if found := re.fullmatch(r"simswap_ffhq_(\d+)", name):
        return templates.FACEXLIB_512 * (int(found[1]) / 512)
    short = name.removeprefix("facefusion_")
    return np.array(templates.FACEFUSION[short]) * _facefusion_size(short)


def _template(name: str) -> np.ndarray:
    if found := re.fullmatch(r"simswap_poses_(\d+)", name):
        return templates.SIMSWAP_POSES_112 * (int(found[1]) / 112)
    return np.array(templates.FACEFUSION[name.removeprefix("facefusion_")]) if name.startswith("facefusion_") else _target(name)


def five_points(case: Case) -> Arrays:
    return {name: _five_point_output(name, case.inputs) for name in case.outputs}


def ffhq_align(case: Case) -> Arrays:
    arrays: Arrays = {}
    for index, run in enumerate(case.spec["kwargs"]["runs"]):
        points, image = case.inputs[f"landmarks{index}"], Image.fromarray(case.inputs[f"image{index}"])
        ready = ffhq.prepare(image, points, run["output_size"], run["enable_padding"])
        arrays[f"quad{index}"] = ffhq.square(points).quad()
        arrays[f"transform_quad{index}"] = ready.quad + 0.5
        arrays[f"transform_source_size{index}"] = np.array(ready.image.size)
        arrays[f"aligned{index}"] = np.asarray(
            ffhq.published_crop(image, points, run["output_size"], run["transform_size"], run["enable_padding"])
        )
    return arrays


def _dfl_matrix(name: str, points: np.ndarray, size: int) -> np.ndarray:
    scale = 1.2 if name.endswith("_scaled") else 1.0
    return dfl.matrix(points, size, name.removeprefix("matrix_").removesuffix("_scaled"), scale)


def deepfacelab(case: Case) -> Arrays:
    points, size = case.inputs["landmarks"], int(case.spec["kwargs"]["output_size"])
    width, height = case.spec["kwargs"].get("mask width,height", [size, size])
    unit = dfl.to_unit(points)
    aligned = fit.apply(dfl.matrix(points, size, "full_face"), points)
    made: dict[str, Callable[[], Any]] = {
        "aligned_landmarks": lambda: aligned,
        "averaged_yaw": lambda: dfl.averaged_yaw(fit.apply(unit, points)),
        "eye_mask": lambda: dfl.eye_mask((height, width), points),
        "mouth_mask": lambda: dfl.mouth_mask((height, width), points),
        "hull_mask": lambda: dfl.hull_mask((height, width), points),
        "hull_mask_expanded": lambda: dfl.hull_mask((height, width), points, 2.0),
        "from98": lambda: landmarks.from_98(case.inputs["landmarks98"]),
        "mean_face_17_67": lambda: dfl.MEAN_FACE,
        "mean_face_17_48_54": lambda: np.concatenate([dfl.MEAN_FACE[:32], dfl.MEAN_FACE[37:38]]),
        "mirrored": lambda: landmarks.mirror(points, width),
        "pitch_yaw_roll": lambda: dfl.pitch_yaw_roll(aligned, size),
        "rect": lambda: dfl.rectangle(points),
        "umeyama": lambda: np.concatenate([unit, [[0, 0, 1]]]),
    }
    return {name: np.asarray(_dfl_matrix(name, points, size) if name.startswith("matrix_") else made[name]()) for name in case.outputs}


def fan(case: Case) -> Arrays:
    centre, scale = landmarks.fan_frame(case.inputs["bbox"])
    in_heatmap, in_image, scores = landmarks.fan_decode(case.inputs["heatmaps"], centre, scale)
    step = 256 // len(case.outputs["crop"])
    crop = landmarks.fan_crop(case.inputs["image"], centre, scale)
    return {
        "center": centre,
        "scale": np.array(scale),
        "points_heatmap": in_heatmap,
        "points_image": in_image,
        "scores": scores,
        "crop": crop[::step, ::step],
    }


def _liveportrait_output(part: str, square: crops.Turned, size: int) -> Any:
    if part == "matrix":
        return np.concatenate([fit.invert(square.matrix(size)), [[0, 0, 1]]])
    return {"center": square.centre, "size": np.full(2, square.side), "angle": square.angle, "corners": square.corners()}[part]


def _crop_output(name: str, case: Case) -> Any:
    boxes, settings = case.inputs["boxes"], case.spec["kwargs"]
    if found := re.fullmatch(r"lp(\d+)_(\w+)", name):
        how = settings["liveportrait"]
        square = crops.liveportrait(case.inputs[f"points{found[1]}"], how["scale"], how["vy_ratio"])
        return _liveportrait_output(found[2], square, how["dsize"])
    side = int(settings["insightface input"])
    if name.startswith("insightface_landmark_matrix"):
        return crops.insightface_matrix(boxes[0], side)
    if found := re.fullmatch(r"insightface_landmark_(\d+)", name):
        return crops.insightface_points(case.inputs[f"prediction{found[1]}"], crops.insightface_matrix(boxes[0], side), side)
    if name == "fomm_crop":
        frame = tuple(int(value) for value in case.inputs["frame_shape"][:2])
        return np.stack([crops.fomm_box(box, frame, settings["fomm increase"]) for box in boxes])
    return crops.join(boxes[:2]) if name == "fomm_join" else crops.overlap_inclusive(boxes[0], boxes[1])


def other_crops(case: Case) -> Arrays:
    return {name: np.asarray(_crop_output(name, case)) for name in case.outputs}


MODULES = {
    "insightface.utils.face_align; SimSwap face_align_ffhqandnewarc; facefusion.face_helper": five_points,
    "download_ffhq.recreate_aligned_images": ffhq_align,
    "facelib.LandmarksProcessor": deepfacelab,
    "face_alignment.utils.crop, get_preds_fromhm, api": fan,
    "crop-video.py; src/utils/crop.py; insightface.model_zoo.landmark": other_crops,
}

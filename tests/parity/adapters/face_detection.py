"""facexlib's and FFHQ's crops and paste-backs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from limn.faces import ffhq, fit, published, templates

if TYPE_CHECKING:
    from parity import Case

Arrays = dict[str, np.ndarray]


def restore_helper(case: Case) -> Arrays:
    size, factor = case.spec["kwargs"]["face_size"], case.spec["kwargs"].get("upscale_factor", 1)
    faces = case.inputs["landmarks"]
    matrices = [published.facexlib_matrix(points, size) for points in faces]
    if "image" not in case.inputs:
        return {
            "template": templates.FACEXLIB_512 * (size / 512),
            "affine": np.stack(matrices),
            "inverse": np.stack([published.facexlib_inverse(matrix, factor) for matrix in matrices]),
        }
    crops = [published.facexlib_crop(case.inputs["image"], points, size) for points in faces]
    pasted = published.facexlib_paste(case.inputs["image"], [255 - crop for crop in crops], matrices, factor)
    return {"crop": crops[0], "pasted": pasted}


def ffhq_crop(case: Case) -> Arrays:
    points, settings = case.inputs["landmarks"], case.spec["kwargs"]
    level, padding = settings.get("rotate_level", True), settings.get("enable_padding", True)
    square = ffhq.square(points, level)
    size, transform = settings["output_size"], settings["transform_size"]
    crop = ffhq.published_crop(Image.fromarray(case.inputs["image"]), points, size, transform, padding, level)
    return {"quad": square.quad(), "size": np.array(square.side()), "crop": np.asarray(crop)}


def similarity(case: Case) -> Arrays:
    settings = case.spec["kwargs"]
    width, height = settings["output_size"]
    outer = settings.get("outer_padding", [0, 0])
    reference = templates.gpen(
        (width, height), settings["inner_padding_factor"], (outer[0], outer[1]), settings.get("default_square", True)
    )
    return {
        "reference": reference,
        "affine": np.stack([fit.similarity_or_mirrored(points, reference) for points in case.inputs["landmarks"]]),
    }


MODULES = {
    "facexlib.utils.face_restoration_helper.FaceRestoreHelper (align_warp_face, get_inverse_affine)": restore_helper,
    "FaceRestoreHelper (align_warp_face, paste_faces_to_input_image with use_parse false)": restore_helper,
    "download_ffhq.recreate_aligned_images": ffhq_crop,
    "facexlib.detection.align_trans.get_reference_facial_points and matlab_cp2tform.get_similarity_transform_for_cv2 "
    "(the alignment of GPEN too)": similarity,
}

"""Where each published system wants a face to lie in its crop: the table of templates, and the matrix of each.

A matrix is (2, 3) float64 and maps image pixels to pixels of a square crop, pixel centres at whole numbers (OpenCV's convention).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Literal

import numpy as np

from limn.errors import FaceError, InputError
from limn.faces import crops, dfl, fit
from limn.faces.face import Face, five_points
from limn.faces.ffhq import square
from limn.faces.landmarks import from_mesh

# The picture's left eye, right eye, nose tip, left and right mouth corner; arcface in pixels of 112, the others of 512.
ARCFACE_112 = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
FACEXLIB_512 = np.array(
    [(192.98138, 239.94708), (318.90277, 240.1936), (256.63416, 314.01935), (201.26117, 371.41043), (313.08905, 371.15118)]
)
FACEXLIB_EYES_MOUTH_512 = np.array([(192.0, 240.0), (319.0, 240.0), (257.0, 371.0)])
# MTCNN's mean face on a canvas of 96 x 112 pixels, from which GPEN derives its reference
MTCNN_96_112 = np.array(
    [
        (30.29459953, 51.69630051),
        (65.53179932, 51.50139999),
        (48.02519989, 71.73660278),
        (33.54930115, 92.3655014),
        (62.72990036, 92.20410156),
    ]
)
# SimSwap's five poses in pixels of 112: left profile, left, frontal, right, right profile
SIMSWAP_POSES_112 = np.array(
    [
        [(51.642, 50.115), (57.617, 49.990), (35.740, 69.007), (51.157, 89.050), (57.025, 89.702)],
        [(45.031, 50.118), (65.568, 50.872), (39.677, 68.111), (45.177, 86.190), (64.246, 86.758)],
        [(39.730, 51.138), (72.270, 51.138), (56.000, 68.493), (42.463, 87.010), (69.537, 87.010)],
        [(46.845, 50.872), (67.382, 50.118), (72.737, 68.111), (48.167, 86.758), (67.236, 86.190)],
        [(54.796, 49.990), (60.771, 50.115), (76.673, 69.007), (55.388, 89.702), (61.257, 89.050)],
    ]
)
# facefusion's templates, as fractions of the crop
FACEFUSION = {
    "arcface_112_v1": [
        (0.35473214, 0.45658929),
        (0.64526786, 0.45658929),
        (0.5, 0.61154464),
        (0.37913393, 0.77687500),
        (0.62086607, 0.77687500),
    ],
    "arcface_112_v2": [
        (0.34191607, 0.46157411),
        (0.65653393, 0.45983393),
        (0.50022500, 0.64050536),
        (0.37097589, 0.82469196),
        (0.63151696, 0.82325089),
    ],
    "arcface_128": [
        (0.36167656, 0.40387734),
        (0.63696719, 0.40235469),
        (0.50019687, 0.56044219),
        (0.38710391, 0.72160547),
        (0.61507734, 0.72034453),
    ],
    "dfl_whole_face": [
        (0.35342266, 0.39285716),
        (0.62797622, 0.39285716),
        (0.48660713, 0.54017860),
        (0.38839287, 0.68750011),
        (0.59821427, 0.68750011),
    ],
    "ffhq_512": [
        (0.37691676, 0.46864664),
        (0.62285697, 0.46912813),
        (0.50123859, 0.61331904),
        (0.39308822, 0.72541100),
        (0.61150205, 0.72490465),
    ],
    "mtcnn_512": [
        (0.36562865, 0.46733799),
        (0.63305391, 0.46585885),
        (0.50019127, 0.61942959),
        (0.39032951, 0.77598822),
        (0.61178945, 0.77476328),
    ],
    "styleganex_384": [
        (0.42353745, 0.52289879),
        (0.57725008, 0.52319972),
        (0.50123859, 0.61331904),
        (0.43364461, 0.68337652),
        (0.57015325, 0.68306005),
    ],
}

Border = Literal["reflect"] | tuple[int, int, int]


@dataclass(frozen=True)
class Template:
    """One way to crop a face: what it needs to know of the face, its matrix, and what lies beyond the image's borders."""

    needs: Literal["five", "68", "box"]  # five points or more; the 68 points of iBUG; two corners of a box
    matrix: Callable[[np.ndarray, int], np.ndarray]  # (points, side of the crop in pixels) -> (2, 3)
    border: Border = (0, 0, 0)
    size: int = 112  # the side that the published systems use


def arcface(size: int) -> np.ndarray:
    """Return the five points in a crop of ``size`` as insightface scales them: multiples of 112, else of 128 with 8/128 on each side."""
    if size % 112 and size % 128:
        raise InputError(f"the arcface template has sizes that are multiples of 112 or of 128, not {size}")
    return ARCFACE_112 * (size / 112) if size % 112 == 0 else (ARCFACE_112 + np.array([8, 0])) * (size / 128)


def gpen(size: tuple[int, int], inner_padding: float = 0.25, outer_padding: tuple[int, int] = (0, 0), square: bool = True) -> np.ndarray:
    """Return GPEN's and facexlib's reference points for a crop of (width, height): the padded square of MTCNN's mean face, scaled."""
    points, canvas = MTCNN_96_112.copy(), np.array([96.0, 112.0])
    if square:
        points, canvas = points + (canvas.max() - canvas) / 2, np.full(2, canvas.max())
    points = points + canvas * inner_padding
    canvas = canvas * (1 + 2 * inner_padding)
    outer = np.array(outer_padding, np.float64)
    inside = np.array(size) - 2 * outer
    if (inside <= 0).any() or abs(inside[0] * canvas[1] - inside[1] * canvas[0]) > 1e-6 * canvas[0] * inside[1]:
        raise InputError(f"a crop of {size} with an outer padding of {outer_padding} has not the proportions of the template")
    return points * (inside[0] / canvas[0]) + outer


def simswap_pose(points: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Return the matrix to the best of SimSwap's five poses in a crop of ``size``, and the pose's index."""
    targets = SIMSWAP_POSES_112 * (size / 112)
    matrices = [fit.similarity(points, target) for target in targets]
    errors = [np.linalg.norm(fit.apply(matrix, points) - target, axis=1).sum() for matrix, target in zip(matrices, targets, strict=True)]
    best = int(np.argmin(errors))
    return matrices[best], best


def _to(target: np.ndarray, side: float, points: np.ndarray, size: int) -> np.ndarray:
    return fit.similarity(five_points(points), target * (size / side))


def _gfpgan(points: np.ndarray, size: int) -> np.ndarray:
    return fit.similarity_median(five_points(points), FACEXLIB_512 * (size / 512))


def _gpen(points: np.ndarray, size: int) -> np.ndarray:
    return fit.similarity_or_mirrored(five_points(points), gpen((size, size)))


def _facefusion(name: str) -> Template:
    target = np.array(FACEFUSION[name])
    return Template("five", lambda points, size: fit.similarity_ransac(points, target * size), size=256)


_FACEXLIB_GREY = (132, 133, 135)  # beyond the border, RGB

TEMPLATES: dict[str, Template] = {
    "ffhq": Template("five", lambda points, size: square(points).matrix(size), "reflect", 1024),
    "arcface-112": Template("five", partial(_to, ARCFACE_112, 112.0)),
    "arcface-128": Template("five", partial(_to, ARCFACE_112 + np.array([8, 0]), 128.0), size=128),
    "gfpgan-512": Template("five", _gfpgan, _FACEXLIB_GREY, 512),
    "facexlib-512": Template("five", _gfpgan, _FACEXLIB_GREY, 512),
    "gpen": Template("five", _gpen, size=512),
    "simswap-ffhq": Template("five", partial(_to, FACEXLIB_512, 512.0), size=512),
    "simswap-poses": Template("five", lambda points, size: simswap_pose(five_points(points), size)[0], size=224),
    **{f"facefusion-{name.replace('_', '-')}": _facefusion(name) for name in FACEFUSION},
    **{f"dfl-{name.replace('_', '-')}": Template("68", partial(dfl.matrix, face_type=name), size=256) for name in dfl.PADDING},
    "fomm": Template("box", crops.fomm_matrix, "reflect", 256),
    "liveportrait": Template("five", partial(crops.liveportrait_matrix, scale=2.3, shift=-0.125), size=512),
    "liveportrait-driving": Template("five", partial(crops.liveportrait_matrix, scale=2.2, shift=-0.1), size=512),
}


def template(name: str) -> Template:
    """Return a template by name; InputError suggests the nearest for one that is not known."""
    if name not in TEMPLATES:
        near = get_close_matches(name, TEMPLATES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(TEMPLATES)}"
        raise InputError(f"there is no face template {name!r}: {hint}")
    return TEMPLATES[name]


def matrix(name: str, face: Face | np.ndarray, size: int) -> np.ndarray:
    """Return the (2, 3) matrix from the image of a face, or of its (5, 2) or (68, 2) points, to the named crop of side ``size``."""
    chosen = template(name)
    if chosen.needs == "five":
        points = np.asarray(five_points(face), np.float64)
    elif chosen.needs == "box":
        points = np.reshape(np.asarray(face.box if isinstance(face, Face) else face, np.float64), (2, 2))
    else:
        points = _points68(face, name)
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() <= 0:
        raise FaceError("the points of this face lie on one spot or are not numbers: it cannot be aligned")
    return chosen.matrix(points, size)


def _points68(face: Face | np.ndarray, name: str) -> np.ndarray:
    """Return 68 points of a face by its mesh, or the points given."""
    if isinstance(face, Face):
        if face.mesh is None:
            raise FaceError(f"template {name!r} needs dense landmarks: detect the face with its mesh")
        return from_mesh(face.mesh)[:, :2]
    points = np.asarray(face, np.float64)
    if points.shape != (68, 2):
        raise InputError(f"template {name!r} needs 68 points, got points of shape {points.shape}")
    return points

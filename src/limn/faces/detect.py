"""Finding the faces of a picture: any detector of boxes and five points, then the dense mesh of each face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from limn.errors import FaceError, InputError
from limn.faces import fit
from limn.faces.align import align
from limn.faces.face import Face
from limn.faces.landmarks import five_from_mesh
from limn.faces.measures import pose

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from limn.weights import Loaded

NAMES = {"limn": "limn-detector"}  # what users say -> what the model is called
THRESHOLDS = {"limn-detector": 0.5, "retinaface": 0.6, "yunet": 0.6}  # score from which a box is a face
MESH = "limn-mesh"
FIRST = 1280  # long side of the first look, pixels
SECOND = 2304  # long side of the second look, in tiles of FIRST: for pictures with small faces only
SMALL = 0.12  # of the long side: where the largest face is smaller, there may be others that the first look missed
OVERLAP = 256  # of two tiles, pixels; no face of the second look is larger
# How far the five points by which portraits are aligned lie from those of their meshes, in crop sides of the template "ffhq":
# means over 1,349 British and 813 American portraits, which differ by 1.2/128 (the points are a detector's, spread 1.6/128)
OFFSETS = np.array([(0.18, -0.65), (1.15, -0.26), (0.63, -0.46), (0.10, -0.10), (0.05, 0.35)]) / 128


def detect(
    image: Image.Image,
    detector: str = "limn",
    threshold: float | None = None,
    mesh: bool = True,
    device: torch.device | str = "cpu",
) -> list[Face]:
    """Return the faces of a picture, largest first, with their dense mesh and pose; an empty list where there is none.

    ``detector``: "limn", "retinaface", "yunet" or the path of a weight file. Raises InputError for a threshold outside 0..1 and
    WeightsError where the detector is not there or the file is of no detector.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"a detection threshold lies between 0 and 1, not at {threshold}")
    loaded = _detector(detector, str(device))
    score = THRESHOLDS.get(loaded.system, 0.5) if threshold is None else threshold
    faces = ordered([Face.from_row(row) for row in _rows(loaded.model, image.convert("RGB"), score, device)])
    return with_meshes(image, faces, device) if mesh and faces else faces


def ordered(faces: Sequence[Face]) -> list[Face]:
    """Return faces by size, largest first, numbered so."""
    return [replace(face, index=index) for index, face in enumerate(sorted(faces, key=lambda face: -face.size))]


def choose(faces: Sequence[Face], which: int | str = "largest") -> list[Face]:
    """Return the faces asked for: "all", "largest" or a number by size from 0; FaceError where there is none or no such number."""
    if not faces:
        raise FaceError("the picture holds no face that was found: give one with a face turned to the camera, at least 24 pixels wide")
    if which == "all":
        return list(faces)
    number = 0 if which == "largest" else which
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise InputError(f"face {which!r} is not understood: give a number from 0 (the largest), 'largest' or 'all'")
    if number >= len(faces):
        raise FaceError(f"the picture holds {len(faces)} face{'s' * (len(faces) > 1)}: they count from 0 (the largest) to {len(faces) - 1}")
    return [faces[number]]


@lru_cache(maxsize=4)
def _detector(name: str, device: str) -> Loaded:
    from limn.errors import WeightsError
    from limn.weights import load
    from limn.weights.catalogue import published
    from limn.weights.store import names

    known = published().get(name)
    if known and name not in names() and not Path(name).exists():
        raise WeightsError(f"the detector {name} is not here: `limn models fetch {name}` gets it ({known[1].licence})")
    loaded = load(NAMES.get(name, name), device=device)
    if not hasattr(loaded.model, "detect"):
        raise WeightsError(f"{name} is the {loaded.part} of {loaded.system}: a face detector is needed (limn, retinaface, yunet)")
    return loaded


@lru_cache(maxsize=2)
def _landmarker(device: str) -> Any:
    from limn.weights import load

    return load(MESH, device=device).model


# --------------------------------------------------------------------------------------------------------------- looks


def _rows(model: Any, image: Image.Image, threshold: float, device: torch.device | str) -> np.ndarray:
    """Return the rows (K, 15) of all looks at a picture, in its pixels; several looks are joined by suppression."""
    import torch

    from limn.blocks.boxes import nms

    found = [_look(model, image, FIRST, threshold, device)]
    long_side = max(image.size)
    several = getattr(model, "several_sizes", False)
    if not several and long_side > FIRST and not (_sizes(found[0]) > SMALL * long_side).any():
        found.append(_look(model, image, SECOND, threshold, device))
    rows = torch.cat(found)
    if len(found) > 1:
        rows = rows[nms(rows[:, :4], rows[:, 4], 0.4)]
    return rows.cpu().numpy()


def _sizes(rows: Tensor) -> Tensor:
    return (rows[:, 2:4] - rows[:, :2]).clamp(min=0).prod(1).sqrt()


def _look(model: Any, image: Image.Image, longest: int, threshold: float, device: torch.device | str) -> Tensor:
    """Return the rows found in the picture scaled down to a long side, tile by tile, in pixels of the picture."""
    import torch

    from limn.media import to_tensor

    factor = min(1.0, longest / max(image.size))
    size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    small = image if factor == 1 else image.resize(size, Image.Resampling.BOX, reducing_gap=None)
    rows = []
    for x, y, width, height in tiles(size, FIRST, OVERLAP):
        part = model.detect(to_tensor(small.crop((x, y, x + width, y + height))).to(device), threshold).float()
        shift = part.new_tensor([x, y, x, y, 0.0, *(x, y) * 5])
        rows.append((part + shift)[_whole(part, (x, y, width, height), size)])
    back = torch.cat(rows)
    ratio = torch.tensor([image.width / size[0], image.height / size[1]], device=back.device)
    back[:, :4] *= ratio.repeat(2)
    back[:, 5:] *= ratio.repeat(5)
    return back


def tiles(size: tuple[int, int], most: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Return x, y, width, height of the overlapping tiles, none larger than ``most`` a side, that cover (width, height)."""

    def starts(side: int) -> list[int]:
        count = max(-(-(side - overlap) // (most - overlap)), 1)
        return [round(index * (side - most) / (count - 1)) for index in range(count)] if count > 1 else [0]

    width, height = min(size[0], most), min(size[1], most)
    return [(x, y, width, height) for y in starts(size[1]) for x in starts(size[0])]


def _whole(rows: Tensor, tile: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """Say which boxes of a tile (K, 15) are not cut by an edge that it shares with another tile."""
    x, y, width, height = tile
    margin = 2.0
    keep = rows[:, 4] >= 0
    if x > 0:
        keep &= rows[:, 0] > margin
    if y > 0:
        keep &= rows[:, 1] > margin
    if x + width < size[0]:
        keep &= rows[:, 2] < width - margin
    if y + height < size[1]:
        keep &= rows[:, 3] < height - margin
    return keep


# --------------------------------------------------------------------------------------------------------------- meshes


def with_meshes(image: Image.Image, faces: Sequence[Face], device: torch.device | str = "cpu") -> list[Face]:
    """Return the faces with dense mesh and pose, and with the five points as the mesh shows them."""
    import torch

    from limn.media import to_tensor

    network = _landmarker(str(device))
    side = int(getattr(network.config, "size", 128))
    cuts = [align(image, face, "ffhq", side) for face in faces]
    with torch.inference_mode():
        meshes = network.landmarks(torch.cat([to_tensor(crop) for crop, _ in cuts]).to(device)).float().cpu().numpy()
    return [_with_mesh(face, mesh, matrix, side) for face, mesh, (_, matrix) in zip(faces, meshes, cuts, strict=True)]


def _with_mesh(face: Face, mesh: np.ndarray, matrix: np.ndarray, side: int) -> Face:
    """Carry a mesh from an aligned crop, whose left edge is 0 there, to the image, and read points and pose off it."""
    back = fit.invert(matrix)
    plane = fit.apply(back, mesh[:, :2] - 0.5)
    dense = np.concatenate([plane, mesh[:, 2:] / fit.scale_of(matrix)], 1).astype(np.float32)
    points = fit.apply(back, five_from_mesh(mesh) + OFFSETS * side).astype(np.float32)
    return replace(face, points=points, mesh=dense, pose=pose(dense))

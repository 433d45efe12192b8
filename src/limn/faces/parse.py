"""Parsing a face: which part of it every pixel shows, by name, as soft masks in pixels of the photo or of the aligned crop.

parsing = parse(photo, face)                            # the box's parser; "mesh" draws the parts from the mesh alone
lips = parsing.region("lips", grow=0.05, feather=0.1)   # (H, W) float32, units: distances between the eyes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from limn.errors import FaceError, InputError, WeightsError
from limn.faces import drawn, fit
from limn.faces.align import align
from limn.faces.face import Face
from limn.faces.masks import smoothstep
from limn.faces.paste import Box, region, unwarp

if TYPE_CHECKING:
    import torch

PARSER = "limn-parser"  # what parses faces unless another is named
MESH_CROP = 256  # side of the crop in which parts are drawn from a mesh, pixels
_BROWS, _EYES = ("left_brow", "right_brow"), ("left_eye", "right_eye")
_LIPS, _EARS = ("upper_lip", "lower_lip"), ("left_ear", "right_ear")
GROUPS = {  # names for several classes at once; a parser that lacks some has the others
    "brows": (*_BROWS, "brows"),
    "eyes": (*_EYES, "eyes", "iris"),
    "lips": _LIPS,
    "mouth": (*_LIPS, "inner_mouth", "mouth"),
    "ears": _EARS,
    "face": ("skin", *_BROWS, "brows", *_EYES, "eyes", "iris", "nose", *_LIPS, "inner_mouth", "mouth", "glasses"),
    "head": ("skin", *_BROWS, "brows", *_EYES, "eyes", "iris", "nose", *_LIPS, "inner_mouth", "mouth", "glasses", *_EARS, "hair", "hat"),
}
COLOURS = {  # of the classes in a picture that a person looks at
    "background": (24, 24, 48),
    "skin": (224, 172, 140),
    "neck": (150, 190, 120),
    "brows": (120, 72, 40),
    "left_brow": (120, 72, 40),
    "right_brow": (160, 104, 60),
    "eyes": (255, 255, 255),
    "left_eye": (40, 110, 220),
    "right_eye": (90, 180, 240),
    "iris": (40, 110, 220),
    "glasses": (20, 200, 200),
    "left_ear": (240, 150, 90),
    "right_ear": (240, 130, 60),
    "earring": (255, 220, 0),
    "nose": (240, 200, 60),
    "inner_mouth": (90, 0, 40),
    "mouth": (90, 0, 40),
    "upper_lip": (200, 40, 60),
    "lower_lip": (240, 110, 130),
    "hair": (96, 56, 24),
    "hat": (80, 80, 200),
    "necklace": (220, 200, 120),
    "clothes": (140, 80, 180),
}


@dataclass(frozen=True, eq=False)
class Parsing:
    """The parts of one face. What lies outside the crop counts as background."""

    classes: tuple[str, ...]  # the first one is the background
    shares: np.ndarray = field(repr=False)  # (classes, S, S) float32 in [0, 1], sums to 1: how much of each class a pixel of the crop is
    matrix: np.ndarray = field(repr=False)  # (2, 3): pixels of the photo -> pixels of the crop
    size: tuple[int, int]  # width and height of the photo
    eyes: float  # distance between the eyes, pixels of the photo

    @property
    def box(self) -> Box:
        """Return the part of the photo that the crop reaches."""
        side = self.shares.shape[-1]
        return region(self.matrix, (side, side), self.size)

    def labels(self) -> np.ndarray:
        """Return the number of the class of every pixel of the photo, (H, W) uint8."""
        x0, y0, x1, y1 = self.box
        found = np.zeros((self.size[1], self.size[0]), np.uint8)
        best = np.full((y1 - y0, x1 - x0), 1e-3, np.float32)
        for index, share in enumerate(self.shares):
            here = unwarp(share, self.matrix, self.box, beyond=False) if best.size else best
            found[y0:y1, x0:x1][here > best] = index
            best = np.maximum(best, here)
        return found

    def crop_labels(self) -> np.ndarray:
        """Return the number of the class of every pixel of the crop, (S, S) uint8."""
        return self.shares.argmax(0).astype(np.uint8)

    def region(self, names: str | Sequence[str], grow: float = 0.0, feather: float = 0.0) -> np.ndarray:
        """Return the mask (H, W) float32 in [0, 1] of classes or groups in the photo; shrunk where `grow` is negative.

        `grow` and `feather` (over which the mask falls from 1 to 0 at its edge) are distances between the eyes. Without both it is soft
        as the parser is unsure. Raises InputError for names that the parser has not.
        """
        x0, y0, x1, y1 = self.box
        mask = np.zeros((self.size[1], self.size[0]), np.float32)
        if x1 > x0 and y1 > y0:
            share = unwarp(self.crop_region(names), self.matrix, self.box, beyond=False)
            mask[y0:y1, x0:x1] = _grown(np.clip(share, 0, 1), grow * self.eyes, feather * self.eyes)
        return mask

    def crop_region(self, names: str | Sequence[str], grow: float = 0.0, feather: float = 0.0) -> np.ndarray:
        """Return the mask (S, S) float32 in pixels of the crop; otherwise as `region`."""
        share = self.shares[list(members(names, self.classes))].sum(0)
        unit = self.eyes * fit.scale_of(self.matrix)
        return _grown(np.clip(share, 0, 1), grow * unit, feather * unit)

    def picture(self, labels: np.ndarray | None = None) -> Image.Image:
        """Return the labels of the photo, or others of the same classes, as an index picture: colours for people, numbers for programs."""
        shown = Image.fromarray(self.labels() if labels is None else labels, "P")
        shown.putpalette([level for name in self.classes for level in COLOURS.get(name, (128, 128, 128))])
        return shown


def parse(image: Image.Image, face: Face, parser: str = PARSER, device: torch.device | str = "cpu") -> Parsing:
    """Return the parts of a face of an RGB photo.

    `parser`: "mesh", which draws what a mesh knows and calls the rest background, or the name or file of a parser (limn-parser, bisenet,
    parsenet). Raises FaceError where the face has no mesh and needs one, WeightsError where the model is no parser.
    """
    if parser == "mesh":
        return _drawn(image, face)
    network = _network(parser, str(device))
    crop, matrix = align(image, face, network.template, int(network.config.size))
    return Parsing(network.classes, shares(network, crop, device), matrix, image.size, _eye_distance(face))


def mask(
    photo: Image.Image,
    face: Face,
    names: str | Sequence[str],
    grow: float = 0.0,
    feather: float = 0.0,
    parser: str = PARSER,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Return the mask (H, W) float32 in [0, 1] of parts of a face, such as "mouth" or ["eyes", "brows"]; see `Parsing.region`."""
    return parse(photo, face, parser, device).region(names, grow, feather)


def shares(network: Any, crop: Image.Image, device: torch.device | str = "cpu") -> np.ndarray:
    """Return what a parser says of an aligned crop of S pixels a side: (classes, S, S) float32, the softmax of its logits."""
    import torch

    from limn.media import to_tensor

    with torch.inference_mode():
        return network.parse(to_tensor(crop).to(device)).softmax(1)[0].float().cpu().numpy()


def members(names: str | Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the classes that names of classes or groups mean; InputError says which there are."""
    asked = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    found: set[int] = set()
    for name in asked:
        meant = [classes.index(part) for part in (name, *GROUPS.get(name, ())) if part in classes]
        if not meant:
            known = [*classes, *(group for group, parts in GROUPS.items() if set(parts) & set(classes) and group not in classes)]
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"this parser knows no region {name!r}: {hint}")
        found |= set(meant)
    return tuple(sorted(found))


@lru_cache(maxsize=2)
def _network(name: str, device: str) -> Any:
    from limn.weights import load

    loaded = load(name, device=device)
    if not hasattr(loaded.model, "parse"):
        raise WeightsError(f"{name} is the {loaded.part} of {loaded.system}: a face parser is needed (limn-parser, bisenet, mesh)")
    return loaded.model


def _drawn(image: Image.Image, face: Face) -> Parsing:
    """Draw the parts from the mesh of a face, soft by half a pixel of the crop."""
    if face.mesh is None:
        raise FaceError("the face has no mesh to draw its parts from: detect it with mesh=True, or name a parser")
    _, matrix = align(image, face, "ffhq", MESH_CROP)
    numbers = drawn.labels(fit.apply(matrix, face.mesh[:, :2]), (MESH_CROP, MESH_CROP))
    one_hot = (np.arange(len(drawn.CLASSES))[:, None, None] == numbers).astype(np.float32)
    soft = np.stack([cv2.GaussianBlur(share, (0, 0), 0.7) for share in one_hot])
    return Parsing(drawn.CLASSES, soft / soft.sum(0), matrix, image.size, _eye_distance(face))


def _eye_distance(face: Face) -> float:
    return max(float(np.linalg.norm(face.points[0] - face.points[1])), 1.0)


def _grown(share: np.ndarray, grow: float, feather: float) -> np.ndarray:
    """Move the edge of a mask out by `grow` pixels and let it fall over `feather` pixels, half of it on either side."""
    if not grow and not feather:
        return share.astype(np.float32)
    inside = (share > 0.5).astype(np.uint8)
    if not inside.any():
        return np.zeros(share.shape, np.float32)
    inner, outer = (cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for part in (inside, 1 - inside))
    distance = np.where(inside > 0, inner - 0.5, 0.5 - outer) + grow
    return smoothstep(distance / max(feather, 1.0) + 0.5)

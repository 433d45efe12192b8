"""The mesh of one moving head, followed by optical flow from a single frame.

A network finds every mesh anew, from one picture, and sees little of what lips do in speech. Here the points of the first mesh are
carried by the dense flow (Kroeger, Timofte, Dai, Van Gool: Fast Optical Flow using Dense Inverse Search. ECCV 2016) from the aligned
first crop to each later one: nothing drifts, for there is one reference, and small movements are seen to a fraction of a pixel.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from limn.faces import fit
from limn.faces.align import align
from limn.faces.face import Face
from limn.faces.masks import smoothstep
from limn.models.perception.limn_mesh import MIRROR

SIZE = 256  # pixels a side of the crops
ASTRAY = 0.25  # distances between the irises by which flow and network may disagree
# points of the inner lips, and those of the outer lips beyond them, where flow is read for both: it is at a loss where lips part
UPPER = dict(zip((191, 80, 81, 82, 13, 312, 311, 310, 415), (185, 40, 39, 37, 0, 267, 269, 270, 409), strict=True))
LOWER = dict(zip((95, 88, 178, 87, 14, 317, 402, 318, 324), (146, 91, 181, 84, 17, 314, 405, 321, 375), strict=True))
# upper and lower points of the lids
LIDS_A = ((246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155))
LIDS_B = tuple((MIRROR[a], MIRROR[b]) for a, b in LIDS_A)
ON_LIP = 1.0  # how far out


EYES = ((LIDS_A, (33, 133)), (LIDS_B, (263, 362)))  # upper and lower lids, and corners
BLINK = (0.22, 0.2)  # how much brighter, of 1, eye and lid are together when a blink begins to be seen, and until it is complete


class Track:
    """Follows the mesh of `face` in `frame`; a call gives the mesh in another frame, where a network saw that `face`."""

    def __init__(self, frame: Image.Image, face: Face) -> None:
        crop, self.matrix = align(frame, face, "ffhq", SIZE)
        self.grey = _grey(crop)
        assert face.mesh is not None
        self.mesh = np.asarray(face.mesh, np.float64)
        self.points = fit.apply(self.matrix, self.mesh[:, :2])
        self.read = self.points.copy()
        for inner, outer in (*UPPER.items(), *LOWER.items()):
            self.read[inner] += ON_LIP * (self.points[outer] - self.points[inner])
        self.engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.engine.setFinestScale(0)
        self.last: np.ndarray = np.zeros((SIZE, SIZE, 2), np.float32)
        self.lit = 0.0  # how much brighter the eyes of the last frame are than those of the first: shut ones about 0.4
        self.open = self.light(self.grey_of(crop), np.zeros((2, 2)))

    def __call__(self, frame: Image.Image, face: Face) -> np.ndarray:
        """Return the mesh (478, 3) in pixels of the frame: x and y by flow, depth as the network has it."""
        crop, matrix = align(frame, face, "ffhq", SIZE)
        self.last = self.engine.calc(self.grey, _grey(crop), self.last.copy())
        flow = cv2.GaussianBlur(self.last, (0, 0), 1.0)
        x, y = (self.read[:, axis].astype(np.float32)[:, None] for axis in (0, 1))
        moved = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        places = self.lids(self.points + moved, moved, crop)
        back = fit.apply(fit.invert(matrix), places)
        assert face.mesh is not None
        seen = np.asarray(face.mesh, np.float64)
        most = ASTRAY * float(np.linalg.norm(seen[468, :2] - seen[473, :2]))
        astray = back - seen[:, :2]
        far = np.linalg.norm(astray, axis=1, keepdims=True)
        astray *= most * np.tanh(far / most) / np.maximum(far, 1e-9)
        return np.concatenate([seen[:, :2] + astray, seen[:, 2:]], axis=1)

    def lids(self, places: np.ndarray, moved: np.ndarray, crop: Image.Image) -> np.ndarray:
        """Let the lids go with the corners of the eyes, and shut as far as the light there says: flow does not see a blink."""
        shift = np.stack([moved[list(corners)].mean(0) for _, corners in EYES])
        ratio = self.light(self.grey_of(crop), shift) / self.open - 1
        self.lit = float(ratio.sum(1).mean())
        shut = float(smoothstep((self.lit - BLINK[0]) / BLINK[1]))
        places = places.copy()
        for (pairs, _), by in zip(EYES, shift, strict=True):
            for upper, lower in pairs:
                places[[upper, lower]] = self.points[[upper, lower]] + by
                places[upper] += shut * (places[lower] - places[upper])
        return places

    def light(self, grey: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Return the light of the dark of each eye and of the lid above it, as shares of that of the cheek: (2, 2)."""
        rows = []
        for (pairs, corners), by in zip(EYES, shift, strict=True):
            middle, width = self.points[list(corners)].mean(0) + by, float(np.linalg.norm(np.diff(self.points[list(corners)], axis=0)))
            top, bottom = (self.points[[pair[side] for pair in pairs], 1].mean() + by[1] for side in (0, 1))
            high = max(bottom - top, 2.0)

            def patch(start: float, stop: float, x: float = middle[0], wide: float = 0.3 * width) -> np.ndarray:
                y0, x0 = max(int(start), 0), max(int(x - wide), 0)
                return grey[y0 : max(int(np.ceil(stop)), y0 + 1), x0 : max(int(x + wide), x0 + 1)]

            cheek = max(float(patch(bottom + 0.6 * high, bottom + 1.2 * high).mean()), 1.0)
            rows.append((np.percentile(patch(top, bottom), 15) / cheek, patch(top - 0.9 * high, top - 0.3 * high).mean() / cheek))
        return np.maximum(np.array(rows, np.float64), 0.05)

    @staticmethod
    def grey_of(crop: Image.Image) -> np.ndarray:
        """Return a crop's luma, a little blurred."""
        return cv2.GaussianBlur(np.asarray(crop.convert("L"), np.float32), (0, 0), 1.5)

    def gap(self, mesh: np.ndarray) -> float:
        """Return how much farther apart the lips of a mesh are than those of the first, in distances between the irises."""
        rows = [list(UPPER), list(LOWER)]
        far = [(m[rows[1], 1].mean() - m[rows[0], 1].mean()) / np.linalg.norm(m[468, :2] - m[473, :2]) for m in (self.mesh, mesh)]
        return float(far[1] - far[0])


def _grey(crop: Image.Image) -> np.ndarray:
    return cv2.createCLAHE(2.0, (4, 4)).apply(np.asarray(crop.convert("L")))

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

SIZE = 256  # pixels a side of the crops
ASTRAY = 0.25  # distances between the irises by which flow and network may disagree
# points of the inner lips, and those of the outer lips beyond them, where flow is read for both: it is at a loss where lips part
UPPER = dict(zip((191, 80, 81, 82, 13, 312, 311, 310, 415), (185, 40, 39, 37, 0, 267, 269, 270, 409), strict=True))
LOWER = dict(zip((95, 88, 178, 87, 14, 317, 402, 318, 324), (146, 91, 181, 84, 17, 314, 405, 321, 375), strict=True))
ON_LIP = 1.0  # how far out


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

    def __call__(self, frame: Image.Image, face: Face) -> np.ndarray:
        """Return the mesh (478, 3) in pixels of the frame: x and y by flow, depth as the network has it."""
        crop, matrix = align(frame, face, "ffhq", SIZE)
        self.last = self.engine.calc(self.grey, _grey(crop), self.last.copy())
        flow = cv2.GaussianBlur(self.last, (0, 0), 1.0)
        x, y = (self.read[:, axis].astype(np.float32)[:, None] for axis in (0, 1))
        moved = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        back = fit.apply(fit.invert(matrix), self.points + moved)
        assert face.mesh is not None
        seen = np.asarray(face.mesh, np.float64)
        most = ASTRAY * float(np.linalg.norm(seen[468, :2] - seen[473, :2]))
        astray = back - seen[:, :2]
        far = np.linalg.norm(astray, axis=1, keepdims=True)
        astray *= most * np.tanh(far / most) / np.maximum(far, 1e-9)
        return np.concatenate([seen[:, :2] + astray, seen[:, 2:]], axis=1)

    def gap(self, mesh: np.ndarray) -> float:
        """Return how much farther apart the lips of a mesh are than those of the first, in distances between the irises."""
        rows = [list(UPPER), list(LOWER)]
        far = [(m[rows[1], 1].mean() - m[rows[0], 1].mean()) / np.linalg.norm(m[468, :2] - m[473, :2]) for m in (self.mesh, mesh)]
        return float(far[1] - far[0])


def _grey(crop: Image.Image) -> np.ndarray:
    return cv2.createCLAHE(2.0, (4, 4)).apply(np.asarray(crop.convert("L")))

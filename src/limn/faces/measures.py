"""Head pose and expression read off a dense mesh of 478 points (MediaPipe's topology), freed from each other.

The head's position is the rigid similarity between 27 points that no expression moves much and the same points of a mean face;
expressions are measured on the mesh turned back to frontal and scaled by it. The mean face is the symmetric Procrustes mean of the
frontal ones of 3,668 free portraits (pitch 0 is their mean), the distance between its irises is 1.
Smile is scaled on 102 people of the Face Research Lab London set who were asked to look neutral (0 on average) and to smile
(1 on average): the two are told apart with an area under the curve of 0.96 between people and always within one person.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from limn.errors import InputError
from limn.faces.face import Face

# fmt: off
RIGID = {  # point of the mesh -> x to the picture's right, y down, z away from the camera, of the mean face
    33: (-0.6925, 0.0606, 0.0958), 133: (-0.2738, 0.0841, 0.0160), 362: (0.2738, 0.0841, 0.0160),
    263: (0.6925, 0.0606, 0.0958), 168: (0.0000, 0.0098, -0.2603), 6: (0.0000, 0.1263, -0.3242),
    197: (0.0000, 0.2411, -0.3965), 195: (0.0000, 0.3489, -0.4767), 5: (0.0000, 0.4651, -0.5603),
    4: (0.0000, 0.6055, -0.5922), 1: (0.0000, 0.7112, -0.5554), 2: (0.0000, 0.7915, -0.3040),
    98: (-0.3004, 0.7312, -0.1780), 327: (0.3004, 0.7312, -0.1780), 127: (-1.1031, 0.1163, 0.8665),
    356: (1.1031, 0.1163, 0.8665), 234: (-1.0963, 0.3471, 0.9491), 454: (1.0963, 0.3471, 0.9491),
    10: (0.0000, -0.7733, -0.2201), 109: (-0.2966, -0.7649, -0.1921), 338: (0.2966, -0.7649, -0.1921),
    67: (-0.5465, -0.7210, -0.0895), 297: (0.5465, -0.7210, -0.0895), 54: (-0.9328, -0.4882, 0.2898),
    284: (0.9328, -0.4882, 0.2898), 103: (-0.7789, -0.6281, 0.0873), 332: (0.7789, -0.6281, 0.0873),
}
# fmt: on
# What a smile does to the corners of the mouth: mean of neutral faces, and weight such that smiles sum to 1 on average
SMILE = {"wide": (0.7574, 1.9486), "high": (-1.1308, 2.8984), "back": (-0.0202, 3.7526), "lifted": (-0.0077, 4.0015)}

_LIDS = ((159, 145), (158, 153), (160, 144)), ((386, 374), (385, 380), (387, 373))  # upper, lower; the picture's left eye first
_EYE_CORNERS = ((33, 133), (362, 263))
_IRISES = (468, 473)
_BROWS = (105, 66, 334, 296)


class Head(NamedTuple):
    """How a head stands in the picture: mesh = scale * turn @ frontal + shift."""

    turn: np.ndarray  # (3, 3), a rotation
    scale: float  # distance between the irises of a mean face there, in units of the mesh
    shift: np.ndarray  # (3,)

    def angles(self) -> tuple[float, float, float]:
        """Return yaw, pitch and roll in degrees: the head pitches, then yaws, then rolls in the plane of the picture.

        Positive yaw: the face looks to the picture's right; pitch: up; roll: the head is turned clockwise in the picture.
        """
        yaw = np.degrees(np.arcsin(np.clip(self.turn[2, 0], -1, 1)))
        pitch = np.degrees(np.arctan2(-self.turn[2, 1], self.turn[2, 2]))
        roll = np.degrees(np.arctan2(self.turn[1, 0], self.turn[0, 0]))
        return float(yaw), float(pitch), float(roll)


def head(mesh: np.ndarray) -> Head:
    """Fit the mean face to a mesh (478, 3), least squares over the points that expressions hardly move (Umeyama 1991)."""
    mesh = np.asarray(mesh, np.float64)
    if mesh.shape[-2:] != (478, 3) or mesh.ndim != 2:
        raise InputError(f"measures need a mesh of shape (478, 3), got {mesh.shape}")
    model, seen = np.array(list(RIGID.values())), mesh[list(RIGID)]
    middle, centre = model.mean(0), seen.mean(0)
    u, singular, v = np.linalg.svd((seen - centre).T @ (model - middle))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    turn = (u * sign) @ v
    scale = float(singular @ sign / ((model - middle) ** 2).sum())
    return Head(turn, scale, centre - scale * turn @ middle)


def frontal(mesh: np.ndarray) -> np.ndarray:
    """Return the mesh (478, 3) turned to frontal, upright and scaled to a distance of 1 between a mean face's irises."""
    stand = head(mesh)
    return (np.asarray(mesh, np.float64) - stand.shift) @ stand.turn / max(stand.scale, 1e-9)


def pose(mesh: np.ndarray) -> tuple[float, float, float]:
    """Return yaw, pitch and roll of a mesh (478, 3) in degrees, see `Head.angles`."""
    return head(mesh).angles()


def measures(mesh: np.ndarray | Face) -> dict[str, float]:
    """Return what can be measured on a mesh (478, 3), in any one unit, or on a face that has one.

    yaw, pitch, roll: degrees; smile: 0 neutral, 1 smiling; mouth_open, mouth_width, brow (height above the eyes): distances
    between the irises; eyes_open (and _left, _right of the picture): height by width of the lids, 0.3 open, below 0.15 shut;
    gaze_x, gaze_y: how far the irises lie right of and below the middle of the lids' corners, in widths of an eye.
    """
    if isinstance(mesh, Face):
        if mesh.mesh is None:
            raise InputError("this face has no mesh to measure: detect it with its mesh")
        mesh = mesh.mesh
    yaw, pitch, roll = pose(mesh)
    p = frontal(mesh)
    left, right = (_eye(p, index) for index in (0, 1))
    return {
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "smile": _smile(p),
        "mouth_open": float(np.linalg.norm(p[13] - p[14])),
        "mouth_width": float(np.linalg.norm(p[61] - p[291])),
        "eyes_open": (left["open"] + right["open"]) / 2,
        "eyes_open_left": left["open"],
        "eyes_open_right": right["open"],
        "brow": float(p[[33, 133, 263, 362], 1].mean() - p[list(_BROWS), 1].mean()),
        "gaze_x": (left["x"] + right["x"]) / 2,
        "gaze_y": (left["y"] + right["y"]) / 2,
    }


def _smile(p: np.ndarray) -> float:
    """Sum what a smile does to the mouth's corners: they move apart, up, backwards, and above the middle of the lips."""
    corners, lips = p[[61, 291]].mean(0), p[[13, 14]].mean(0)
    seen = {"wide": abs(p[291, 0] - p[61, 0]), "high": -corners[1], "back": corners[2], "lifted": lips[1] - corners[1]}
    return float(sum(weight * (seen[name] - neutral) for name, (neutral, weight) in SMILE.items()))


def _eye(p: np.ndarray, index: int) -> dict[str, float]:
    """Return how open an eye of a frontal mesh is, and where its iris lies."""
    start, stop = p[list(_EYE_CORNERS[index])]
    width = max(float(np.linalg.norm(stop - start)), 1e-9)
    gap = np.mean([np.linalg.norm(p[upper] - p[lower]) for upper, lower in _LIDS[index]])
    off = (p[_IRISES[index]] - (start + stop) / 2) / width
    return {"open": float(gap) / width, "x": float(off[0]), "y": float(off[1])}

"""One head moved as another: pose and expression of a driving mesh, carried over to a portrait's mesh, and the warp that follows.

Pose and expression are told apart by the mean face (`measures.head`): a mesh is scale * turn @ frontal + shift. What changes in
the driver since one initial frame is added to the portrait: its turn and shift to the pose, the difference of the frontal meshes
to the expression. Then the photograph is warped as in `transfer`; what an opening mouth uncovers no warp can make: there the
driver's own mouth is shown, moved into place and brought to the portrait's colours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from limn.faces import transfer
from limn.faces.masks import smoothstep
from limn.faces.measures import head
from limn.faces.steady import OneEuro
from limn.faces.track import EYES, LIDS_A, LIDS_B
from limn.faces.transfer import EYE_A, EYE_B, GRID, INNER_LIPS, Change
from limn.models.perception.limn_mesh import LEFT_IRIS, LIPS, RIGHT_IRIS

FARTHEST = 0.6  # distances between the irises that a head may move from its place in the photograph
TURN, SHRINK = 28.0, 0.15  # degrees that it may turn, and the share by which it may grow or shrink
SLIT = 0.06  # of its opening that a shut eye keeps: the lashes
LOW = 0.2  # how far below its points the mesh's lower lid lies, in openings of the eye
FOLD = 1.3  # how far above the lid, in openings of the eye, its skin is stretched
# upper and lower points of the inner lips
MOUTH = ((191, 95), (80, 88), (81, 178), (82, 87), (13, 14), (312, 317), (311, 402), (310, 318), (415, 324))
CHIN = (152, 148, 176, 149, 377, 400, 378, 175, 199, 200, 18, 83, 313, 201, 421, 208, 428, 194, 418, 32, 262, 140, 369, 171, 396)
BROWS = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107, 276, 283, 282, 295, 285, 300, 293, 334, 296, 336)


@dataclass
class Smooth:
    """Filters of what moves together, so that a talking mouth does not loosen a still brow."""

    groups: dict[str, tuple[np.ndarray, OneEuro]] = field(default_factory=dict)
    turn: OneEuro = field(default_factory=lambda: OneEuro(1.0, 3.0))
    blink: OneEuro = field(default_factory=lambda: OneEuro(6.0, 20.0))
    place: OneEuro = field(default_factory=lambda: OneEuro(1.0, 3.0))

    def __post_init__(self) -> None:
        named = {"mouth": (*LIPS, *CHIN), "lids": (*EYE_A, *EYE_B, *range(LEFT_IRIS, 478)), "brows": BROWS}
        quick = {"mouth": (4.0, 20.0), "lids": (2.5, 20.0), "brows": (1.2, 8.0), "rest": (1.2, 8.0)}
        rest = sorted(set(range(478)) - {index for rows in named.values() for index in rows})
        for name, rows in {**named, "rest": tuple(rest)}.items():
            self.groups[name] = (np.array(sorted(set(rows))), OneEuro(*quick[name]))

    def expression(self, change: np.ndarray, seconds: float) -> np.ndarray:
        """Return a change (478, 3), in distances between the irises, without jitter."""
        smooth = np.array(change, np.float64)
        for rows, euro in self.groups.values():
            smooth[rows] = euro(change[rows], seconds)
        return smooth


class Driver:
    """Gives a portrait's mesh (478, 3), in pixels of the photo, the movement of a driving one since an `initial` mesh."""

    def __init__(self, own: np.ndarray, initial: np.ndarray, absolute: bool = False) -> None:
        self.own, self.stand = np.asarray(own, np.float64), head(own)
        self.face = self.frontal(self.own)
        self.first, self.start = np.asarray(initial, np.float64), head(initial)
        self.rest, self.absolute, self.smooth = self.frontal(self.first), absolute, Smooth()
        self.lids, self.shut = np.maximum(gaps(self.rest), 1e-3), 0.0

    @staticmethod
    def frontal(mesh: np.ndarray) -> np.ndarray:
        """Return a mesh turned to frontal, in distances between the irises of the mean face."""
        stand = head(mesh)
        return (mesh - stand.shift) @ stand.turn / max(stand.scale, 1e-9)

    def __call__(self, mesh: np.ndarray, seconds: float) -> np.ndarray:
        """Return the portrait's mesh (478, 3) as the driving mesh of this moment has it."""
        mesh = np.asarray(mesh, np.float64)
        stand = head(mesh)
        change = self.smooth.expression(self.frontal(mesh) - (self.face if self.absolute else self.rest), seconds)
        if not self.absolute:
            change = self.awake(change, mesh, seconds)
        shape = apart(self.face + change)
        turn = stand.turn if self.absolute else stand.turn @ self.start.turn.T @ self.stand.turn
        size = stand.scale / self.start.scale
        away = (stand.shift - self.start.shift) / self.start.scale
        turn, size, away = self.bounded(turn, size, away, seconds)
        return self.stand.scale * size * shape @ turn.T + self.stand.shift + self.stand.scale * away

    def awake(self, change: np.ndarray, mesh: np.ndarray, seconds: float) -> np.ndarray:
        """Leave lids and irises where they are, and note how far the driver's eyes are `shut`: no spline closes an eye, see `blink`."""
        shut = 1 - float((gaps(self.frontal(mesh)) / self.lids).mean())
        self.shut = float(np.clip(self.smooth.blink(np.array([shut]), seconds)[0], 0, 1))
        change = change.copy()
        change[[*EYE_A, *EYE_B, *range(LEFT_IRIS, 478)]] = 0
        return change

    def bounded(self, turn: np.ndarray, size: float, away: np.ndarray, seconds: float) -> tuple[np.ndarray, float, np.ndarray]:
        """Keep a pose steady and near the photograph's: one picture does not show the side of a head."""
        vector = cv2.Rodrigues(turn @ self.stand.turn.T)[0][:, 0]
        vector = self.smooth.turn(vector * soft(float(np.linalg.norm(vector)), np.deg2rad(TURN)), seconds)
        away = away * soft(float(np.linalg.norm(away)), FARTHEST)
        place = self.smooth.place(np.append(away, np.clip(np.log(size), -SHRINK, SHRINK)), seconds)
        return cv2.Rodrigues(vector)[0] @ self.stand.turn, float(np.exp(place[3])), place[:3]


def soft(length: float, most: float) -> float:
    """Return the factor that keeps a length below `most`, almost 1 while it is small."""
    return most * float(np.tanh(length / most)) / length if length > 1e-9 else 1.0


def gaps(face: np.ndarray) -> np.ndarray:
    """Return how far the lids of both eyes of a frontal mesh are open."""
    return np.array([np.mean([face[b, 1] - face[a, 1] for a, b in pairs]) for pairs in (LIDS_A, LIDS_B)])


def apart(face: np.ndarray) -> np.ndarray:
    """Let lids and lips of a frontal mesh touch, but not cross."""
    face = face.copy()
    for upper, lower in (*LIDS_A, *LIDS_B, *MOUTH):
        if face[upper, 1] > face[lower, 1]:
            face[[upper, lower], 1] = (face[upper, 1] + face[lower, 1]) / 2
    return face


def change(photo: np.ndarray, own: np.ndarray, target: np.ndarray, driver: np.ndarray, seen: np.ndarray, shut: float = 0.0) -> Change:
    """Describe what moves an aligned photo (GRID, GRID, 3), in levels of 255, from the mesh `own` to `target`.

    Meshes (478, 2) are in crop sides; `driver` is that of the driving crop `seen`, which lends the inside of the mouth.
    `shut` is how far the eyes are.
    """
    mask = transfer.face_mask(own, target)
    fields = transfer.spread(target, np.concatenate([own - target, driver - target], axis=1), mask)
    flow = blink(transfer.unfold(fields[..., :2] * mask[..., None]), target, shut)
    weight = uncovered(own, target) * mask
    shown = np.zeros((GRID, GRID, 4), np.float32)
    if weight.any():
        lent = transfer.sample(seen, fields[..., 2:4])
        shown[..., :3] = matched(lent, transfer.sample(photo, flow), around(target))
        shown[..., 3] = weight
    return Change(flow, np.zeros((GRID, GRID, 3), np.float32), shown, mask)


def blink(flow: np.ndarray, target: np.ndarray, shut: float) -> np.ndarray:
    """Draw the upper lids of a mesh in crop sides down over the eyes: their skin is stretched, what is below is pressed together."""
    if shut < 0.02:
        return flow
    move: np.ndarray = np.zeros((GRID, GRID, 2), np.float32)
    rows, columns = np.mgrid[0:GRID, 0:GRID].astype(np.float32)
    for pairs, corners in EYES:
        points = target * GRID - 0.5
        ends = sorted(points[list(corners)].tolist())
        upper, lower = (lid(points[[pair[side] for pair in pairs]], ends, columns[0]) for side in (0, 1))
        lower = lower + LOW * (lower - upper)
        gap = np.maximum(lower - upper, 0.01)
        line, top = upper + (1 - SLIT) * shut * gap, upper - FOLD * gap
        above = top + (rows - top) * (upper - top) / (line - top)
        below = upper + (rows - line) * gap / np.maximum(lower - line, 0.01)
        inside = (rows > top) & (rows < lower) & (columns > ends[0][0]) & (columns < ends[1][0])
        move[..., 1] += np.where(inside, np.where(rows < line, above, below) - rows, 0) / GRID
    move = cv2.GaussianBlur(move, (0, 0), 0.6)
    return transfer.sample(flow, move) + move


def lid(points: np.ndarray, ends: list[list[float]], columns: np.ndarray) -> np.ndarray:
    """Return the row of a lid in every column, from its points between the corners of the eye."""
    through = np.array(sorted([*ends, *points.tolist()]))
    rows: np.ndarray = np.interp(columns, through[:, 0], through[:, 1]).astype(np.float32)
    return rows


def uncovered(own: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weigh (GRID, GRID) the inside of a mouth that opens: 0 while it is no more open than in the photograph."""
    ring = list(INNER_LIPS)
    width = max(float(np.linalg.norm(np.ptp(target[ring], axis=0))), 1e-6)
    less, more = (abs(float(cv2.contourArea(mesh[ring].astype(np.float32)))) / width**2 for mesh in (own, target))
    weight = np.zeros((GRID, GRID), np.float32)
    outline = [(target[ring] * GRID * 16 - 8).round().astype(np.int32)]
    lent = smoothstep((more - 1.5 * less - 0.006) / 0.02) * smoothstep((0.05 - less) / 0.03)  # an open mouth has its own inside
    cv2.fillPoly(weight, outline, float(lent), lineType=cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(weight, (0, 0), 0.005 * GRID)


def around(mesh: np.ndarray) -> np.ndarray:
    """Return a mask (GRID, GRID) of the skin about the mouth."""
    mask = np.zeros((GRID, GRID), np.uint8)
    for rows, value in ((CHIN + LIPS, 1), (LIPS, 0)):
        outline = cv2.convexHull((mesh[list(rows)] * GRID - 0.5).astype(np.float32)).round().astype(np.int32)
        cv2.fillConvexPoly(mask, outline, value)
    return mask.astype(np.float32)


def matched(lent: np.ndarray, photo: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Give lent pixels the light of the photo, as the skin under the mask `where` has it in both."""
    weight = where[..., None] / max(float(where.sum()), 1e-6)
    gain = np.clip((photo * weight).sum((0, 1)) / np.maximum((lent * weight).sum((0, 1)), 4), 0.4, 2.5)
    lit = lent * gain
    grey = np.asarray(photo).std(-1).mean() < transfer.GREY
    return np.repeat(lit.mean(-1, keepdims=True), 3, -1) if grey else lit


def on_grid(picture: Image.Image) -> np.ndarray:
    """Return an aligned picture as (GRID, GRID, 3) in levels of 255."""
    return np.asarray(picture.convert("RGB").resize((GRID, GRID), Image.Resampling.BICUBIC), np.float32)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far two meshes differ in expression and pose: 0 for the same; distances between the irises, a radian counting 1."""
    shape = Driver.frontal(np.asarray(one, np.float64)) - Driver.frontal(np.asarray(other, np.float64))
    telling = list({*LIPS, *EYE_A, *EYE_B, *BROWS} - {LEFT_IRIS, RIGHT_IRIS})
    turn = cv2.Rodrigues(head(one).turn @ head(other).turn.T)[0]
    return float(np.sqrt(np.square(shape[telling, :2]).sum(1).mean()) * 3 + np.linalg.norm(turn))

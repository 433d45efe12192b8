"""One face through the frames of a clip: the same one, and without jitter.

Casiez, Roussel, Vogel: 1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems. CHI 2012: what hardly moves
is smoothed strongly, what moves fast hardly, so that nothing lags behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from limn.faces.face import Face
from limn.faces.transfer import Change

STILL = 1.2  # hertz: the cutoff for what does not move
QUICK = 4.0  # hertz that the cutoff rises per face size and second of speed
SPEED = 1.0  # hertz: the cutoff of the speed itself
REACH = 0.6  # of a face's size: how far its centre may move between two frames, and more the longer it was out of sight
PATIENCE = 1.0  # seconds out of sight after which a face is looked for by its identity alone
ALIKE = 0.35  # cosine similarity above which a face is taken for the one that was lost


class OneEuro:
    """Smooths arrays of one shape that come with their times; `unit` is the length in which speed is counted."""

    def __init__(self, still: float = STILL, quick: float = QUICK) -> None:
        self.still, self.quick = still, quick
        self.value: np.ndarray | None = None
        self.speed: np.ndarray | float = 0.0
        self.time = 0.0

    def __call__(self, value: np.ndarray, seconds: float, unit: float = 1.0) -> np.ndarray:
        value = np.asarray(value, np.float64)
        passed = seconds - self.time
        if self.value is None or passed <= 0:
            self.value, self.time = (value if self.value is None else self.value), seconds
            return self.value
        speed = (value - self.value) / (passed * unit)
        self.speed = self.speed + _share(SPEED, passed) * (speed - self.speed)
        cutoff = self.still + self.quick * float(np.sqrt(np.mean(np.square(self.speed))))
        self.value, self.time = self.value + _share(cutoff, passed) * (value - self.value), seconds
        return self.value


def _share(cutoff: float, passed: float) -> float:
    """Return how much of a step a first-order low-pass filter lets through."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * passed))


class Follower:
    """Finds one face again in every frame, by where it was, or by who it is (`likeness` of a face, a cosine), and steadies its points."""

    def __init__(self, likeness: Callable[[Face], float] | None = None) -> None:
        self.likeness, self.time = likeness, 0.0
        self.last: Face | None = None
        self.points, self.mesh = OneEuro(), OneEuro()

    def find(self, faces: Sequence[Face], seconds: float) -> Face | None:
        """Return the face of this frame with steady points and mesh; None where it is not among them."""
        found = self._nearest(faces, seconds - self.time) if self.last is not None else next(iter(faces), None)
        if found is None:
            return None
        if self.last is None or seconds - self.time > PATIENCE:
            self.points, self.mesh = OneEuro(), OneEuro()
        self.last, self.time = found, seconds
        unit = max(found.size, 1.0)
        points = self.points(found.points, seconds, unit).astype(np.float32)
        if found.mesh is None:
            return replace(found, points=points)
        return replace(found, points=points, mesh=self.mesh(found.mesh, seconds, unit).astype(np.float32))

    def _nearest(self, faces: Sequence[Face], away: float) -> Face | None:
        assert self.last is not None
        if away > PATIENCE:
            return self._alike(faces)
        size, centre = max(self.last.size, 1.0), self.last.points.mean(0)
        reach = REACH * (1 + 4 * max(away, 0.0))
        distance = {
            index: float(np.linalg.norm(face.points.mean(0) - centre)) / size + abs(float(np.log(max(face.size, 1.0) / size)))
            for index, face in enumerate(faces)
        }
        near = min(distance, key=distance.__getitem__, default=None)
        return faces[near] if near is not None and distance[near] < reach else None

    def _alike(self, faces: Sequence[Face]) -> Face | None:
        if self.likeness is None:
            return next(iter(faces), None)
        known = [(self.likeness(face), face) for face in faces]
        best, face = max(known, key=lambda pair: pair[0], default=(0.0, None))
        return face if best > ALIKE else None


class SteadyChange:
    """Smooths what a model changes from frame to frame, on the grid that goes with the face."""

    def __init__(self, still: float = 1.5, quick: float = 2.0) -> None:
        self.filters = {name: OneEuro(still, quick) for name in ("flow", "colour")}

    def __call__(self, change: Change, seconds: float) -> Change:
        flow = self.filters["flow"](change.flow, seconds, 0.2)
        colour = self.filters["colour"](change.colour, seconds, 60.0)
        return replace(change, flow=flow.astype(np.float32), colour=colour.astype(np.float32))

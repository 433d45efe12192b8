"""Scenes with faces for a detector: labelled portraits, composed anew for every batch.

A scene file (`scenes.zip`: pictures and `labels.csv` with a box and five points per picture) holds one face per picture, upright
and in the middle. Here faces are cut out, turned, scaled and pasted, several into one picture, on backgrounds that hold no face,
then spoilt as photographs are. `portraits128.zip` and `portraits128-mesh.npz` in the same folder are used too where they are.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from limn.errors import TrainingError
from limn.models.perception.limn_detector import FLIPPED
from limn.training.datasets.spoil import blurred, lit, spoilt

FREE = ("CC BY 3.0", "public domain")  # the licences whose pictures train; all others are held out
SCENES_SHARE = 3  # how often a scene is drawn for each time that a portrait is
MOST_FACES = 20  # rows of labels per picture
SMALLEST, LARGEST = 14.0, 220.0  # height of the faces' boxes, pixels
FAINTEST = 8.0  # standard deviation of a face's smoothed grey values (0..255) below which nobody could see it
FACELESS = 0.12  # share of the larger faces that are wiped away: heads without a face, with ears, hair, collars and ties
OLD_BOX = (29.7, 23.6, 98.4, 117.9)  # of a portrait without a mesh: the mean over those that have one
# Five points of the mesh topology, and how far the labels of the scenes lie from them on average, pixels of the 128 crop
FIVE = ((33, 133, 159, 145), (263, 362, 386, 374), (1, 4), (61, 78), (291, 308))
FIVE_SHIFT = np.array([[-0.4, -0.2], [1.1, -0.45], [-0.08, 0.25], [0.16, 0.4], [0.06, 0.3]], np.float32)


@dataclass(frozen=True)
class Picture:
    """One labelled picture, RGB uint8, with its halves, quarters and eighths for scaling down without aliasing."""

    levels: tuple[np.ndarray, ...]
    box: np.ndarray  # (4,) x0, y0, x1, y1
    points: np.ndarray  # (5, 2)
    trust: float  # weight of the points: 1 labelled, less where derived, 0 unknown
    name: str


@dataclass(frozen=True)
class Scenes:
    """A dataset of the training loop: `batch` depends on nothing but its arguments."""

    pictures: tuple[Picture, ...]
    size: int  # pixels of the square pictures that are composed

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return `image` (N, 3, S, S), `boxes` (N, G, 4), `points` (N, G, 10) in pixels, `trust` (N, G) of the points, and
        `kind` (N, G): 1 a face, -1 a face too small or hidden to count, 0 an empty row."""
        rows = [self.compose(np.random.default_rng([seed, step, index])) for index in range(size)]
        image = torch.from_numpy(np.stack([row[0] for row in rows])).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        labels = torch.from_numpy(np.stack([row[1] for row in rows]))
        return {"image": image, "boxes": labels[..., :4], "points": labels[..., 4:14], "trust": labels[..., 14], "kind": labels[..., 15]}

    def compose(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return one picture (S, S, 3) uint8 and its labels (MOST_FACES, 16): box, points, trust, kind."""
        canvas = _background(self._any(rng), self.size, rng)
        owner = np.zeros((self.size, self.size), np.uint8)  # whose pixel it is: 0 background, else the number of the face
        labels: list[np.ndarray] = []
        for centre, height in _layout(self.size, rng):
            labels.append(_paste(canvas, owner, self._any(rng), _Place(np.array(centre), height, len(labels) + 1), rng))
        rows = np.zeros((MOST_FACES, 16), np.float32)
        for number, label in enumerate(labels, start=1):
            rows[number - 1] = label
            rows[number - 1, 15] = _kind(label, owner == number)
            if rows[number - 1, 15] > 0 and label[3] - label[1] > 32 and rng.random() < FACELESS:
                _unface(canvas, label[:4])
                rows[number - 1, 15] = 0
        if rng.random() < 0.7:
            _litter(canvas, rows, rng)
        _occlude(canvas, rows, rng)
        canvas = spoilt(canvas, rng)
        _excuse(canvas, rows)
        return canvas, rows

    def _any(self, rng: np.random.Generator) -> Picture:
        return self.pictures[int(rng.integers(len(self.pictures)))]


def open(path: str | Path, config: Any, train: bool = True, size: int = 0) -> Scenes:
    """Open a folder that holds `scenes.zip` (and perhaps `portraits128.zip`), or the zip itself, and decode every picture.

    `size`, or else `config.size`, is the side of the composed pictures. With `train` the pictures under a free licence, else the others.
    """
    source = Path(path)
    source = source / "scenes.zip" if source.is_dir() else source
    if not source.is_file():
        raise TrainingError(f"{source}: no such file; give the folder that holds scenes.zip, or the file")
    pictures = list(read_scenes(source, free=train))
    if train and (source.parent / "portraits128.zip").is_file():
        pictures = pictures * SCENES_SHARE + list(read_portraits(source.parent))
    if not pictures:
        raise TrainingError(f"{source}: no pictures {'under ' + ' or '.join(FREE) if train else 'held out'} in labels.csv")
    return Scenes(tuple(pictures), size or config.size)


def read_scenes(source: Path, free: bool) -> Iterator[Picture]:
    """Yield the labelled pictures of `scenes.zip` whose licence is free, or those whose licence is not."""
    with zipfile.ZipFile(source) as archive:
        for row in csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")):
            if (row["licence"] in FREE) != free:
                continue
            x, y, w, h = (float(row[key]) for key in ("bx", "by", "bw", "bh"))
            points = np.array([float(row[f"l{index}"]) for index in range(10)], np.float32).reshape(5, 2)
            picture = decoded(archive, f"images/{row['file']}")
            yield Picture(_levels(picture), np.array([x, y, x + w, y + h], np.float32), points, 1.0, row["file"])


def read_portraits(folder: Path) -> Iterator[Picture]:
    """Yield the aligned portraits of a folder: those with a mesh have derived points, the others a mean box only."""
    meshes = {}
    if (folder / "portraits128-mesh.npz").is_file():
        with np.load(folder / "portraits128-mesh.npz") as arrays:
            meshes = dict(zip(arrays["names"].tolist(), arrays["points_x8"][:, :, :2].astype(np.float32) / 8, strict=True))
    with zipfile.ZipFile(folder / "portraits128.zip") as archive:
        for row in csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")):
            mesh = meshes.get(row["file"])
            picture = decoded(archive, f"images/{row['file']}")
            box, points = (np.array(OLD_BOX, np.float32), np.zeros((5, 2), np.float32)) if mesh is None else from_mesh(mesh)
            yield Picture(_levels(picture), box, points, 0.0 if mesh is None else 0.25, row["file"])


def decoded(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Decode one picture of a zip to RGB uint8; TrainingError names a file that is not a picture."""
    try:
        picture = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
    except KeyError as error:
        raise TrainingError(f"{archive.filename}: labels.csv names {name}, which is not in the archive") from error
    if picture is None:
        raise TrainingError(f"{archive.filename}: {name} is not a picture that can be decoded")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _levels(picture: np.ndarray) -> tuple[np.ndarray, ...]:
    levels = [picture]
    for _ in range(3):
        height, width = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA))
    return tuple(levels)


def from_mesh(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the box (4,) and the five points (5, 2) that go with the x and y of a mesh (478, 2) of a 128-pixel portrait."""
    low, high = mesh.min(0), mesh.max(0)
    box = np.array([low[0] + 1.1, low[1] - 11.7, high[0], high[1] - 0.3], np.float32)  # as the scenes' boxes lie around the mesh
    return box, np.stack([mesh[list(index)].mean(0) for index in FIVE]) + FIVE_SHIFT


def _layout(size: int, rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """Where faces go and how high they are: one so near that only parts of it are seen, one, some anywhere, or rows of a group."""
    style = rng.choice(4, p=(0.06, 0.28, 0.38, 0.28))
    if style == 0:
        return [((rng.uniform(0, size), rng.uniform(0, size)), float(rng.uniform(1.3, 4.0) * size))]
    if style == 1:
        height = float(np.exp(rng.uniform(np.log(40), np.log(LARGEST))))
        slack = max(size * 0.5 - height * 0.4, 0)
        return [((size / 2 + rng.uniform(-slack, slack), size / 2 + rng.uniform(-slack, slack)), height)]
    if style == 2:
        heights = np.exp(rng.uniform(np.log(SMALLEST * 0.8), np.log(120), int(rng.integers(2, 10))))
        return [((rng.uniform(0, size), rng.uniform(0, size)), float(h)) for h in np.sort(heights)]  # the nearer hide the farther
    columns, rows = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    height = min(size / columns, size / rows) * rng.uniform(0.35, 0.9)
    jitter = rng.uniform(-0.25, 0.25, (rows, columns, 2)) * size / columns
    return [
        (((c + 0.5) * size / columns + jitter[r, c, 0], (r + 0.5) * size / rows + jitter[r, c, 1]), float(height * rng.uniform(0.8, 1.25)))
        for r in range(rows)
        for c in range(columns)
    ]


@dataclass(frozen=True)
class _Place:
    """Where a face goes: the middle and height of its box in pixels, and its number in the map of owners."""

    centre: np.ndarray
    height: float
    number: int


@dataclass(frozen=True)
class _Turn:
    """How it is laid: enlarged, turned by an angle in radians, mirrored, made wider or narrower."""

    scale: float
    angle: float
    flip: bool
    stretch: float


def _paste(canvas: np.ndarray, owner: np.ndarray, picture: Picture, place: _Place, rng: np.random.Generator) -> np.ndarray:
    """Paste one picture so that its face fills its place; return its label row."""
    scale = max(place.height, SMALLEST / 2) / float(picture.box[3] - picture.box[1])
    flip, angle = bool(rng.random() < 0.5), float(np.deg2rad(np.clip(rng.normal(0, 13), -40, 40)))
    turn = _Turn(scale, angle, flip, float(np.exp(rng.normal(0, 0.05))))
    matrix = _similarity(picture.box, place.centre, turn)
    level = int(np.clip(np.floor(np.log2(1 / scale)), 0, len(picture.levels) - 1))
    source = picture.levels[level]
    used = matrix @ np.diag([2.0**level, 2.0**level, 1.0])
    corners = _moved(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * [source.shape[1], source.shape[0]], used)
    low = np.clip(np.floor(corners.min(0)).astype(int), 0, canvas.shape[0])
    high = np.clip(np.ceil(corners.max(0)).astype(int), 0, canvas.shape[0])
    if (high > low).all():
        used[:, 2] -= low
        area = (int(high[0] - low[0]), int(high[1] - low[1]))
        mask = cv2.warpAffine(_mask(source.shape[:2], picture.box / 2**level, rng), used, area)
        patch = cv2.warpAffine(lit(source, rng) if rng.random() < 0.5 else source, used, area, borderMode=cv2.BORDER_REPLICATE)
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        weight = (mask.astype(np.float32) / 255)[..., None]
        canvas[window] = (canvas[window] * (1 - weight) + patch * weight).astype(np.uint8)
        owner[window][mask > 127] = place.number
    return _label(picture, matrix, turn)


def _similarity(box: np.ndarray, centre: np.ndarray, turn: _Turn) -> np.ndarray:
    """Return the 2x3 matrix that takes the middle of the box to the centre."""
    cos, sin = np.cos(turn.angle) * turn.scale, np.sin(turn.angle) * turn.scale
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-turn.stretch if turn.flip else turn.stretch, 1.0])
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    return np.concatenate([linear, (centre - linear @ middle)[:, None]], 1)


def _label(picture: Picture, matrix: np.ndarray, turn: _Turn) -> np.ndarray:
    low, high = picture.box[:2], picture.box[2:]
    centre = _moved((low + high)[None] / 2, matrix)[0]
    half = (high - low) / 2 * [turn.stretch * turn.scale, turn.scale]
    cos, sin = np.cos(turn.angle), np.sin(turn.angle)
    half = np.array([np.hypot(half[0] * cos, half[1] * sin), np.hypot(half[0] * sin, half[1] * cos)])  # of the turned ellipse
    points = _moved(picture.points, matrix)
    points = points[list(FLIPPED)] if turn.flip else points
    return np.concatenate([centre - half, centre + half, points.reshape(-1), [picture.trust, 1.0]]).astype(np.float32)


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _mask(shape: tuple[int, int], box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole rectangle of a picture, or its head and shoulders with a soft edge, so that backgrounds change."""
    style = rng.random()
    if style < 0.4:
        return np.full(shape, 255, np.uint8)
    mask = np.zeros(shape, np.uint8)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = box[2] - box[0], box[3] - box[1]
    grow = rng.uniform(0.62, 1.0)
    cv2.ellipse(mask, ((float(x), float(y - 0.05 * h)), (float(2 * w * grow), float(1.75 * h * grow)), 0.0), 255, -1)
    if style < 0.75:  # shoulders
        top = int(y + 0.6 * h)
        cv2.ellipse(mask, ((float(x), float(top + 0.9 * h)), (float(w * 3.0), float(h * 2.0)), 0.0), 255, -1)
    return cv2.blur(mask, (3, 3)) if min(shape) < 64 else cv2.blur(mask, (7, 7))


def _kind(label: np.ndarray, owned: np.ndarray) -> float:
    """1 where enough of a face is to be seen, -1 where one should not be asked, 0 where it is gone."""
    box = np.round(label[:4]).astype(int)
    area = max((box[2] - box[0]) * (box[3] - box[1]), 1)
    low, high = np.clip(box[:2], 0, None), np.clip(box[2:], 0, None)
    seen = owned[low[1] : high[1], low[0] : high[0]].sum() / area
    if seen < 0.2:
        return 0.0
    return 1.0 if seen > 0.55 and label[3] - label[1] >= SMALLEST else -1.0


def _excuse(canvas: np.ndarray, rows: np.ndarray) -> None:
    """Do not ask for faces that the dark or the haze has swallowed: to demand them is to see faces in every shadow."""
    for row in (rows[index] for index in np.flatnonzero(rows[:, 15] > 0)):
        low, high = np.clip(row[:2], 0, None).astype(int), np.clip(row[2:4], 0, None).astype(int)
        face = cv2.resize(canvas[low[1] : high[1], low[0] : high[0], 1], (9, 12), interpolation=cv2.INTER_AREA)  # the means of noise
        if face.std() < FAINTEST:
            row[15] = -1


def _background(picture: Picture, size: int, rng: np.random.Generator) -> np.ndarray:
    """A picture without a face: pieces of a portrait out of order, a smooth gradient, clouds, edges."""
    style = rng.random()
    if style < 0.45:
        repeats = int(rng.integers(1, 5))
        tile = np.tile(picture.levels[min(repeats - 1, 1)], (repeats, repeats, 1))
        canvas = _shuffled(cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA), repeats, rng)
    elif style < 0.75:
        cells = int(rng.choice((2, 3, 5, 9, 17, 33, 65, 129)))
        canvas = cv2.resize(rng.integers(0, 256, (cells, cells, 3), np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    else:
        corners = rng.integers(0, 256, (2, 2, 3), np.uint8)
        canvas = cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        _scribble(canvas, int(rng.integers(3, 25)), size / 3, rng)
    return np.ascontiguousarray(blurred(canvas, rng) if rng.random() < 0.3 else canvas)


def _shuffled(picture: np.ndarray, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a picture into squares and lay them out of order and turned, so that parts of faces are seen that are no face."""
    cells = int(rng.integers(3, 9)) * min(repeats, 3)
    side = picture.shape[0] // cells
    pieces = [picture[r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(cells) for c in range(cells)]
    order = rng.permutation(len(pieces))
    turns = rng.integers(0, 4, len(pieces))
    rows = [
        np.concatenate([np.rot90(pieces[order[r * cells + c]], int(turns[r * cells + c])) for c in range(cells)], 1) for r in range(cells)
    ]
    return cv2.resize(np.concatenate(rows, 0), picture.shape[:2], interpolation=cv2.INTER_LINEAR)


def _scribble(canvas: np.ndarray, strokes: int, largest: float, rng: np.random.Generator) -> None:
    """Draw lines, ellipses, rectangles, letters and stars of any colour: edges and round things that are no face."""
    size = canvas.shape[0]
    for _ in range(strokes):
        colour = _colour(rng)
        x, y = (int(v) for v in rng.integers(0, size, 2))
        w, h = (float(v) for v in np.exp(rng.uniform(np.log(3), np.log(largest), 2)))
        angle, filled = float(rng.uniform(0, 180)), bool(rng.random() < 0.6)
        thickness = int(rng.integers(1, 5))
        shape = rng.integers(5)
        if shape == 0:
            cv2.line(canvas, (x, y), (int(x + w * np.cos(angle)), int(y + h * np.sin(angle))), colour, thickness, cv2.LINE_AA)
        elif shape == 1:
            cv2.ellipse(canvas, ((float(x), float(y)), (w, (w + h) / 2), angle), colour, -1 if filled else thickness, cv2.LINE_AA)
        elif shape == 2:
            cv2.rectangle(canvas, (x, y), (int(x + w), int(y + h)), colour, -1 if filled else thickness)
        elif shape == 3:
            text = "".join(chr(int(code)) for code in rng.integers(48, 91, int(rng.integers(1, 5))))
            cv2.putText(canvas, text, (x, y), int(rng.integers(0, 8)), h / 22, colour, thickness, cv2.LINE_AA)
        else:
            spokes = np.arange(2 * int(rng.integers(3, 7)))
            turns = spokes * (2 * np.pi / len(spokes)) + angle
            reach = np.where(spokes % 2 == 0, w, w * rng.uniform(0.2, 0.8))[:, None] / 2
            cv2.fillPoly(canvas, [(reach * np.stack([np.cos(turns), np.sin(turns)], 1) + [x, y]).astype(np.int32)], colour, cv2.LINE_AA)


def _litter(canvas: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> None:
    """Strew badges, buttons, knots and lines over all but the faces: small round things with dark spots are what fools detectors."""
    clean = canvas.copy()
    strokes, largest = int(rng.integers(5, 60)), float(rng.uniform(8, 40))
    _scribble(canvas, strokes, largest, rng)
    for x, y in rng.integers(0, canvas.shape[0], (strokes // 4, 2)):  # rings with spots in them
        w = float(rng.uniform(5, largest))
        cv2.ellipse(canvas, ((float(x), float(y)), (w, w * rng.uniform(0.7, 1.4)), 0.0), _colour(rng), -1, cv2.LINE_AA)
        for spot in rng.uniform(-0.35, 0.35, (int(rng.integers(1, 6)), 2)) * w + [x, y]:
            cv2.circle(canvas, (int(spot[0]), int(spot[1])), max(int(w * rng.uniform(0.03, 0.15)), 1), _colour(rng), -1, cv2.LINE_AA)
    for row in rows[rows[:, 15] != 0]:
        low, high = np.clip(row[:2], 0, None).astype(int), np.clip(row[2:4], 0, None).astype(int)
        canvas[low[1] : high[1], low[0] : high[0]] = clean[low[1] : high[1], low[0] : high[0]]


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(0, 256, 3))


def _unface(canvas: np.ndarray, box: np.ndarray) -> None:
    """Smear a face until nothing is left but its colour."""
    low, high = np.clip(box[:2], 0, None).astype(int), np.clip(box[2:], 0, None).astype(int)
    window = canvas[low[1] : high[1], low[0] : high[0]]
    smeared = cv2.GaussianBlur(window, (0, 0), float(box[3] - box[1]) / 4)
    mask = np.zeros(window.shape[:2], np.uint8)
    middle, axes = (box[:2] + box[2:]) / 2 - low, (box[2:] - box[:2]) * [1.0, 0.95]
    cv2.ellipse(mask, (tuple(map(float, middle)), tuple(map(float, axes)), 0.0), 255, -1)
    weight = cv2.blur(mask, (7, 7)).astype(np.float32)[..., None] / 255
    window[:] = (window * (1 - weight) + smeared * weight).astype(np.uint8)


def _occlude(canvas: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> None:
    """Put dark glasses, a mask, a hand-sized blob or a bar before some faces; they stay labelled."""
    for row in rows[rows[:, 15] > 0]:
        if rng.random() > 0.15 or row[3] - row[1] < 16:
            continue
        size = row[2:4] - row[:2]
        colour = _colour(rng)
        style = rng.integers(3)
        if style == 0 and row[14] > 0:  # glasses
            for eye in (row[4:6], row[6:8]):
                cv2.ellipse(canvas, (tuple(map(float, eye)), (float(size[0] * 0.34), float(size[1] * 0.17)), 0.0), (20, 20, 25), -1)
        elif style == 1:  # over the mouth, from below
            top = int(row[3] - size[1] * rng.uniform(0.1, 0.35))
            cv2.rectangle(canvas, (int(row[0]), top), (int(row[2]), int(row[3])), colour, -1)
        else:
            x, y = row[:2] + size * rng.uniform(0, 1, 2)
            axes = (float(size[0] * rng.uniform(0.15, 0.5)), float(size[1] * rng.uniform(0.15, 0.5)))
            cv2.ellipse(canvas, ((float(x), float(y)), axes, float(rng.uniform(0, 180))), colour, -1)

"""How well the detector and the mesh in the box work: recall, precision, errors and times, on data they were not trained on.

    python benchmarks/faces.py DATA_DIR [--detector limn-detector] [--mesh limn-mesh] [--referee yunet_n_640_640.onnx]

DATA_DIR holds scenes.zip, portraits128.zip, portraits128-mesh.npz and photos/. Scenes under a free licence trained the detector,
the others (Labeled Faces in the Wild) test it; the mesh is tested on the people it was not shown. Background faces of a scene
are not labelled: a referee, OpenCV's FaceDetectorYN with a published YuNet file, says which of the surplus finds are faces.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from limn import weights
from limn.models.perception.limn_mesh import LEFT_LIDS, LIPS, RIGHT_LIDS
from limn.training.datasets import mesh as meshes
from limn.training.datasets import scenes

INTER_OCULAR = (468, 473)
LIDS = (*LEFT_LIDS, *RIGHT_LIDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--detector", default="limn-detector", help="name or file")
    parser.add_argument("--mesh", default="limn-mesh", help="name or file")
    parser.add_argument("--referee", type=Path, help="ONNX file of YuNet for OpenCV")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--only", choices=("scenes", "photos", "mesh", "time"), help="one part of it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore")
    detector = load(options.detector) if options.only != "mesh" else None
    mesh = load(options.mesh) if options.only in (None, "mesh", "time") else None
    parts = {
        "scenes": lambda: report_scenes(detector, options.data, options.threshold, options.referee),
        "photos": lambda: report_photos(detector, options.data, options.threshold),
        "mesh": lambda: report_mesh(mesh, options.data),
        "time": lambda: report_time(detector, mesh, options.data),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            part()


def load(name: str) -> Any:
    """Load a network and lay it out for the CPU."""
    return weights.load(name).model.eval().to(memory_format=torch.channels_last)


def report_scenes(detector: Any, data: Path, threshold: float, referee: Path | None) -> None:
    """Print recall, precision and five-point error on the held-out scenes."""
    pictures = scenes.read_scenes(data / "scenes.zip", free=False)
    judge = cv2.FaceDetectorYN.create(str(referee), "", (640, 640), 0.6) if referee else None
    labelled, hits, finds, surplus, confirmed = 0, 0, 0, 0, 0
    errors: list[float] = []
    missed: list[str] = []
    steady: list[tuple[float, float, float]] = []
    for number, picture in enumerate(pictures):
        found = detector.detect(tensor(picture.levels[0]), threshold).numpy()
        overlaps = iou(found[:, :4], picture.box) if len(found) else np.zeros(0)
        labelled, finds = labelled + 1, finds + len(found)
        if overlaps.max(initial=0) >= 0.5:
            hits += 1
            five = found[overlaps.argmax(), 5:].reshape(5, 2)
            errors.append(point_error(five, picture.points))
            if judge is not None and number % 5 == 0 and len(looks := ten_looks(judge, picture)):
                mean = looks.mean(0)
                steady.append((point_error(five, mean), point_error(mean, picture.points), point_error(looks[0], picture.points)))
        else:
            missed.append(picture.name)
        extra = [row for row, overlap in zip(found, overlaps, strict=True) if overlap < 0.5 or overlap < overlaps.max()]
        surplus += len(extra)
        if judge is not None and extra:
            seen = refereed(judge, picture.levels[0])
            confirmed += sum(bool(len(seen)) and iou(seen, row[:4]).max() >= 0.4 for row in extra)
    print(f"LFW scenes: {labelled} labelled faces, score >= {threshold:g}")
    print(f"  recall at IoU 0.5        {hits / labelled:.4f}   missed: {', '.join(missed) or 'none'}")
    print(f"  precision as labelled    {hits / max(finds, 1):.4f}   {surplus} finds without a label")
    if judge is not None:
        print(f"  precision with referee   {(hits + confirmed) / max(finds, 1):.4f}   YuNet sees a face in {confirmed} of them")
    middle, most = np.median(errors), np.quantile(errors, 0.95)
    print(f"  five-point error         {np.mean(errors):.2%} of the distance between the eyes (median {middle:.2%}, 95 % below {most:.2%})")
    if steady:
        ours, noise, single = np.mean(steady, 0)
        print(f"    YuNet made the labels; looking again it errs by {single:.2%} itself, the mean of ten of its looks by {noise:.2%};")
        print(f"    from that steadier mean ours lies {ours:.2%} ({len(steady)} pictures)")


def report_photos(detector: Any, data: Path, threshold: float) -> None:
    """Print how many faces are found in each photograph, and how many there are where that is known."""
    right = total = 0
    for row in csv.DictReader((data / "photos" / "PROVENANCE.csv").open(encoding="utf-8")):
        group = re.search(r"GROUP ?(\d*)", row["tags"])
        wanted = (int(group[1]) if group[1] else None) if group else 1
        found = len(detector.detect(tensor(read(data / "photos" / row["file"])), threshold))
        if wanted is not None:
            right, total = right + (found == wanted), total + 1
        if wanted != found:
            print(f"  {row['file']:40s} {found} found, {wanted if wanted is not None else 'several'} there")
    print(f"photos: {right} of {total} with as many faces found as there are; the others above")


def report_mesh(mesh: Any, data: Path) -> None:
    """Print errors of the mesh on people it was not shown: in the given crops, and in crops that a detector misplaced."""
    held = meshes.open(data, SimpleNamespace(size=128), train=False)
    print(f"mesh: {len(held)} portraits of {len(set(held.identities))} people not trained on, error / distance between the eyes")
    for label, strength in (("given crops", 0.0), ("crops misplaced by 6 %", 0.06)):
        pairs = [
            misplaced(p, q, strength, np.random.default_rng(i)) for i, (p, q) in enumerate(zip(held.pictures, held.points, strict=True))
        ]
        images = torch.cat([tensor(picture) for picture, _ in pairs])
        found = torch.cat([mesh.landmarks(batch) for batch in images.split(32)]).numpy()
        points = np.stack([q for _, q in pairs])
        span = np.linalg.norm(points[:, INTER_OCULAR[0], :2] - points[:, INTER_OCULAR[1], :2], axis=-1)[:, None]
        flat = np.linalg.norm((found - points)[..., :2], axis=-1) / span
        solid, most = np.linalg.norm(found - points, axis=-1) / span, np.quantile(flat.mean(1), 0.95)
        print(f"  {label:24s} {flat.mean():.2%} in the picture ({solid.mean():.2%} with depth), 95 % of portraits below {most:.2%}")
        print(f"  {'':24s} lips {flat[:, list(LIPS)].mean():.2%}, lids {flat[:, list(LIDS)].mean():.2%}, irises {flat[:, 468:].mean():.2%}")


def report_time(detector: Any, mesh: Any, data: Path) -> None:
    """Print milliseconds of processor time on one thread, which a busy machine does not falsify: the median of 30."""
    photo = tensor(cv2.resize(read(data / "photos" / "group_wh_obama_biden.jpg"), (640, 480), interpolation=cv2.INTER_AREA))
    crop = torch.zeros(1, 3, 128, 128)
    times = clocked(lambda: detector.detect(photo, 0.5)), clocked(lambda: mesh.landmarks(crop))
    print(f"one CPU thread: detector, one picture of 640x480 {times[0]:.1f} ms; mesh, one crop {times[1]:.1f} ms")


def clocked(function: Any) -> float:
    times = []
    for _ in range(33):
        begun = time.process_time()
        function()
        times.append((time.process_time() - begun) * 1e3)
    return statistics.median(times[3:])


def misplaced(picture: np.ndarray, points: np.ndarray, strength: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Align a crop anew from five points that err by `strength` of the distance between the eyes, as a detector's would."""
    if not strength:
        return picture, points
    five = np.stack([points[list(index), :2].mean(0) for index in scenes.FIVE])
    wrong = five + rng.normal(0, strength * np.linalg.norm(five[0] - five[1]) / np.sqrt(np.pi / 2), five.shape)  # mean distance: strength
    matrix, _ = cv2.estimateAffinePartial2D(wrong.astype(np.float32), five.astype(np.float32), method=cv2.LMEDS)
    size = picture.shape[0]
    moved = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return moved, np.concatenate([points[:, :2] @ matrix[:, :2].T + matrix[:, 2], points[:, 2:] * scale], 1)


def ten_looks(judge: Any, picture: scenes.Picture) -> np.ndarray:
    """Return the points (K, 5, 2) that YuNet gives the labelled face when it is shown at ten sizes and places."""
    rng, looks = np.random.default_rng(0), []
    judge.setInputSize((320, 320))
    for _ in range(10):
        factor, shift = rng.uniform(0.9, 1.5), rng.integers(0, 18)
        shown = cv2.warpAffine(picture.levels[0], np.array([[factor, 0, shift], [0, factor, shift]]), (320, 320))
        _, rows = judge.detect(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
        if rows is not None:
            boxes = (np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) - shift) / factor
            best = iou(boxes, picture.box).argmax()
            looks.append((rows[best, 4:14].reshape(5, 2) - shift) / factor)
    judge.setInputSize((640, 640))
    return np.array(looks)


def refereed(judge: Any, picture: np.ndarray) -> np.ndarray:
    """Return the boxes (K, 4) that YuNet sees in a picture shown at twice its size."""
    scale = 640 / max(picture.shape[:2]) * 0.75
    shown = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    shown = cv2.copyMakeBorder(shown, 0, 640 - shown.shape[0], 0, 640 - shown.shape[1], cv2.BORDER_CONSTANT)
    _, rows = judge.detect(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
    return np.zeros((0, 4)) if rows is None else np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) / scale


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    inner = np.clip(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None).prod(-1)
    return inner / ((boxes[:, 2:] - boxes[:, :2]).prod(-1) + (box[2:] - box[:2]).prod() - inner)


def point_error(found: np.ndarray, points: np.ndarray) -> float:
    return float(np.linalg.norm(found - points, axis=1).mean() / np.linalg.norm(points[0] - points[1]))


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


if __name__ == "__main__":
    main()

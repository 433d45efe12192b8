"""limn-parser: mean IoU on held-out portraits (against guesses), and on the painted photographs of FASSEG, which it never saw.

FASSEG's colours: hair includes the brows, skin the neck; clothes are background. The photographs are cut so tightly that the detector
needs a margin (half their height, replicated) to find the face; the crop itself is cut from the photograph, mirrored beyond it, and
only pixels of the photograph count.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from limn.faces import align, detect
from limn.faces.parse import members
from limn.training.datasets import parsing
from limn.weights import load

DATA = "."
PRESET = "portraits128"
OPTIONS = ("--warmup", "50")
FASSEG = {  # class -> its colour and what it is in our names
    "background": ((255, 0, 0), ("background", "clothes")),
    "hair": ((127, 0, 0), ("hair", "brows")),
    "skin": ((255, 255, 0), ("skin", "neck")),
    "eyes": ((0, 0, 255), ("eyes",)),
    "nose": ((0, 255, 255), ("nose",)),
    "mouth": ((0, 255, 0), ("mouth",)),
}
NOWHERE = 255  # the label of pixels beyond the photograph


def measure(model: Path, data: Path) -> dict[str, float]:
    """Return IoU in per cent: the mean over all classes on held-out people, and by class on FASSEG where it lies beside."""
    parser = load(model).model
    found = {"held_out": 100 * float(np.mean(list(held_out(parser, data).values())))}
    masks = data / "face-masks.zip"
    return found | ({f"fasseg_{name}": 100 * value for name, value in fasseg(parser, masks).items()} if masks.is_file() else {})


def held_out(parser: Any, data: Path, batch: int = 32) -> dict[str, float]:
    """Return the IoU of each class on the held-out portraits, where their guesses are sure by a half."""
    dataset, counts = parsing.open(data, parser.config, train=False), np.zeros((len(parser.classes), 2))
    for start in range(0, len(dataset), batch):
        rows = torch.from_numpy(dataset.store.take(np.arange(start, min(start + batch, len(dataset)))))
        images = rows[..., :3].permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            answer = parser.parse(images).argmax(1).numpy()
        counts += overlaps(answer, rows[..., 3].numpy(), len(counts), rows[..., 4].numpy() >= 128)
    return {name: float(both / max(either, 1)) for name, (both, either) in zip(parser.classes, counts, strict=True)}


def fasseg(parser: Any, archive: Path, share: str = "test/") -> dict[str, float]:
    """Return the IoU of each class of FASSEG on its photographs whose names begin with `share`."""
    number = np.zeros(len(parser.classes), np.int64)
    for index, (_, names) in enumerate(FASSEG.values()):
        for name in names:
            number[list(members(name, parser.classes))] = index
    counts = np.zeros((len(FASSEG), 2))
    for crop, wanted in painted(archive, share, parser.config.size):
        with torch.inference_mode():
            answer = parser.parse(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1).argmax(1)[0].numpy()
        counts += overlaps(number[answer], wanted, len(FASSEG), wanted != NOWHERE)
    return {name: float(both / max(either, 1)) for name, (both, either) in zip(FASSEG, counts, strict=True)}


def painted(archive: Path, share: str, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the aligned crops (size, size, 3) and their classes (size, size) of the photographs in which a face is found."""
    colours = np.array([colour for colour, _ in FASSEG.values()])
    with zipfile.ZipFile(archive) as file:
        for name in sorted(n for n in file.namelist() if n.startswith(share) and n.endswith(".jpg")):
            photo, drawn = (Image.open(io.BytesIO(file.read(n))).convert("RGB") for n in (name, name[:-3] + "png"))
            classes = np.square(np.asarray(drawn, int)[:, :, None] - colours).sum(-1).argmin(-1).astype(np.uint8)
            margin = photo.height // 2
            wide = cv2.copyMakeBorder(np.asarray(photo), *(margin,) * 4, cv2.BORDER_REPLICATE)
            faces = detect(Image.fromarray(wide))
            if not faces:
                continue
            crop, matrix = align(photo, replace(faces[0], points=faces[0].points - np.float32(margin), mesh=None), "ffhq", size)
            inside = {"flags": cv2.INTER_NEAREST, "borderMode": cv2.BORDER_CONSTANT, "borderValue": NOWHERE}
            yield np.asarray(crop), cv2.warpAffine(classes, matrix, (size, size), **inside)


def overlaps(answer: np.ndarray, wanted: np.ndarray, classes: int, counted: np.ndarray) -> np.ndarray:
    """Return the pixels in both and in either (classes, 2) of two maps of class numbers, among those that are counted."""
    pairs = np.bincount(answer[counted].astype(int) * classes + wanted[counted], minlength=classes**2).reshape(classes, classes)
    both = np.diag(pairs)
    return np.stack([both, pairs.sum(0) + pairs.sum(1) - both], 1)

"""Unpaired selections of one set, and portraits with label maps drawn from their meshes."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from limn.errors import InputError
from limn.faces.drawn import CLASSES
from limn.faces.masks import OVAL
from limn.training.datasets import open_dataset

SIZE = SimpleNamespace(size=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty grey pictures, of two eras: the old ones are dark."""
    at = tmp_path / "portraits"
    at.mkdir()
    with (at / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "era"])
        for number in range(60):
            rows.writerow([f"{number:02}.png", "old" if number % 3 else "new"])
            Image.new("RGB", (32, 32), (60,) * 3 if number % 3 else (200,) * 3).save(at / f"{number:02}.png")
    return at


def test_two_selections_of_one_set(folder: Path) -> None:
    data = open_dataset("unpaired", folder, SIZE, True, source_where=["era=new"], target_where=["era=old"])
    batch = data.batch(0, 8, 0)
    assert batch["source"].min() > 0.5 and batch["target"].max() < 0
    other = open_dataset("unpaired", folder, SIZE, True, source_where=["era=new"], target_where=["era=old"], swapped=True)
    assert other.batch(0, 8, 0)["target"].min() > 0.5
    with pytest.raises(InputError, match="two folders are expected"):
        open_dataset("unpaired", folder, SIZE)
    with pytest.raises(InputError, match="no picture fits era=lost"):
        open_dataset("unpaired", folder, SIZE, True, source_where=["era=lost"])


def test_label_maps_are_drawn_at_the_size_of_the_pictures(folder: Path) -> None:
    mesh = np.full((478, 3), (16.0, 8.0, 0.0))
    turn = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    mesh[list(OVAL), :2] = np.stack([15.5 + 10 * np.sin(turn), 15.5 - 12 * np.cos(turn)], 1)
    names = [f"{number:02}.png" for number in range(0, 60, 3)]  # the new ones
    np.savez(folder.with_name("portraits-mesh.npz"), names=names, points_x8=np.stack([mesh * 8] * len(names)).astype(np.int16))
    data = open_dataset("drawn", folder, SIZE)
    batch = data.batch(0, 4, 0)
    assert batch["image"].shape == (4, 3, 16, 16) and batch["mask"].shape == (4, 16, 16) and batch["image"].min() > 0.5
    assert CLASSES[int(batch["mask"][0, 8, 8])] == "skin" and CLASSES[int(batch["mask"][0, 0, 0])] == "background"
    assert abs(float((batch["mask"] > 0).float().mean()) - np.pi * 5 * 6 / 256) < 0.08
    with pytest.raises(InputError, match="none of the portraits"):
        open_dataset("drawn", folder, SIZE, True, where=["era=old"])


def test_without_meshes_the_file_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"portraits-mesh\.npz: no such file"):
        open_dataset("drawn", folder, SIZE)

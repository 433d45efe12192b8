"""A small set of portraits that anyone may use: samples of the generator in the box, with the mesh that the network in the box finds."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limn.models import system as find
from limn.models.records import Preset
from limn.tasks.train import train
from limn.training import page
from limn.weights import load

COUNT, SIDE = 32, 128


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with portraits128.zip, portraits128-mesh.npz and scenes.zip as the recipes name them; two per person."""
    folder = tmp_path_factory.mktemp("portraits")
    pictures, meshes = drawn()
    names = [f"{index:03}.png" for index in range(COUNT)]
    rows = [{"file": name, "identity": f"person {index // 2}", "era": "modern"} for index, name in enumerate(names)]
    packed(folder / "portraits128.zip", rows, dict(zip(names, pictures, strict=True)))
    np.savez(folder / "portraits128-mesh.npz", names=np.array(names), points_x8=(meshes * 8).round().astype(np.int16))
    rows = [{"file": name, "licence": "public domain", **labels(mesh)} for name, mesh in zip(names, meshes, strict=True)]
    packed(folder / "scenes.zip", rows, dict(zip(names, pictures, strict=True)))
    return folder


def drawn() -> tuple[list[Image.Image], np.ndarray]:
    """Return portraits of SIDE pixels and their meshes (COUNT, 478, 3)."""
    generator, mesh = load("limn-portraits64").model, load("limn-mesh").model
    with torch.inference_mode():
        w = generator.mapping(torch.randn(COUNT, generator.config.z_dim, generator=torch.Generator().manual_seed(0)))
        images = generator.synthesis(generator.w_avg + 0.7 * (w - generator.w_avg))
        images = torch.nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bicubic").clamp(-1, 1)
        meshes = mesh.landmarks(images).numpy()
    bytes_ = images.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in bytes_], meshes


def labels(mesh: np.ndarray) -> dict[str, Any]:
    """Box and five points of a scene, from the mesh."""
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    five = np.stack([mesh[index, :2] for index in (468, 473, 1, 61, 291)]).reshape(-1)
    box = {"bx": low[0], "by": low[1], "bw": high[0] - low[0], "bh": high[1] - low[1]}
    return box | {f"l{index}": value for index, value in enumerate(five)}


def packed(path: Path, rows: list[dict[str, Any]], pictures: dict[str, Image.Image]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.csv", table.getvalue())
        for name, picture in pictures.items():
            encoded = io.BytesIO()
            picture.save(encoded, "png")
            archive.writestr(f"images/{name}", encoded.getvalue())


@pytest.fixture
def learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, float]]]:
    """Train a system by a recipe of a few seconds through the command's own function, and return the lines of its log."""

    def run(system: str, data: Path, recipe: Preset, **options: Any) -> list[dict[str, float]]:
        monkeypatch.setitem(find(system).PRESETS, "tiny", recipe)
        monkeypatch.setattr(page, "interval", lambda: 0.0)
        out = tmp_path / "run"
        done = train(system, data, out=out, preset="tiny", device="cpu", precision="float32", **options)
        assert done.finished and done.model.exists()
        return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]

    return run


@pytest.fixture
def fell() -> Callable[[list[dict[str, float]], str], float]:
    """Return by how much a figure of the log fell: its mean over the last fifth of the steps, as a share of that over the first fifth."""

    def share(lines: list[dict[str, float]], figure: str) -> float:
        values = [line[figure] for line in lines if figure in line]
        assert values, f"no {figure} in the log, which has {', '.join(sorted(lines[-1]))}"
        fifth = max(1, len(values) // 5)
        return float(np.mean(values[-fifth:]) / np.mean(values[:fifth]))

    return share

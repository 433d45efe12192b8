"""Pose and expression from a mesh that is known."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from limn.errors import InputError
from limn.faces import Face, measures
from limn.faces.masks import inside_frame, oval
from limn.faces.measures import RIGID, frontal, pose


def mean_mesh(smile: float = 0.0, mouth: float = 0.02, lids: float = 0.12) -> np.ndarray:
    """Return the mean face with a mouth, lids, irises and brows of known size; other points lie at the nose."""
    mesh = np.zeros((478, 3))
    mesh[list(RIGID)] = list(RIGID.values())
    corner_y = 1.131 - 0.074 * smile
    mesh[61] = (-0.379 - 0.066 * smile, corner_y, -0.02 + 0.074 * smile)
    mesh[291] = mesh[61] * (-1, 1, 1)
    lips = 1.123 - 0.011 * smile
    mesh[13], mesh[14] = (0, lips - mouth / 2, -0.3), (0, lips + mouth / 2, -0.3)
    for (x, iris), uppers, lowers in (((-0.48, 468), (159, 158, 160), (145, 153, 144)), ((0.48, 473), (386, 385, 387), (374, 380, 373))):
        for upper, lower in zip(uppers, lowers, strict=True):
            mesh[upper], mesh[lower] = (x, 0.07 - lids / 2, 0), (x, 0.07 + lids / 2, 0)
        mesh[iris] = (x, 0.07, 0)
    mesh[[105, 66, 334, 296], 1] = -0.26
    return mesh


def moved(mesh: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the mesh of a head that pitched up, then looked to the picture's right, then tilted clockwise (degrees), elsewhere."""
    a, b, c = np.radians([-pitch, -yaw, roll])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return mesh @ (z @ y @ x).T * 37 + (60, 70, 5)


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (-40, 10, 0), (5, -15, 30), (0, 20, -60)])
def test_pose_is_found_and_changes_no_expression(angles: tuple[float, float, float]) -> None:
    mesh = mean_mesh(smile=0.5)
    assert pose(moved(mesh, *angles)) == pytest.approx(angles, abs=0.01)
    still, turned = measures(mesh), measures(moved(mesh, *angles))
    for name in set(still) - {"yaw", "pitch", "roll"}:
        assert turned[name] == pytest.approx(still[name], abs=1e-6), name


def test_signs() -> None:
    right = moved(mean_mesh(), 30, 0, 0)
    assert right[1, 0] > right[[33, 263], 0].mean(), "positive yaw: the nose moves to the picture's right"
    assert moved(mean_mesh(), 0, 30, 0)[1, 1] < moved(mean_mesh(), 0, 0, 0)[1, 1], "positive pitch: the nose moves up"


def test_expressions_move_their_measure() -> None:
    neutral, smiling = measures(mean_mesh()), measures(mean_mesh(smile=1.0))
    assert neutral["smile"] == pytest.approx(0, abs=0.05) and smiling["smile"] == pytest.approx(1, abs=0.05)
    assert measures(mean_mesh(mouth=0.3))["mouth_open"] == pytest.approx(0.3)
    assert measures(mean_mesh(lids=0.02))["eyes_open"] < 0.1 < measures(mean_mesh())["eyes_open"]
    assert neutral["mouth_width"] == pytest.approx(0.758)


def test_wrong_meshes_are_refused() -> None:
    with pytest.raises(InputError, match="478"):
        measures(np.zeros((68, 2)))
    with pytest.raises(InputError, match="no mesh"):
        measures(Face((0, 0, 1, 1), 1.0, np.zeros((5, 2), np.float32)))
    assert np.isfinite(frontal(np.zeros((478, 3)))).all(), "a collapsed mesh gives numbers, not NaN"


def test_oval_is_soft_and_exactly_zero_outside() -> None:
    mesh = np.zeros((478, 2))
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    from limn.faces.masks import OVAL

    mesh[list(OVAL)] = np.stack([64 + 30 * np.sin(turn), 64 - 40 * np.cos(turn)], -1)
    mesh[468], mesh[473] = (49, 55), (79, 55)
    mask = oval(mesh, (128, 120))
    assert mask.shape == (120, 128) and mask.dtype == np.float32
    assert mask[64, 64] == 1 and mask[2, 2] == 0 and mask[64, 98] == 0
    assert oval(mesh, (128, 120), grow=0.3)[64, 98] > 0
    assert 0 < mask[64, 90] < 1, "the edge is soft"
    frame = inside_frame((40, 30), 0.2)
    assert frame.shape == (30, 40) and frame[0].max() == 0 and frame[15, 20] == 1


def test_smiles_and_turns_of_real_people() -> None:
    """On the free portraits: a smile is told from a neutral face, and yaw follows the labels."""
    if not (folder := os.environ.get("LIMN_DATA")):
        pytest.skip("set LIMN_DATA to a folder that holds portraits128.zip and portraits128-mesh.npz")
    with np.load(Path(folder) / "portraits128-mesh.npz") as arrays:
        names, meshes = [str(name) for name in arrays["names"]], arrays["points_x8"] / 8.0
    with zipfile.ZipFile(Path(folder) / "portraits128.zip") as pictures:
        rows = {row["file"]: row for row in csv.DictReader(io.TextIOWrapper(pictures.open("labels.csv")))}
    london = [i for i, name in enumerate(names) if rows[name]["set"] == "london"]
    found = {i: measures(meshes[i]) for i in {*london, *range(0, len(names), 20)}}
    smiling = np.array([found[i]["smile"] for i in london if rows[names[i]]["expression"] == "smile"])
    neutral = np.array([found[i]["smile"] for i in london if rows[names[i]]["expression"] == "neutral"])
    assert (smiling[:, None] > neutral).mean() > 0.95
    turns = np.array([(found[i]["yaw"], float(rows[names[i]]["yaw"])) for i in range(0, len(names), 20)])
    assert np.corrcoef(turns.T)[0, 1] > 0.85

"""Label maps drawn from a mesh."""

from __future__ import annotations

import numpy as np
import pytest

from limn.faces.drawn import CLASSES, COLOURS, coloured, labels
from limn.faces.masks import OVAL

LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)


@pytest.fixture
def mesh() -> np.ndarray:
    """A mesh of which the outline, one eye and its iris lie where they should; all else is one point of the forehead."""
    points = np.full((478, 3), (32.0, 20.0, 0.0))
    turn = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    points[list(OVAL), :2] = np.stack([32 + 24 * np.sin(turn), 32 - 28 * np.cos(turn)], 1)
    turn = np.linspace(0, 2 * np.pi, len(LEFT_EYE), endpoint=False)
    points[list(LEFT_EYE), :2] = np.stack([22 + 6 * np.cos(turn), 26 + 3 * np.sin(turn)], 1)
    points[468, :2] = (22, 26)
    points[469:473, :2] = [(25, 26), (22, 29), (19, 26), (22, 23)]
    return points


def test_parts_lie_where_the_mesh_has_them(mesh: np.ndarray) -> None:
    drawn = labels(mesh, (64, 72))
    assert drawn.shape == (72, 64) and drawn.dtype == np.uint8
    assert CLASSES[drawn[0, 0]] == "background" and CLASSES[drawn[50, 32]] == "skin"
    assert CLASSES[drawn[26, 22]] == "iris" and CLASSES[drawn[26, 17]] == "eyes"


def test_an_iris_does_not_leave_its_eye(mesh: np.ndarray) -> None:
    mesh[list(LEFT_EYE), 1] = 26  # closed
    drawn = labels(mesh, (64, 64))
    assert (drawn == CLASSES.index("iris")).sum() <= 7, "a closed eye shows at most a line"


def test_the_picture_of_a_map_holds_its_numbers(mesh: np.ndarray) -> None:
    drawn = labels(mesh, (64, 64))
    picture = coloured(drawn)
    assert len(COLOURS) == len(CLASSES) and len(set(COLOURS)) == len(COLOURS)
    assert (np.asarray(picture) == drawn).all()
    assert picture.convert("RGB").getpixel((32, 50)) == COLOURS[CLASSES.index("skin")]

"""Consent is asked once; one face is followed, and held steady."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limn.errors import InputError
from limn.faces import masks
from limn.faces.face import Face
from limn.faces.steady import Follower, OneEuro
from limn.media import read_image
from limn.tasks.consent import consent_of, kept, key_of
from limn.tasks.swap import calmed


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "home"))


def test_consent_is_kept_for_the_very_picture(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "b.png")
    red, blue = (read_image(tmp_path / name) for name in ("a.png", "b.png"))
    with pytest.raises(InputError, match="--consent"):
        consent_of(red)
    assert consent_of(red, " my own face ") == "my own face" == consent_of(red)
    with pytest.raises(InputError, match=r"b\.png"):
        consent_of(blue)
    assert consent_of(red, "Ann Lee, by letter") == consent_of(red) == "Ann Lee, by letter"
    assert kept(key_of(blue)) == ""
    with pytest.raises(InputError, match="whose it is"):
        consent_of(red, " ")


def face(x: float, y: float, size: float = 40.0) -> Face:
    points = np.array([(-10, -8), (10, -8), (0, 2), (-8, 12), (8, 12)], np.float32) * size / 40 + (x, y)
    return Face((x - size / 2, y - size / 2, x + size / 2, y + size / 2), 1.0, points)


def test_a_still_face_hardly_trembles_and_a_moving_one_does_not_lag() -> None:
    rng, follow = np.random.default_rng(0), Follower()
    noise = [rng.normal(0, 1.0, 2) for _ in range(50)]
    seen = [follow.find([face(*(100 + shift))], index / 25) for index, shift in enumerate(noise)]
    steps = np.diff([one.points.mean(0) for one in seen[5:] if one is not None], axis=0)
    raw = np.diff(noise[5:], axis=0)
    assert steps.std() < 0.4 * raw.std()
    follow, last = Follower(), None
    for index in range(25):
        last = follow.find([face(100 + 6 * index, 100)], index / 25)
    assert last is not None and abs(last.points.mean(0)[0] - (100 + 6 * 24)) < 12, "150 pixels a second are followed"


def test_the_same_face_is_followed_past_others_and_found_again_by_who_it_is() -> None:
    follow = Follower(lambda one: 1.0 if one.points.mean() > 150 else 0.0)
    assert follow.find([face(100, 100), face(200, 100, 30)], 0.0) is not None
    found = follow.find([face(200, 100, 60), face(104, 100)], 0.04)
    assert found is not None and found.box[0] < 100, "the nearest, though another has become the largest"
    assert follow.find([face(300, 300)], 0.08) is None
    again = follow.find([face(50, 50), face(300, 300)], 5.0)
    assert again is not None and again.box[0] > 200


def test_a_filter_of_one_value_is_that_value() -> None:
    smooth = OneEuro()
    assert all(smooth(np.array([3.0]), time / 25)[0] == 3.0 for time in range(5))
    assert smooth(np.array([9.0]), 4 / 25)[0] == 3.0, "the same moment twice changes nothing"


def test_blotches_are_calmed_and_features_may_change() -> None:
    colour = np.zeros((128, 128, 3), np.float32)
    colour[20:30, 20:30] = (60, -20, -20)  # on a cheek, reddish
    colour[80:90, 80:90] = -60  # a brow
    free = np.zeros((128, 128, 1), np.float32)
    free[70:100, 70:100] = 1
    made = calmed(colour, free)
    assert np.abs(made[:64, :64]).max() < 20 and np.abs(made[84, 84]).min() > 50


def test_features_lie_inside_the_face() -> None:
    mesh = np.random.default_rng(0).normal(64, 2, (478, 2))
    mesh[list(masks.OVAL)] = 64 + 50 * np.stack([np.sin(np.linspace(0, 6.28, 36)), -np.cos(np.linspace(0, 6.28, 36))], 1)
    mesh[468], mesh[473] = (44, 60), (84, 60)
    found = masks.features(mesh, (128, 128))
    assert found.shape == (128, 128) and found.max() == 1 and found[0, 0] == 0 and found[120, 120] == 0

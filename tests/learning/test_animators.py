"""The recipes of optical flow and of the animators learn, each in a run of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limn.media import write_video
from limn.models.animation import face_vid2vid, fomm
from limn.models.animation.fomm import Hour
from limn.models.animation.judges import Judge
from limn.models.perception import raft
from limn.models.records import Preset
from limn.training.datasets import moving

JUDGE = Judge(width=8, most=16, levels=2)
HOUR = Hour(8, 32, 3, 0.5)
FOMM = fomm.Config(size=32, points=4, padding=3, keypoints=HOUR, motion=HOUR, width=8, most=16, downs=1, blocks=1, judge=JUDGE)
TALKING = face_vid2vid.Config(
    size=32,
    points=4,
    features=4,
    depth=2,
    keypoints=HOUR,
    keypoint_channels=32,
    keypoint_depth=2,
    stem=8,
    stages=(16, 16, 24, 32),
    motion=Hour(8, 16, 2, 1.0),
    width=8,
    most=16,
    downs=2,
    blocks=1,
    judge=JUDGE,
)
READING = {"fps": 25.0, "seconds": 0.2, "share": 0.5}
PLAIN = {"perceptual": 0.0, "pixel": 10.0, "scales": (1.0, 0.5), "lr": 2e-3}


@pytest.fixture(scope="session")
def talking(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips: portraits of the box that turn a little."""
    folder, people, rng = tmp_path_factory.mktemp("clips"), moving.open(portraits / "portraits128.zip"), np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write_video(folder / f"{name}.mp4", [Image.fromarray(frame) for frame in people.frames(rng, 5, 64)], 25)
    return folder


def test_raft_learns(portraits: Path, learn: Callable[..., Any], fell: Callable[..., float]) -> None:
    config = raft.Config(True, (8, 12, 16), 32, 24, 16, 4, 3, (24,), (16, 8), 32, 64, iterations=2)
    lines = learn("raft", portraits / "portraits128.zip", Preset(config, "images", 8, 240, {"lr": 2e-3, "reach": 16.0}))
    assert fell(lines, "flow/sequence") < 0.92


def test_fomm_learns(portraits: Path, talking: Path, learn: Callable[..., Any], fell: Callable[..., float]) -> None:
    reading = READING | {"portraits": str(portraits / "portraits128.zip")}
    lines = learn("fomm", talking, Preset(FOMM, "clips", 4, 40, PLAIN | {"gan": 0.1, "matching": 1.0}, reading=reading))
    assert fell(lines, "generator/pixel") < 0.75


def test_face_vid2vid_learns(talking: Path, learn: Callable[..., Any], fell: Callable[..., float]) -> None:
    lines = learn("face-vid2vid", talking, Preset(TALKING, "clips", 4, 90, PLAIN, reading={"fps": 25.0, "seconds": 0.2}))
    assert fell(lines, "generator/pixel") < 0.9 and fell(lines, "generator/value") < 0.6

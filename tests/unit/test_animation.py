"""Animators: published files with several networks, relative motion, keypoints and meshes that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limn.faces import detect
from limn.faces.measures import measures, pose
from limn.faces.reenact import Driver, apart, gaps, likeness
from limn.faces.track import Track
from limn.models.animation import face_vid2vid, fomm
from limn.models.animation.fomm import Hour
from limn.models.animation.judges import Judge
from limn.models.records import seeded
from limn.weights import load

HOUR = Hour(4, 8, 2, 0.5)
FOMM = fomm.Config(points=3, keypoints=HOUR, motion=HOUR, width=4, most=8, downs=1, blocks=1, judge=Judge(width=4, most=8, levels=2))


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    skimage = pytest.importorskip("skimage.data")
    return Image.fromarray(skimage.astronaut())


def test_a_published_file_of_several_networks(tmp_path: Path) -> None:
    networks = {part: build(FOMM) for part, build in fomm.NETWORKS.items()}
    judge = {
        name.replace("parametrizations.weight.original", "weight_orig"): v for name, v in networks["discriminator"].state_dict().items()
    }
    judge = {name.replace("parametrizations.weight.0._", "weight_"): value for name, value in judge.items()}
    states = {name: network.state_dict() for name, network in networks.items()} | {"discriminator": judge}
    torch.save({**states, "epoch": 3}, tmp_path / "cpk.pth.tar")
    for part in fomm.NETWORKS:
        loaded = load(tmp_path / "cpk.pth.tar", part=part)
        assert loaded.system == "fomm" and loaded.part == part
    image = torch.rand(1, 3, 32, 32, generator=seeded(0)) * 2 - 1
    animator = fomm.Animator({part: load(tmp_path / "cpk.pth.tar", part=part).model for part in fomm.Animator.parts})
    own = animator.motion(image)
    assert animator.animate(image, own, animator.transferred(own, own, own)).shape == image.shape


@pytest.mark.parametrize("changes", [{"jacobian": False}, {"single_map": True}, {"occlusion": False}])
def test_variants_are_inferred(changes: dict[str, bool]) -> None:
    config = replace(FOMM, **changes)  # type: ignore[arg-type]
    detector, generator = fomm.KeypointDetector(config), fomm.Generator(config)
    found = fomm.detector_of(detector.state_dict())
    assert (found.jacobian, found.single_map, found.keypoints) == (config.jacobian, config.single_map, config.keypoints)
    assert fomm.generator_of(generator.state_dict()).occlusion == config.occlusion
    image = torch.rand(2, 3, 32, 32, generator=seeded(0)) * 2 - 1
    points = detector.eval()(image)
    assert bool(generator.eval()(image, points, points).image.isfinite().all())


def test_no_motion_is_no_motion() -> None:
    points = {"value": torch.rand(1, 4, 2, generator=seeded(0)), "jacobian": torch.eye(2).repeat(1, 4, 1, 1)}
    other = {"value": torch.rand(1, 4, 2, generator=seeded(1)), "jacobian": torch.eye(2).repeat(1, 4, 1, 1)}
    still = fomm.relative(points, other, other, adapt=True)
    assert torch.allclose(still["value"], points["value"]) and torch.allclose(still["jacobian"], points["jacobian"], atol=1e-6)


def test_a_head_turns_by_the_angles_given() -> None:
    angles = [torch.tensor([value]) for value in (20.0, -10.0, 5.0)]
    turn = face_vid2vid.rotation(*angles)
    assert torch.allclose(turn @ turn.mT, torch.eye(3)[None], atol=1e-5)
    canonical = {"value": torch.rand(1, 3, 3, generator=seeded(0))}
    still = {"t": torch.zeros(1, 3), "exp": torch.zeros(1, 9)}
    assert torch.allclose(face_vid2vid.turned(canonical, still, tuple(torch.zeros(1) for _ in range(3)))["value"], canonical["value"])


def test_a_mesh_follows_another(astronaut: Image.Image) -> None:
    own = detect(astronaut)[0].mesh
    assert own is not None
    driver = Driver(own, own)
    assert np.abs(driver(own, 0.0) - own).max() < 1e-3 * np.ptp(own[:, 0])
    opened = own.astype(np.float64).copy()
    opened[[14, 17, 87, 317, 178, 402, 88, 318, 95, 324], 1] += 8
    for step in range(1, 20):
        moved = driver(opened, step / 25)
    assert measures(moved)["mouth_open"] > measures(own)["mouth_open"] + 0.08
    assert np.abs(np.array(pose(moved)) - pose(own)).max() < 2
    assert likeness(own, own) < 1e-6 < likeness(own, opened)


def test_lids_touch_but_do_not_cross(astronaut: Image.Image) -> None:
    own = detect(astronaut)[0].mesh
    face = Driver.frontal(np.asarray(own, np.float64))
    face[[159, 160, 158, 386, 387, 385], 1] += 1
    assert gaps(face).min() < 0 <= gaps(apart(face)).min() + 1e-9


def test_flow_follows_a_face(astronaut: Image.Image) -> None:
    face = detect(astronaut)[0]
    assert face.mesh is not None
    track = Track(astronaut, face)
    shifted = Image.fromarray(np.roll(np.asarray(astronaut), (3, 5), (0, 1)))
    mesh = track(shifted, detect(shifted)[0])
    assert np.abs(mesh[:, :2] - face.mesh[:, :2] - (5, 3)).mean() < 0.6
    assert abs(track.gap(mesh)) < 0.02

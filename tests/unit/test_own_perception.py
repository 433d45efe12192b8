"""Our own detector and mesh: shapes, labels that follow their pictures, learning, and what the weights in the box do."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from limn.errors import TrainingError, WeightsError
from limn.models.perception import limn_detector, limn_mesh
from limn.models.records import Detector, Landmarker, Objective, seeded
from limn.training.datasets import mesh, scenes, spoil
from limn.training.datasets import points as five

SMALL = limn_detector.Config(stem=8, widths=(12, 16, 24, 24), depths=(0, 1, 1, 1), head=16, size=96)
SMALL_MESH = limn_mesh.Config(stem=8, widths=(12, 16, 24), depths=(1, 1, 1), kept=8, shapes=24)
FIVE = np.array([[60, 62], [92, 60], [77, 82], [63, 98], [91, 97]], np.float32)
DATA = os.environ.get("LIMN_DATA")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """The face of the astronaut, 128 pixels."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(cv2.resize(data.astronaut()[25:225, 125:325], (128, 128), interpolation=cv2.INTER_AREA))


@pytest.fixture
def archive(tmp_path: Path, picture: np.ndarray) -> Path:
    """A folder with a scenes.zip of two pictures, the second one not free."""
    names = ["file", "licence", "bx", "by", "bw", "bh", *(f"l{i}" for i in range(10))]
    rows = [[f"{i}.jpg", licence, 46, 40, 60, 76, *FIVE.reshape(-1)] for i, licence in enumerate(("CC BY 3.0", "research only"))]
    table = io.StringIO()
    csv.writer(table).writerows([names, *rows])
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as file:
        file.writestr("labels.csv", table.getvalue())
        for i in range(2):
            file.writestr(f"images/{i}.jpg", cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes())
    return tmp_path


def dots(points: np.ndarray, size: int = 128) -> np.ndarray:
    """A black picture with a soft white dot on every point."""
    canvas = np.zeros((size, size, 3), np.float32)
    for x, y in points[:, :2]:
        cv2.circle(canvas, (round(float(x) * 16), round(float(y) * 16)), 48, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return canvas.astype(np.uint8)


def bright(canvas: np.ndarray, points: np.ndarray) -> np.ndarray:
    at = points[:, None, :2].astype(np.float32)
    return cv2.remap(canvas[..., 0], at[..., 0], at[..., 1], cv2.INTER_LINEAR).reshape(-1)


def test_the_detector_satisfies_its_protocols() -> None:
    network = limn_detector.Detector(SMALL).eval()
    assert isinstance(network, Detector)
    assert isinstance(limn_detector.objective(SMALL), Objective)
    maps = network(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 15, 8, 12), (2, 15, 4, 6), (2, 15, 2, 3)]
    for size, threshold in (((1, 1), 0.0), ((37, 90), 0.0), ((420, 333), 0.99)):
        rows = network.detect(torch.zeros(1, 3, *size), threshold)
        assert rows.shape[1] == 15
        assert (len(rows) == 0) == (threshold > 0)


def test_folding_norms_changes_nothing() -> None:
    for module, config, image in ((limn_detector, SMALL, torch.randn(1, 3, 64, 64)), (limn_mesh, SMALL_MESH, torch.randn(2, 3, 128, 128))):
        network = next(iter(module.NETWORKS.values()))(config)
        network.train()(image)  # gives the norms something of their own
        before, after = network.eval()(image), module.fold(network)(image)
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_folding_moves_the_score() -> None:
    network = limn_detector.Detector(SMALL).eval()
    image = torch.randn(1, 3, 64, 64)
    before, after = (limn_detector.decode(net(image)[0], 8)[..., 4] for net in (network, limn_detector.fold(network, 0.7)))
    torch.testing.assert_close(after, (before.logit() - torch.tensor(0.7).logit()).sigmoid(), rtol=1e-3, atol=1e-4)


def test_decoding_undoes_encoding() -> None:
    level = torch.zeros(1, 15, 4, 4)
    level[0, 1:5, 1, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0]).log()
    row = limn_detector.decode(level, 8)[0, 1 * 4 + 2]
    assert row[:4].tolist() == pytest.approx([20 - 8, 12 - 16, 20 + 24, 12 + 32], abs=1e-4)
    assert row[4].item() == 0.5
    assert row[5:].view(5, 2).tolist() == [[20, 12]] * 5


def test_a_face_is_answered_for_by_the_cells_of_its_scale() -> None:
    batch = labelled([[30.0, 30, 66, 78]])  # size 41.6: strides 8 and 16
    counts = []
    for stride, sizes in zip(limn_detector.STRIDES, limn_detector.RANGES, strict=True):
        face, ignored = limn_detector.assign(batch, torch.zeros(1, 15, 128 // stride, 128 // stride), stride, sizes)
        counts.append(int((face >= 0).sum()))
        assert not (ignored & (face >= 0)).any()
    assert counts[0] > 0
    assert counts[1] > 0
    assert counts[2] == 0
    hidden = {**batch, "kind": -batch["kind"]}
    face, ignored = limn_detector.assign(hidden, torch.zeros(1, 15, 16, 16), 8, limn_detector.RANGES[0])
    assert (face == -1).all()
    assert ignored.sum() == 4 * 6, "the cells inside a hidden face are not asked"


def labelled(boxes: list[list[float]]) -> dict[str, Tensor]:
    box = torch.tensor([boxes])
    return {
        "boxes": box,
        "points": box[..., :2].repeat(1, 1, 5) + 10,
        "trust": torch.ones(box.shape[:2]),
        "kind": torch.ones(box.shape[:2]),
    }


def test_the_detector_learns_in_seconds(archive: Path) -> None:
    for part, data in (("faces", scenes.open(archive, SMALL)), ("points", five.open(archive, SMALL))):
        task = limn_detector.objective(SMALL, seed=1, part=part)
        (phase,) = task.phases()
        falls(task.networks["detector"].train(), phase.loss, data.batch(0, 4, 0), 0.75, 5e-3)


def test_every_weight_of_the_detector_learns_in_one_of_its_two_runs() -> None:
    sets = []
    for part in ("faces", "points"):
        task = limn_detector.objective(SMALL, part=part)
        names = {id(weight): name for name, weight in task.networks.named_parameters()}
        sets.append({names[id(weight)] for weight in task.phases()[0].parameters()})
    assert sets[0].isdisjoint(sets[1])
    assert sets[0] | sets[1] == set(names.values())


def test_the_points_of_a_crop_follow_its_picture() -> None:
    for seed in range(12):
        crop, where = five._cut(dots(FIVE), np.array([46, 40, 106, 116], np.float32), FIVE, 64, np.random.default_rng(seed))
        light = bright(crop, where * 64 + 31.5)
        assert (light > 100).all(), f"seed {seed}: {light}"
        assert where[0, 0] < where[1, 0]


def test_cutting_a_square_out_keeps_its_place() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(2, 3, 64, 64)
    crop = limn_detector.cut(ramp, torch.tensor([1]), torch.tensor([[31.5, 19.5]]), torch.tensor([16.0]), 16)
    torch.testing.assert_close(crop[0], ramp[0, :, 12:28, 24:40], atol=2e-3, rtol=0)
    middle, side = limn_detector.frames(torch.tensor([[10.0, 20, 30, 60]]))
    assert middle.tolist() == [[20, 40]]
    assert side.item() == pytest.approx(48)


def test_the_mesh_learns_in_seconds(picture: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(20, 108, (1, 478, 3)).astype(np.float32)
    data = mesh.Meshes((picture,), points, ("a",))
    task = limn_mesh.objective(SMALL_MESH, seed=1)
    (phase,) = task.phases()
    falls(task.networks["mesh"].train(), phase.loss, data.batch(0, 8, 0), 0.8, 1e-2)


def falls(network: torch.nn.Module, loss, batch: dict[str, Tensor], share: float, lr: float) -> None:
    of, values = torch.optim.Adam(network.parameters(), lr), []
    for _ in range(14):
        total = torch.stack(list(loss(batch, seeded(0)).values())).sum()
        of.zero_grad()
        total.backward()
        of.step()
        values.append(total.item())
    assert min(values[-3:]) < share * values[0], values


def test_building_leaves_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    first, second = (limn_mesh.objective(SMALL_MESH, seed=3).networks.state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_scenes_are_a_function_of_seed_and_step(archive: Path) -> None:
    data = scenes.open(archive, SMALL)
    assert len(data) == scenes.SCENES_SHARE or len(data) == 1
    one, same, other = data.batch(3, 2, 7), data.batch(3, 2, 7), data.batch(4, 2, 7)
    assert one["image"].shape == (2, 3, 96, 96)
    assert one["boxes"].shape == (2, scenes.MOST_FACES, 4)
    assert one["image"].min() >= -1
    assert one["image"].max() <= 1
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["image"], other["image"])


def test_only_free_pictures_train(archive: Path) -> None:
    assert {p.name for p in scenes.open(archive, SMALL).pictures} == {"0.jpg"}
    assert {p.name for p in scenes.open(archive, SMALL, train=False).pictures} == {"1.jpg"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"scenes\.zip"):
        scenes.open(tmp_path, SMALL)
    with pytest.raises(TrainingError, match=r"portraits128\.zip"):
        mesh.open(tmp_path, SMALL_MESH)


def test_labels_of_a_scene_follow_its_picture() -> None:
    levels = (dots(FIVE), *(cv2.resize(dots(FIVE), (128 >> k, 128 >> k), interpolation=cv2.INTER_AREA) for k in (1, 2, 3)))
    picture = scenes.Picture(levels, np.array([46, 40, 106, 116], np.float32), FIVE, 1.0, "dots")
    for seed in range(12):
        canvas, owner = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), np.uint8)
        rng = np.random.default_rng(seed)
        place = scenes._Place(np.array([128.0, 120.0]), float(rng.uniform(60, 150)), 1)
        label = scenes._paste(canvas, owner, picture, place, rng)
        points = label[4:14].reshape(5, 2)
        light = bright(canvas, points) / max(canvas.max(), 1)
        assert (light > 0.4).all(), f"seed {seed}: {light}"
        assert points[0, 0] < points[1, 0]
        assert points[3, 0] < points[4, 0]
        assert (points > label[:2]).all()
        assert (points < label[2:4]).all()
        assert scenes._kind(label, owner == 1) == 1.0
        assert scenes._kind(label, owner == 2) == 0.0


def test_the_mirror_is_a_mirror() -> None:
    mirror = np.array(limn_mesh.MIRROR)
    assert (mirror[mirror] == np.arange(478)).all()
    assert (mirror == np.arange(478)).sum() == 28, "the points on the midline"
    for left, right in ((33, 263), (133, 362), (61, 291), (78, 308), (159, 386), (468, 473), (234, 454), (70, 300)):
        assert mirror[left] == right


@pytest.mark.skipif(DATA is None, reason="LIMN_DATA names no folder with portraits128-mesh.npz")
def test_the_mirror_fits_the_mean_mesh() -> None:
    with np.load(Path(str(DATA)) / "portraits128-mesh.npz") as arrays:
        mean = arrays["points_x8"].astype(np.float64).mean(0) / 8
    flipped = mean[list(limn_mesh.MIRROR)] * [-1, 1, 1]
    flipped[:, 0] += (mean - flipped)[:, 0].mean()
    assert np.abs(mean - flipped).max() < 1.5


def grid_mesh() -> np.ndarray:
    """Points on a face-like dome, well apart; those beyond the first thirty lie on the first."""
    x, y = (v.reshape(-1) for v in np.meshgrid(np.linspace(36, 92, 6), np.linspace(44, 104, 5)))
    z = -18 * np.exp(-(((x - 64) / 22) ** 2) - ((y - 74) / 26) ** 2)
    points = np.stack([x, y, z], -1).astype(np.float32)
    return np.concatenate([points, np.repeat(points[:1], 478 - len(points), 0)])


@pytest.mark.parametrize("name", ["turned", "jittered", "mirrored"])
def test_labels_of_a_mesh_follow_its_picture(name: str) -> None:
    points = grid_mesh()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        if name == "turned":
            canvas, moved = mesh.turned(dots(points), points, float(rng.uniform(-0.45, 0.45)), float(rng.uniform(-0.2, 0.2)))
        elif name == "jittered":
            canvas, moved = mesh._jittered(dots(points), points, rng)
        else:
            canvas, moved = mesh.mirrored(dots(points), points)
        inside = ((moved[:, :2] > 3) & (moved[:, :2] < 124)).all(1)
        light = bright(canvas, moved[inside])
        assert inside.mean() > 0.8
        assert np.quantile(light, 0.05) > 90, f"{name}, seed {seed}: {np.sort(light)[:8]}"


def test_a_turn_to_the_right_and_back_is_small() -> None:
    points = grid_mesh()
    _, there = mesh.turned(dots(points), points, 0.3, 0.0)
    assert abs((there - points)[:30, 0]).max() > 2, "the nose moves against the cheeks"
    _, still = mesh.turned(dots(points), points, 0.0, 0.0)
    np.testing.assert_allclose(still, points, atol=1e-3)


def test_spoiling_keeps_shape_and_type(picture: np.ndarray) -> None:
    for seed in range(30):
        spoilt = spoil.spoilt(picture, np.random.default_rng(seed))
        assert spoilt.shape == picture.shape
        assert spoilt.dtype == np.uint8
        assert spoilt.std() > 1


def test_the_mesh_takes_crops_of_any_size() -> None:
    network = limn_mesh.Mesh(SMALL_MESH).eval()
    assert isinstance(network, Landmarker)
    small, large = network.landmarks(torch.zeros(2, 3, 128, 128)), network.landmarks(torch.zeros(2, 3, 256, 256))
    assert small.shape == (2, 478, 3)
    torch.testing.assert_close(large, 2 * small, rtol=1e-3, atol=1e-2)
    assert replace(SMALL_MESH, folded=True) != SMALL_MESH


def boxed(name: str) -> torch.nn.Module:
    from limn import weights

    try:
        return weights.load(name).model
    except WeightsError as error:
        pytest.skip(f"{name} is not in the box yet: {error}")


def test_the_astronaut_is_found_and_measured() -> None:
    data = pytest.importorskip("skimage.data")
    photo = torch.from_numpy(data.astronaut().astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    detector = boxed("limn-detector")
    rows = detector.detect(photo, 0.5)
    assert len(rows) == 1, rows[:, :5]
    box, points = rows[0, :4], rows[0, 5:].view(5, 2)
    want = torch.tensor([[204.0, 101.5], [247.0, 104.0], [224.0, 127.5], [204.0, 143.0], [243.5, 144.0]])  # by eye
    assert (points - want).norm(dim=1).mean() < 4, points
    assert 170 < box[0] < 195, box
    assert 255 < box[2] < 285, box
    assert len(detector.detect(photo[..., 220:, :].contiguous(), 0.5)) == 0, "no face in the suit"


def test_the_mean_shape_of_the_mesh_in_the_box_is_symmetric(picture: np.ndarray) -> None:
    network = boxed("limn-mesh")
    image = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    one, other = network.landmarks(image)[0], network.landmarks(image.flip(-1))[0][list(limn_mesh.MIRROR)]
    other[:, 0] = 127 - other[:, 0]
    assert (one - other)[:, :2].norm(dim=-1).mean() < 1.5, "a mirrored picture has the mirrored mesh"

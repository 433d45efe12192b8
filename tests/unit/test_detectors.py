"""RetinaFace and YuNet: configurations read off shapes, faces found, objectives that learn; and the detection of whole pictures."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from limn.errors import FaceError, InputError, WeightsError
from limn.faces import Face, align, choose, detect, fit
from limn.faces.detect import SMALL, _rows, ordered, tiles, with_meshes
from limn.models.perception import retinaface, yunet
from limn.weights import adopt, save

SETTINGS = [
    (retinaface, retinaface.RetinaFace, retinaface.Config()),
    (retinaface, retinaface.RetinaFace, retinaface.Config("mobile", 16, (), 32)),
    (retinaface, retinaface.RetinaFace, retinaface.Config("resnet", 8, (1, 2, 1, 1), 128)),
    (yunet, yunet.YuNet, yunet.Config()),
    (yunet, yunet.YuNet, yunet.SMALL),
    (yunet, yunet.YuNet, yunet.Config(channels=32, shared=2, branch=1)),
]


@pytest.mark.parametrize(("system", "network", "config"), SETTINGS)
def test_published_states_load_strictly(system, network, config) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = network(config).state_dict()
    loaded = adopt(state)
    assert (loaded.system, loaded.config) == (system.CARD.name, config)
    with pytest.raises(WeightsError):
        adopt({name: tensor for name, tensor in state.items() if "bias" not in name}, system.CARD.name)


def test_module_prefix_is_dropped() -> None:
    state = retinaface.RetinaFace().state_dict()
    assert adopt({f"module.{name}": tensor for name, tensor in state.items()}).system == "retinaface"


def test_resnet50_has_the_published_size() -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in retinaface.RetinaFace(retinaface.RESNET50).parameters())
    assert count == pytest.approx(27.3e6, rel=0.01)
    assert sum(parameter.numel() for parameter in yunet.YuNet().parameters()) == pytest.approx(75.9e3, rel=0.01)
    assert sum(parameter.numel() for parameter in yunet.YuNet(yunet.SMALL).parameters()) == pytest.approx(54.6e3, rel=0.01)


def scenes_batch() -> dict[str, torch.Tensor]:
    """Return two pictures: one with two faces, one with none."""
    image = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    boxes, points, kind = torch.zeros(2, 3, 4), torch.zeros(2, 3, 10), torch.zeros(2, 3)
    for row, (x, y, side) in enumerate([(10.0, 12.0, 40.0), (70.0, 40.0, 24.0)]):
        boxes[0, row] = torch.tensor([x, y, x + side, y + 1.2 * side])
        points[0, row] = torch.tensor([0.3, 0.4, 0.7, 0.4, 0.5, 0.6, 0.35, 0.9, 0.65, 0.9]) * side + torch.tensor([x, y] * 5)
        kind[0, row] = 1
    image[0, :, 12:60, 10:50] = 0.5
    return {"image": image, "boxes": boxes, "points": points, "kind": kind}


@pytest.mark.parametrize(("system", "config"), [(retinaface, retinaface.Config("mobile", 4, (), 32)), (yunet, yunet.SMALL)])
def test_objective_learns(system, config) -> None:
    objective, batch = system.objective(config, seed=3), scenes_batch()
    phase = objective.phases()[0]
    optimiser = torch.optim.Adam(phase.parameters(), lr=4e-3)
    totals = []
    for _ in range(5):
        losses = phase.loss(batch, torch.Generator())
        total = sum(losses.values())
        assert torch.isfinite(total), losses
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0], totals
    again = sum(system.objective(config, seed=3).phases()[0].loss(batch, torch.Generator()).values())
    assert float(again.detach()) == pytest.approx(totals[0]), "the seed decides the network"


def test_codes_are_inverse_of_decoding() -> None:
    prior = retinaface.priors(64, 96)
    rng = torch.Generator().manual_seed(5)
    corner = torch.rand(len(prior), 2, generator=rng)
    boxes = torch.cat([corner, corner + torch.rand(len(prior), 2, generator=rng) + 0.05], 1)
    points = torch.rand(len(prior), 10, generator=rng)
    offsets, places = retinaface.codes(boxes, points, prior)
    assert torch.allclose(retinaface.boxes_of(offsets, prior), boxes, atol=1e-4)
    assert torch.allclose(retinaface.points_of(places, prior), points, atol=1e-4)


def test_extended_iou_goes_on_below_zero() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [12.0, 0, 22, 10], [40.0, 0, 50, 10]])
    loss = yunet.extended_iou_loss(boxes, truth)
    assert loss[0] == pytest.approx(0, abs=1e-6)
    assert (loss.diff() > 0).all(), "farther is worse, apart too"


def test_assignment_gives_each_face_a_cell() -> None:
    cells = yunet.grid(64, 64)
    truth = torch.tensor([[4.0, 4, 28, 32], [36.0, 30, 60, 62]])
    start = torch.cat([cells[:, :2] - 8, cells[:, :2] + 8], 1)
    face, fit = yunet.assign(torch.full((len(cells),), 0.1), start, truth, cells)
    assert set(face.tolist()) == {-1, 0, 1}
    assert (fit[face < 0] == 0).all() and (fit >= 0).all()
    nobody, _ = yunet.assign(torch.full((len(cells),), 0.1), start, truth[:0], cells)
    assert (nobody == -1).all()


def test_tiles_cover_everything_once_or_twice() -> None:
    for size in ((100, 80), (1280, 700), (2304, 1500), (1281, 5000)):
        covered = np.zeros(size[::-1], int)
        for x, y, width, height in tiles(size, 1280, 256):
            assert x >= 0 and y >= 0 and width <= 1280 and height <= 1280
            covered[y : y + height, x : x + width] += 1
        assert covered.min() >= 1, size
    assert tiles((1280, 1280), 1280, 256) == [(0, 0, 1280, 1280)]


class Spotter:
    """A stand-in for a detector: finds white squares of at least 12 pixels."""

    def detect(self, image: torch.Tensor, threshold: float) -> torch.Tensor:
        import cv2

        white = (image[0].mean(0) > 0.5).to(torch.uint8).numpy()
        _, _, stats, _ = cv2.connectedComponentsWithStats(white)
        rows = [[x, y, x + w, y + h, 0.9, *([x + w / 2, y + h / 2] * 5)] for x, y, w, h, _ in stats[1:].tolist() if min(w, h) >= 12]
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 15)


def test_small_faces_of_a_large_picture_get_a_second_look() -> None:
    picture = Image.new("RGB", (4600, 1800))
    places = [(100, 90), (2290, 900), (4400, 1700)]
    for x, y in places:
        picture.paste((255, 255, 255), (x, y, x + 30, y + 30))  # 8 pixels in the first look, 15 in the second
    rows = _rows(Spotter(), picture, 0.5, "cpu")
    assert len(rows) == 3, "each once, also where tiles overlap"
    assert sorted(rows[:, 0]) == pytest.approx([place[0] for place in places], abs=3)
    picture.paste((255, 255, 255), (1000, 500, 2200, 1700))
    assert len(_rows(Spotter(), picture, 0.5, "cpu")) == 1, f"a face above {SMALL} of the side makes the second look needless"


def test_choosing_faces() -> None:
    faces = ordered([Face((0, 0, side, side), 0.9, np.zeros((5, 2), np.float32)) for side in (10, 40, 20)])
    assert [face.box[2] for face in faces] == [40, 20, 10] and [face.index for face in faces] == [0, 1, 2]
    assert choose(faces) == [faces[0]] and choose(faces, 2) == [faces[2]] and choose(faces, "all") == faces
    with pytest.raises(FaceError, match="holds 3 faces"):
        choose(faces, 3)
    with pytest.raises(FaceError, match="no face"):
        choose([], "all")
    with pytest.raises(InputError, match="not understood"):
        choose(faces, "biggest")


def test_a_weight_file_can_be_the_detector(tmp_path: Path) -> None:
    network = yunet.YuNet()
    torch.nn.init.constant_(network.bbox_head.multi_level_cls[0].conv2.bias, -9.0)
    save(tmp_path / "mine.safetensors", network, "yunet", "detector", yunet.Config())
    assert isinstance(detect(Image.new("RGB", (70, 50)), str(tmp_path / "mine.safetensors"), 0.99, mesh=False), list)
    with pytest.raises(InputError, match="between 0 and 1"):
        detect(Image.new("RGB", (70, 50)), str(tmp_path / "mine.safetensors"), 2.0)


@pytest.mark.parametrize("name", ["yunet/yunet_n_640_640.onnx", "yunet/yunet_n_dynamic.onnx", "retinaface_mnet025/mobilenet0.25_Final.pth"])
def test_real_weights_find_the_astronaut(name: str) -> None:
    if not (folder := os.environ.get("LIMN_WEIGHTS")):
        pytest.skip("set LIMN_WEIGHTS to a folder that holds yunet/ and retinaface_mnet025/ with their published files")
    faces = detect(Image.fromarray(skimage.data.astronaut()), str(Path(folder) / name), mesh=False)
    assert len(faces) == 1
    wanted = [(203.4, 103.6), (247.5, 104.4), (224.1, 127.7), (204.0, 143.1), (242.9, 143.7)]
    assert np.abs(faces[0].points - wanted).max() < 4


class Still:
    """A stand-in for the mesh network: the same points in every crop."""

    config = retinaface.Config()  # without a size: crops of 128

    def __init__(self) -> None:
        self.points = torch.rand(478, 3, generator=torch.Generator().manual_seed(2)) * 128

    def landmarks(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 128, 128)
        return self.points.expand(len(images), -1, -1)


def test_meshes_are_carried_to_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Still()
    monkeypatch.setattr(import_module("limn.faces.detect"), "_landmarker", lambda device: network)
    points = np.array([(203.4, 103.6), (247.5, 104.4), (224.1, 127.7), (204.0, 143.1), (242.9, 143.7)], np.float32)
    face = Face((178.0, 65.0, 269.0, 176.0), 0.9, points)
    astronaut = Image.fromarray(skimage.data.astronaut())
    found, twice = with_meshes(astronaut, [face, face.scaled(2, 2)])
    _, matrix = align(astronaut, face, "ffhq", 128)
    assert found.mesh is not None and found.pose is not None and twice.mesh is not None
    wanted = fit.apply(fit.invert(matrix), network.points[:, :2].numpy() - 0.5)
    assert found.mesh[:, :2] == pytest.approx(wanted, abs=1e-3)
    assert np.ptp(twice.mesh[:, 2]) == pytest.approx(2 * np.ptp(found.mesh[:, 2]), rel=1e-4), "depth in pixels of the picture too"
    assert found.points.shape == (5, 2) and twice.pose == pytest.approx(found.pose, abs=1e-3)

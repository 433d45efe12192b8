"""Parsing faces: the networks, the labels they learn from, and regions in pixels of the photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from limn.errors import FaceError, InputError, WeightsError
from limn.faces import Face, detect
from limn.faces.parse import GROUPS, Parsing, mask, members, parse
from limn.models.perception import bisenet, limn_parser, parsenet
from limn.models.records import Objective, Parser
from limn.training.datasets import guessed, open_dataset, parsing
from limn.weights import adopt

SMALL = limn_parser.Config(size=32, stem=8, widths=(8, 12, 16), depths=(0, 1, 1), pyramid=8)
SMALL_BISENET = replace(bisenet.SMALL, widths=(4, 8, 12, 16), context=8, fused=8, side=4, size=32)
TINY_PARSENET = parsenet.Config(classes=5, stem=4, down=(6, 8), depth=1, up=(6, 4), size=32)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """The astronaut, 512 pixels."""
    return Image.fromarray(pytest.importorskip("skimage.data").astronaut())


@pytest.fixture(scope="module")
def face(photo: Image.Image) -> Face:
    return detect(photo)[0]


def test_networks_are_parsers() -> None:
    made = (limn_parser.Parser(SMALL), bisenet.BiSeNet(SMALL_BISENET), parsenet.ParseNet(TINY_PARSENET))
    for network, config in zip(made, (SMALL, SMALL_BISENET, TINY_PARSENET), strict=True):
        assert isinstance(network, Parser) and len(network.classes) == config.classes
        logits = network.eval().parse(torch.zeros(2, 3, config.size, config.size))
        assert logits.shape == (2, config.classes, config.size, config.size)


def test_our_parser_takes_other_sizes_and_folds() -> None:
    network = limn_parser.Parser(SMALL)
    for _ in range(3):
        network(torch.rand(4, 3, 32, 32) * 2 - 1)  # batch norms that have seen something
    images = torch.rand(2, 3, 48, 48) * 2 - 1
    plain, folded = network.eval().parse(images), limn_parser.fold(network).parse(images)
    assert plain.shape == (2, 13, 48, 48)
    torch.testing.assert_close(plain, folded, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("activation", ["leaky", "prelu"])
def test_parsenet_is_inferred_from_its_names(norm: str, activation: str) -> None:
    config = replace(TINY_PARSENET, norm=norm, activation=activation)
    state = parsenet.ParseNet(config).state_dict()
    published = {name.replace(".norm.", ".norm.norm.").replace(".act.weight", ".relu.func.weight"): value for name, value in state.items()}
    assert adopt(published).config == replace(config, size=512)


def test_bisenet_is_inferred_without_counts_of_batches() -> None:
    state = bisenet.BiSeNet(SMALL_BISENET).state_dict()
    loaded = adopt({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")})
    assert (loaded.system, loaded.config) == ("bisenet", replace(SMALL_BISENET, size=512))


def test_hard_pixels_alone_count() -> None:
    logits = torch.tensor([5.0, 5.0, -5.0, -5.0]).view(1, 1, 1, 4) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    labels = torch.zeros(1, 1, 4, dtype=torch.long)
    assert bisenet.hard_cross_entropy(logits, labels, 0.7, 1) == pytest.approx(10.0, abs=0.01)  # the two wrong ones
    assert bisenet.hard_cross_entropy(logits, labels, 0.7, 3) == pytest.approx(20 / 3, abs=0.01)  # too few: the three hardest


@pytest.mark.parametrize("system", [limn_parser, bisenet])
def test_objectives_are_seeded_and_weigh_what_is_sure(system: object) -> None:
    config = SMALL if system is limn_parser else SMALL_BISENET
    first, second = (system.objective(config, seed=3) for _ in range(2))  # type: ignore[attr-defined]
    assert isinstance(first, Objective)
    for a, b in zip(first.networks.state_dict().values(), second.networks.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    batch = {"image": torch.zeros(2, 3, 32, 32), "mask": torch.ones(2, 32, 32, dtype=torch.long), "sure": torch.zeros(2, 32, 32)}
    losses = first.loss(batch, torch.Generator())
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert system is bisenet or losses["classes"] == 0


def test_guesses_of_a_portrait(photo: Image.Image, face: Face) -> None:
    from limn.faces import align, fit

    crop, matrix = align(photo, face, "ffhq", 128)
    assert face.mesh is not None
    points = fit.apply(matrix, face.mesh[:, :2])
    found, sure = guessed.labels(np.asarray(crop), points)
    name = lambda x, y: limn_parser.CLASSES[found[round(float(y)), round(float(x))]]  # noqa: E731
    assert name(*points[50]) == name(*points[280]) == "skin"
    assert (name(*points[468]), name(*points[473])) == ("left_eye", "right_eye")
    assert (name(*points[105]), name(*points[334])) == ("left_brow", "right_brow")
    assert name(*points[4]) == "nose"
    assert name(*(points[10] - (0, 16))) == "hair"
    assert sure[round(float(points[50][1])), round(float(points[50][0]))] > 200
    frame = guessed.frame(points, 128)
    np.testing.assert_allclose(guessed.prior(frame).sum(0), 1, atol=1e-5)
    given = np.zeros((5, 128, 128), np.float32)
    given[0] = 1  # a prior that knows nothing but background is believed
    assert (guessed.outer(np.asarray(crop), given, frame)[0] > 0.5).mean() > 0.9


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    """Sixty pictures that are dark left and bright right, with a left and a right eye in their label maps."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(60):
        picture, labels = np.full((32, 32, 3), 40, np.uint8), np.zeros((32, 32), np.uint8)
        picture[:, 16:] = 200
        labels[8:16, 4:12], labels[8:16, 20:28] = limn_parser.CLASSES.index("left_eye"), limn_parser.CLASSES.index("right_eye")
        Image.fromarray(picture).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def test_label_maps_follow_their_pictures_and_sides_are_exchanged(painted: Path) -> None:
    data = open_dataset("parsing", painted, SMALL)
    assert isinstance(data, parsing.Parsing) and len(data) > 50
    row = data.store.take(np.array([0]))[0]
    left, right = (limn_parser.CLASSES.index(name) for name in ("left_eye", "right_eye"))
    seen = set()
    for seed in range(12):
        made = data.varied(row, np.random.default_rng(seed))
        middles = [np.mean(np.nonzero(made[..., 3] == number)[1]) for number in (left, right)]
        if np.isfinite(middles).all():
            assert middles[0] < middles[1], "the left eye is the one on the left, mirrored or not"
        seen.add(bool(made[:, :8, :3].mean() > made[:, 24:, :3].mean()))
    assert seen == {True, False}, "some are mirrored"
    first, again = data.batch(5, 4, 1), data.batch(5, 4, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["image"].shape == (4, 3, 32, 32) and first["mask"].dtype == torch.int64 and first["sure"].max() == 1


def test_mirrored_classes() -> None:
    for known in parsing.KNOWN:
        other = parsing.mirrored(len(known))
        assert (other[other] == np.arange(len(known))).all()
        assert known[other[known.index("left_brow")]] == "right_brow"
    assert (parsing.mirrored(4) == np.arange(4)).all()


def shown(size: int = 16) -> Parsing:
    """The middle of a crop is skin, around a mouth; the crop is the photo's middle, half as large."""
    shares = np.zeros((3, size, size), np.float32)
    shares[1, 4:12, 4:12] = 1
    shares[2, 7:10, 6:10] = 1
    shares[1] -= shares[2]
    shares[0] = 1 - shares.sum(0)
    return Parsing(("background", "skin", "inner_mouth"), shares, np.array([[0.5, 0, -8], [0, 0.5, -8]]), (60, 50), 10.0)


def test_regions_lie_in_the_photo() -> None:
    parsing_ = shown()
    labels, region = parsing_.labels(), parsing_.region("face")
    assert labels.shape == region.shape == (50, 60)
    assert labels[32, 32] == 2 and labels[27, 27] == 1 and labels[4, 4] == 0
    assert region[32, 32] == pytest.approx(1) and region[0].max() == 0
    assert parsing_.region("mouth").sum() < region.sum()
    grown, shrunk = parsing_.region("face", grow=0.2), parsing_.region("face", grow=-0.2)
    assert shrunk.sum() < region.sum() < grown.sum()
    assert grown.sum() == pytest.approx((np.sqrt(region.sum()) + 4) ** 2, rel=0.1)  # two pixels on each side
    soft = parsing_.region("face", feather=0.6)
    assert 0.2 < ((soft > 0) & (soft < 1)).sum() / region.sum() < 3 and soft.sum() == pytest.approx(region.sum(), rel=0.15)
    assert np.asarray(parsing_.picture()).max() == 2 and parsing_.picture().mode == "P"


def test_names_of_regions() -> None:
    assert [limn_parser.CLASSES[n] for n in members("eyes, nose", limn_parser.CLASSES)] == ["left_eye", "right_eye", "nose"]
    for group in GROUPS:
        if group != "ears":
            assert members(group, limn_parser.CLASSES)
    with pytest.raises(InputError, match="did you mean 'mouth'"):
        members("moth", limn_parser.CLASSES)
    with pytest.raises(InputError, match="known are background"):
        members(["zzz"], limn_parser.CLASSES)


def test_the_mesh_alone_draws_parts(photo: Image.Image, face: Face) -> None:
    found = parse(photo, face, "mesh")
    assert face.mesh is not None
    lips = mask(photo, face, "mouth", parser="mesh")
    x, y = face.mesh[14, :2]
    assert lips[round(float(y)), round(float(x))] > 0.5 and lips.shape == (512, 512)
    assert found.labels()[round(float(face.mesh[4, 1])), round(float(face.mesh[4, 0]))] == found.classes.index("nose")
    assert lips.sum() < found.region("face").sum()
    with pytest.raises(FaceError, match="no mesh"):
        parse(photo, replace(face, mesh=None), "mesh")
    with pytest.raises(WeightsError, match="a face parser is needed"):
        parse(photo, face, "limn-mesh")


def test_the_parser_in_the_box_sees_hair_and_background(photo: Image.Image, face: Face) -> None:
    found = parse(photo, face)
    assert found.classes == limn_parser.CLASSES and face.mesh is not None
    labels = found.labels()
    name = lambda x, y: found.classes[labels[round(float(y)), round(float(x))]]  # noqa: E731
    assert name(*face.mesh[50, :2]) == name(*face.mesh[280, :2]) == "skin" and name(*face.mesh[4, :2]) == "nose"
    above = face.mesh[10, :2] - (face.mesh[152, :2] - face.mesh[10, :2]) * 0.25
    assert name(*above) == "hair"
    assert name(2, 500) == "background", "beyond the crop"
    hair, skin = (found.region(part).sum() for part in ("hair", "skin"))
    assert 0.2 < hair / skin < 5


def test_what_covers_a_face_is_background() -> None:
    picture, drawn = np.full((64, 64, 3), 90, np.uint8), np.full((64, 64, 2), (1, 50), np.uint8)
    changed, labels = parsing.covered(picture, drawn, np.random.default_rng(1))
    hidden = labels[..., 0] == 0
    assert 0 < hidden.sum() < hidden.size and (labels[..., 1][hidden] == 255).all()
    assert (labels[..., 0][~hidden] == 1).all() and (picture == 90).all() and cv2.norm(changed, picture) >= 0

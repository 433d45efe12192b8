"""What `limn evaluate` is made of: reading sets, the table of measures, feature networks, landmark errors."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from limn.errors import InputError, WeightsError
from limn.faces import Face
from limn.metrics import landmarks, networks, perceptual, protocol, sliced
from limn.metrics.measurement import Measurement
from limn.metrics.pictures import Pictures, floats
from limn.models.perception.lpips import Config, Lpips
from limn.weights import save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures: four of one size, the third of another; a note, a hidden file."""
    photo = Image.fromarray(data.astronaut())
    for index in range(5):
        size = (40, 24) if index == 2 else (32, 32)
        photo.crop((index * 40, 0, index * 40 + 64, 64)).resize(size).save(tmp_path / f"face{index}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def test_pictures_come_in_order_of_name_and_batches_end_where_the_size_changes(folder: Path) -> None:
    pictures = Pictures(folder)
    assert pictures.names == [f"face{index}" for index in range(5)]
    assert pictures.size("face2") == (40, 24)
    shapes = [tuple(batch.shape) for batch in pictures.batches(pictures.names)]
    assert shapes == [(2, 3, 32, 32), (1, 3, 24, 40), (2, 3, 32, 32)]
    whole = next(pictures.batches(pictures.names, size=16))
    assert whole.shape == (5, 3, 16, 16) and whole.dtype == torch.uint8
    assert floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_a_zip_is_read_as_a_folder_is(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.glob("face*.png")):
            packed.write(file, f"images/{file.name}")
        packed.writestr("__MACOSX/images/._face0.png", b"")
    pictures = Pictures(archive)
    assert pictures.names == [f"images/face{index}" for index in range(5)]
    assert pictures.size("images/face2") == (40, 24)
    np.testing.assert_array_equal(pictures.pixels("images/face0"), Pictures(folder).pixels("face0"))


def test_pictures_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    pictures = Pictures(tmp_path)
    assert pictures.size("turned") == (20, 30)
    assert pictures.pixels("turned").shape == (30, 20, 3)


def test_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "face3.png").write_bytes((folder / "face3.png").read_bytes()[:100])
    with pytest.raises(InputError, match=r"face3\.png cannot be read"):
        list(Pictures(folder).batches(["face3"]))
    with pytest.raises(InputError, match="no folder or zip"):
        Pictures(tmp_path / "nowhere")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        Pictures(tmp_path / "text.zip")
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as packed:
        packed.writestr("readme.txt", "nothing")
    (tmp_path / "empty.zip").write_bytes(empty.getvalue())
    with pytest.raises(InputError, match="holds no picture"):
        Pictures(tmp_path / "empty.zip")


def test_measures_are_chosen_by_name_or_kind() -> None:
    assert [(measure.name, named) for measure, named in protocol.chosen("ssim, PSNR")] == [("psnr", True), ("ssim", True)]
    assert {(measure.kind, named) for measure, named in protocol.chosen("sets,ppl")} == {("sets", False), ("paths", True)}
    assert len(protocol.chosen(None)) == len(protocol.MEASURES)
    with pytest.raises(InputError, match="did you mean 'psnr'"):
        protocol.chosen("fid,psnrr")
    with pytest.raises(InputError, match="names none"):
        protocol.chosen(" , ")
    with pytest.raises(InputError, match="no convention 'tensorflow'"):
        protocol.convention("tensorflow")
    assert protocol.enough(protocol.MEASURES["is"], [10, 12]) == ""
    assert protocol.enough(protocol.MEASURES["is"], [9, 12]) == "needs at least 10 pictures in each set, not 9"


def test_only_the_published_network_gives_a_published_name() -> None:
    for measure in protocol.MEASURES.values():
        named = measure.name in {"fid", "kid", "is", "lpips", "ppl", "precision-recall"}
        assert named == (measure.space in {"inception", "lpips"}), measure.name
        if measure.space == "limn":
            assert "limn-identity" in measure.title


def test_patches_drawn_in_chunks_give_the_distance_of_whole_sets() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 70, 3, 32, 32, generator=rng)
    draw = torch.Generator().manual_seed(5)
    ours, theirs = (sliced.descriptors(each.split(sliced.CHUNK), draw) for each in (a, b))
    assert sliced.compare(ours, theirs, draw) == sliced.sliced_wasserstein(a, b, seed=5)
    assert list(ours) == [32, 16] and ours[32].shape == (70 * 128, 147)
    with pytest.raises(InputError, match="one size"):
        sliced.compare({64: ours[32]}, theirs, draw)


def drawn(config: Config) -> Lpips:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Lpips(config).eval()


def test_lpips_is_put_together_from_trunk_and_learned_weights_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMN_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    config = Config("squeeze")
    whole = drawn(config)
    assert whole.linear is not None
    save(tmp_path / "models/squeeze-linear.safetensors", whole.linear, "lpips", "linear", config, {"sha256": "ab" * 32})
    assert not networks.find([]).has("lpips"), "learned weights without a trunk are not LPIPS"
    save(tmp_path / "trunk.safetensors", whole.trunk, "lpips", "trunk", config)
    found = networks.find([str(tmp_path / "trunk.safetensors")])
    assert list(found.lpips) == ["squeeze"] and "ab" * 32 in found.hashes["lpips squeeze"]
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        expected = whole(a, b)
        torch.testing.assert_close(found.lpips["squeeze"](a, b), expected)
        embed = networks.lpips_vectors(found.lpips["squeeze"])
        apart = (embed((a + 1) * 127.5) - embed((b + 1) * 127.5)).square().sum(1)
        torch.testing.assert_close(apart, expected, rtol=1e-4, atol=1e-5)


def test_vectors_of_limn_identity_are_its_perceptual_distance() -> None:
    found = networks.find([])
    assert found.limn is not None and not found.has("inception")
    a, b = torch.rand(2, 2, 3, 48, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    embed = networks.limn_vectors(found.limn.model)
    with torch.inference_mode():
        apart = (embed((a + 1) * 127.5) - embed((b + 1) * 127.5)).square().sum(1)
        torch.testing.assert_close(apart, perceptual.distance(found.limn.model.features, a, b), rtol=1e-3, atol=1e-5)  # type: ignore[arg-type]


def test_networks_that_no_measure_uses_are_refused(tmp_path: Path) -> None:
    from limn.models.perception.yunet import NETWORKS
    from limn.models.perception.yunet import Config as YuNet

    (part, build), *_ = NETWORKS.items()
    file = save(tmp_path / "detector.safetensors", build(YuNet()), "yunet", part, YuNet())
    with pytest.raises(WeightsError, match="features are taken from inception, lpips, limn-identity"):
        networks.find([str(file)])


def test_landmark_error_is_a_share_of_the_eye_distance() -> None:
    true = np.random.default_rng(0).uniform(0, 100, (68, 2))
    true[36], true[45] = (20, 50), (70, 50)
    assert landmarks.landmark_error(true + np.array([3, 4]), true) == pytest.approx(5 / 50)
    assert landmarks.turned(np.array([359.0, -359.0, 170.0])).tolist() == [-1, 1, 170]


def test_pictures_without_a_face_have_no_error() -> None:
    rng = np.random.default_rng(0)
    mesh = rng.uniform(0, 100, (478, 3)).astype(np.float32)
    first = Face((0, 0, 9, 9), 0.9, np.zeros((5, 2), np.float32), mesh, (10.0, 5.0, 179.0))
    second = Face((0, 0, 9, 9), 0.9, np.zeros((5, 2), np.float32), mesh, (-5.0, 5.0, -179.0))
    pictures = [Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8))]
    both = iter([first, second])
    assert landmarks.errors(*pictures, find=lambda _: next(both)).tolist() == pytest.approx([0, 15, 0, 2])
    one = iter([first, None])
    assert np.isnan(landmarks.errors(*pictures, find=lambda _: next(one))).all()


def test_small_pictures_get_room_for_the_detector() -> None:
    canvas = landmarks.roomy(Image.new("RGB", (64, 32), "white"))
    assert canvas.size == (768, 384)
    assert canvas.getpixel((0, 0)) == (128, 128, 128) and canvas.getpixel((384, 192)) == (255, 255, 255)


def test_a_measurement_says_its_protocol() -> None:
    assert "features inception" in str(Measurement("FID", 1.5, {"features": "inception"}))

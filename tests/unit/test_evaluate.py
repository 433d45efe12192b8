"""`limn evaluate`: numbers equal to those of the functions they come from, protocols beside them, errors that say what to do."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from skimage import data
from torch import nn

from limn import cli
from limn.errors import InputError, WeightsError
from limn.faces import Face
from limn.metrics import landmarks, networks, pairs
from limn.metrics.features import vectors
from limn.metrics.frechet import frechet
from limn.metrics.kernel import kid
from limn.metrics.pictures import Pictures, floats
from limn.metrics.precision import precision_recall
from limn.metrics.score import inception_score
from limn.metrics.sliced import sliced_wasserstein
from limn.models.generation.stylegan2 import Config, Generator
from limn.models.perception.inception import CHAINS
from limn.tasks.evaluate import Evaluation, evaluate
from limn.weights import Loaded, load, save

COUNT = 6


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six pictures of 32 pixels in a folder, and blurred ones of the same names in another."""
    photo = Image.fromarray(data.astronaut())
    sharp, soft = tmp_path_factory.mktemp("sharp"), tmp_path_factory.mktemp("soft")
    for index in range(COUNT):
        picture = photo.crop((index * 50, 40, index * 50 + 128, 168)).resize((32, 32))
        picture.save(sharp / f"face{index}.png")
        picture.filter(ImageFilter.GaussianBlur(1)).save(soft / f"face{index}.webp", lossless=True)
    return soft, sharp


@pytest.fixture(autouse=True)
def _empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "home"))


def images(folder: Path) -> torch.Tensor:
    pictures = Pictures(folder)
    return floats(torch.cat(list(pictures.batches(pictures.names))))


def values(result: Evaluation) -> dict[str, float]:
    return {each.name: each.value for each in result.measurements}


def test_numbers_are_those_of_the_functions(sets: tuple[Path, Path], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = evaluate(*sets, out=report)
    a, b = (images(folder) for folder in sets)
    network: Any = load("limn-identity").model
    ours, theirs = (vectors(network.moments, each) for each in (a, b))
    found = values(result)
    assert found["Fréchet distance, limn-identity features"] == pytest.approx(frechet(ours.numpy(), theirs.numpy()))
    assert found["kernel distance, limn-identity features"] == pytest.approx(kid(ours.numpy(), theirs.numpy())[0])
    assert found["recall, limn-identity features"] == precision_recall(ours, theirs).recall
    assert found["sliced Wasserstein distance x 1000"] == pytest.approx(sliced_wasserstein(a, b).mean, rel=1e-4)
    assert found["PSNR, dB"] == pytest.approx(float(pairs.psnr(a, b).mean()))
    assert found["SSIM"] == pytest.approx(float(pairs.ssim(a, b).mean()))
    assert found["MS-SSIM"] == pytest.approx(float(pairs.ms_ssim(a, b, 2).mean()))
    assert 0.5 < found["identity similarity, limn-identity"] < 1
    assert not {"FID", "LPIPS"} & found.keys(), "limn's own features never bear a published name"
    assert any(line.startswith("fid, kid, precision-recall, is: needs the Inception weights") for line in result.left_out)
    stored = json.loads(report.read_text(encoding="utf-8"))
    assert [each["value"] for each in stored["measurements"]] == [each.value for each in result.measurements]
    assert len(stored["about"]["networks"]["limn-identity"]) >= 64, "the whole hash of the features"


def test_every_number_has_its_protocol(sets: tuple[Path, Path]) -> None:
    for each in evaluate(*sets).measurements:
        assert {"images", "range", "size"} <= each.protocol.keys(), each.name
        assert each.protocol["images"] == "6 against 6" and each.protocol["size"] == "32x32"
        if "limn-identity" in each.name:
            assert {"features", "weights", "resize", "convention"} <= each.protocol.keys(), each.name


def test_a_zip_and_a_draw_by_seed(sets: tuple[Path, Path], tmp_path: Path) -> None:
    archive = tmp_path / "soft.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sets[0].iterdir():
            packed.write(file, file.name)
    asked = {"metrics": "psnr,swd", "count": 4, "seed": 3}
    first, again, other = (values(evaluate(one, sets[1], **asked)) for one in (sets[0], archive, sets[0]))  # type: ignore[arg-type]
    assert first == again == other
    assert first != values(evaluate(sets[0], sets[1], **asked | {"seed": 4}))  # type: ignore[arg-type]


def test_equal_pictures_are_counted_beside_the_mean(sets: tuple[Path, Path], tmp_path: Path) -> None:
    same = evaluate(sets[1], sets[1], metrics="psnr,ssim", out=tmp_path / "same.json")
    assert same.measurements[0].value == float("inf") and same.measurements[0].protocol["equal pairs, not in the mean"] == COUNT
    assert json.loads((tmp_path / "same.json").read_text())["measurements"][0]["value"] == "inf"
    assert same.measurements[1].value == pytest.approx(1)


class Inceptionlike(nn.Module):
    """Means over an 4 x 4 grid, where Inception has its features."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [F.adaptive_avg_pool2d(x, 2).flatten(1)[..., None, None]]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return features * 5


@pytest.mark.parametrize(("library", "chain", "covariance"), [("clean-fid", "clean", "unbiased"), ("nvlabs", "tensorflow", "nvlabs")])
def test_fid_follows_the_convention_named(
    sets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, library: Any, chain: str, covariance: Any
) -> None:
    network = Inceptionlike()
    known = networks.Networks(
        inception=Loaded(network, "inception", "inception", None, {}, "c0ffee" * 8), hashes={"inception": "c0ffee" * 8}
    )
    monkeypatch.setattr(networks, "find", lambda *_: known)
    found = evaluate(*sets, metrics="fid,kid,precision-recall", convention=library).measurements
    ours, theirs = (network(CHAINS[chain]((images(folder) + 1) * 127.5))[-1].flatten(1).numpy() for folder in sets)
    assert found[0].value == pytest.approx(frechet(ours, theirs, covariance), rel=1e-5)
    assert found[1].value == pytest.approx(kid(ours, theirs)[0], rel=1e-5)
    assert found[0].protocol["resize"] == f"{chain} to 299" and found[0].protocol["convention"] == library
    assert found[0].protocol["weights"] == "c0ffeec0ffee"
    with pytest.raises(InputError, match="is: needs at least 10 pictures in each set, not 6"):
        evaluate(*sets, metrics="is")
    bigger = sets[0].parent / f"bigger-{library}"
    bigger.mkdir()
    for index in range(12):
        Image.fromarray(data.astronaut()[index * 9 : index * 9 + 40, :40]).save(bigger / f"{index:02}.png")
    score = evaluate(bigger, bigger, metrics="is", convention=library).measurements[0]
    logits = network.logits(network(CHAINS[chain]((images(bigger) + 1) * 127.5))[-1].flatten(1)).numpy()
    assert score.value == pytest.approx(inception_score(logits, 10, None if library == "nvlabs" else 2020)[0], rel=1e-5)


def test_landmarks_and_pose_count_the_faces(sets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = np.random.default_rng(0).uniform(0, 100, (478, 3)).astype(np.float32)
    seen: list[Image.Image] = []

    def find(image: Image.Image) -> Face | None:
        seen.append(image)
        box, points = (0.0, 0.0, 9.0, 9.0), np.zeros((5, 2), np.float32)
        return None if len(seen) == 1 else Face(box, 0.9, points, mesh, (float(len(seen) % 2), 0.0, 0.0))

    from limn.metrics import matched

    monkeypatch.setattr(matched.Way, "__init__", _with(matched.Way.__init__, find))
    found = evaluate(*sets, metrics="landmarks,pose").measurements
    assert len(seen) == 2 * COUNT, "one search for both measures"
    assert [each.value for each in found] == pytest.approx([0, 1, 0, 0])
    assert found[0].protocol["pairs with a face in both"] == COUNT - 1 and found[0].protocol["without"] == 1


def _with(init: Any, find: landmarks.Find) -> Any:
    return lambda self, *args: init(self, *args, find=find)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config(size=16, z_dim=12, w_dim=8, mapping_layers=2, channels=(8, 8, 4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return save(tmp_path_factory.mktemp("models") / "tiny.safetensors", Generator(config), "stylegan2", "generator", config)


def test_a_generator_is_measured_against_a_folder(sets: tuple[Path, Path], generator: Path) -> None:
    result = evaluate(sets[1], model=str(generator), metrics="fd-limn,swd", seed=7)
    assert values(result) == values(evaluate(sets[1], model=str(generator), metrics="fd-limn,swd", seed=7))
    terms = result.measurements[0].protocol
    assert terms["images"] == "6 against 6" and terms["samples"] == "truncation 1.0, seeds 7-12"
    assert terms["size"] == "16x16, resized by Lanczos where larger or smaller"
    with pytest.raises(InputError, match="psnr: a generator's samples have no counterparts"):
        evaluate(sets[1], model=str(generator), metrics="psnr")


def test_path_length_of_a_generator(sets: tuple[Path, Path], generator: Path) -> None:
    (found,) = evaluate(sets[1], model=str(generator), metrics="ppl-limn", count=100).measurements
    assert found.value > 0 and found.protocol["epsilon"] == 1e-4 and found.protocol["paths"] == 100
    with pytest.raises(InputError, match="ppl-limn: needs at least 100 samples, not 6"):
        evaluate(sets[1], model=str(generator), metrics="ppl-limn")
    with pytest.raises(InputError, match="ppl-limn: needs --model NAME"):
        evaluate(*sets, metrics="ppl-limn")


def test_what_cannot_be_measured_is_said(sets: tuple[Path, Path], tmp_path: Path) -> None:
    soft, sharp = sets
    with pytest.raises(WeightsError, match=r"fid: needs the Inception weights .* fd-limn"):
        evaluate(soft, sharp, metrics="fid")
    with pytest.raises(WeightsError, match=r"lpips: needs LPIPS weights"):
        evaluate(soft, sharp, metrics="lpips")
    with pytest.raises(InputError, match="did you mean 'ssim'"):
        evaluate(soft, sharp, metrics="sssim")
    with pytest.raises(InputError, match="give a second folder"):
        evaluate(soft)
    with pytest.raises(InputError, match=r"--count 50: .* holds 6 pictures"):
        evaluate(soft, sharp, count=50)
    with pytest.raises(InputError, match=r"report is a \.json file"):
        evaluate(soft, sharp, out=tmp_path / "report.txt")
    with pytest.raises(InputError, match="fd-limn: needs at least 2 pictures in each set, not 1"):
        evaluate(soft, sharp, count=1, metrics="fd-limn")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no picture"):
        evaluate(tmp_path / "empty", sharp)


def test_pairs_are_of_one_name_and_size(sets: tuple[Path, Path], tmp_path: Path) -> None:
    soft, _ = sets
    other = tmp_path / "other"
    other.mkdir()
    for file in sorted(soft.iterdir()):
        Image.open(file).resize((48, 40) if file.stem == "face2" else (32, 32)).save(other / f"{file.stem}.png")
    with pytest.raises(InputError, match=r"psnr: face2 is 32x32 pixels in the first and 48x40 in the second.*--size N"):
        evaluate(soft, other, metrics="psnr")
    with pytest.raises(InputError, match=r"nothing can be measured here.*fd-limn.*needs square portraits aligned as 'ffhq', but face2"):
        evaluate(soft, other)
    assert (
        evaluate(soft, other, metrics="psnr", size=32).measurements[0].protocol["size"]
        == "32x32, resized by Lanczos where larger or smaller"
    )
    (other / "face5.png").rename(other / "stranger.png")
    with pytest.raises(InputError, match=r"only 5 of 7 names are in both \(face5 only in .*soft.*, stranger only in"):
        evaluate(soft, other, metrics="ssim")


def test_the_command_line_ends_with_2_and_one_line(sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(sets[0]), str(sets[1]), "--metrics", "psnr", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["measurements"][0]["name"] == "PSNR, dB" and shown["measurements"][0]["protocol"]["peak"] == 255
    assert cli.main(["evaluate", str(sets[0]), str(sets[1]), "--metrics", "fids"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'fid'" in said and said.count("\n") == 1

"""`limn data`: what check finds, that align keeps its transforms and goes on, that a package holds what went in."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limn import cli, faces
from limn.errors import InputError
from limn.faces import Face
from limn.faces.templates import matrix as template_matrix
from limn.tasks.data import align, check, pack
from limn.training.datasets import inspect, open_dataset
from limn.training.datasets.labels import rows
from limn.training.datasets.source import open_source

POINTS = np.array([[90, 100], [140, 98], [116, 130], [96, 155], [136, 154]], np.float32)


def pixels(index: int, size: tuple[int, int] = (24, 24)) -> Image.Image:
    rng = np.random.default_rng(index)
    return Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty sound pictures."""
    made = tmp_path / "set"
    (made / "sub").mkdir(parents=True)
    for index in range(20):
        pixels(index).save(made / ("sub" if index % 2 else ".") / f"{index:02}.png")
    return made


def problems(data: Path, **options: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for it in check(data, **options).findings:
        found.setdefault(it.file, set()).add(it.problem)
    return found


def test_a_sound_folder_has_no_findings(folder: Path) -> None:
    report = check(folder)
    assert (report.files, report.sound, report.findings, report.exit_code) == (20, 20, (), 0)


def test_check_names_every_fault(folder: Path) -> None:
    data = (folder / "00.png").read_bytes()
    pixels(30).save(folder / "cut.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-300])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "twice.png").write_bytes(data)
    pixels(31).convert("L").save(folder / "grey.png")
    pixels(32).convert("RGBA").save(folder / "alpha.png")
    pixels(33).convert("CMYK").save(folder / "press.jpg")
    Image.fromarray(np.asarray(pixels(34).convert("L"), np.uint16) * 257).save(folder / "deep.png")
    pixels(35, (30, 24)).save(folder / "wide.png")
    pixels(36, (12, 12)).save(folder / "small.png")
    pixels(37, (96, 96)).save(folder / "x1.png")
    pixels(37, (96, 96)).save(folder / "x2.jpg", quality=60)
    (folder / "notes.md").write_text("about")
    found = problems(folder, size=20)
    assert found == {
        "cut.jpg": {"truncated"},
        "text.png": {"undecodable"},
        "empty.jpg": {"undecodable"},
        "twice.png": {"duplicate"},
        "grey.png": {"grey"},
        "alpha.png": {"alpha"},
        "press.jpg": {"CMYK"},
        "deep.png": {"16-bit", "grey"},
        "wide.png": {"not square"},
        "small.png": {"small"},
        "x2.jpg": {"near duplicate"},
        "notes.md": {"not a picture"},
    }
    report = check(folder, notes=False)
    assert {it.file for it in report.findings} == {"cut.jpg", "text.png", "empty.jpg", "wide.png"} and report.stops == 4
    assert report.totals["duplicate"] == 1 and report.exit_code == 1
    assert "odd aspect" in problems_of_strip(folder)


def problems_of_strip(folder: Path) -> set[str]:
    pixels(40, (96, 24)).save(folder / "strip.png")
    return problems(folder, square=False)["strip.png"]


def test_check_names_faults_of_labels_and_pairs(folder: Path, tmp_path: Path) -> None:
    names = open_source(folder).names
    rows_ = [[name, index % 3] for index, name in enumerate(names[:-1])] + [["gone.png", 1]]
    rows_[4][1] = 7
    (folder / "dataset.json").write_text(json.dumps({"labels": rows_}))
    found = problems(folder, classes=3)
    assert found == {names[-1]: {"no label row"}, "gone.png": {"label without picture"}, str(rows_[4][0]): {"label"}}
    (folder / "dataset.json").write_text("[]")
    assert problems(folder)["dataset.json"] == {"label"}
    for name in ("A/1.png", "A/2.png", "B/1.png", "B/3.png"):
        (tmp_path / "pairs" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels(hash(name) % 1000).save(tmp_path / "pairs" / name)
    found = problems(tmp_path / "pairs", kind="paired")
    assert found == {"A/2.png": {"unmatched"}, "B/3.png": {"unmatched"}}


def test_check_names_faults_of_masks(tmp_path: Path) -> None:
    for name, side in (("1", 24), ("2", 20), ("3", 24)):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        pixels(int(name)).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(np.full((side, side), 9 if name == "3" else 1, np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    found = problems(tmp_path, kind="masks", classes=3, notes=False)
    assert found == {"masks/2.png": {"mask size"}, "masks/3.png": {"mask levels"}}


def test_check_counts_faces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([0, 2] + [1] * 18)
    monkeypatch.setattr(faces, "detect", lambda image, detector, **_: [None] * next(counts))
    found = [it.problem for it in check(folder, faces=True, workers=1).findings]
    assert found == ["no face", "several faces"]


def test_near_duplicates_are_found_as_by_comparing_all() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((60, 256)) < 0.5
    for row in range(30, 60):  # copies with 0 to 29 bits turned
        bits[row] = bits[row - 30]
        bits[row, rng.permutation(256)[: row - 30]] ^= True
    found = {(late, early): apart for late, early, apart in inspect.near(bits)}
    assert found == {(row, row - 30): row - 30 for row in range(30, 30 + inspect.NEAR + 1)}


def test_the_command_ends_with_1_where_a_training_would_stop(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 20
    (folder / "bad.png").write_bytes(b"bad")
    assert cli.main(["data", "check", str(folder)]) == 1
    assert "bad.png" in capsys.readouterr().out
    assert cli.main(["data", "check", str(folder / "missing")]) == 2


def labelled(folder: Path) -> None:
    names = open_source(folder).names
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "identity", "era"], *([Path(n).name, f"p{i // 2}", "new, old"] for i, n in enumerate(names))])
    (folder / "dataset.json").write_text(json.dumps({"labels": [[name, i % 4] for i, name in enumerate(names)]}))


@pytest.mark.parametrize("out", ["packed.zip", "shard-%03d.tar"])
def test_a_package_opens_as_the_folder_does(out: str, folder: Path, tmp_path: Path) -> None:
    labelled(folder)
    packed = pack(folder, out=tmp_path / out, per_shard=8)
    assert packed.pictures == 20 and len(packed.files) == (1 if out.endswith("zip") else 3)
    where = packed.files[0] if out.endswith("zip") else tmp_path / "shard-{000..002}.tar"
    assert rows(open_source(where)) == rows(open_source(folder))
    config = SimpleNamespace(size=16, c_dim=4)
    one, two = (open_dataset("images", path, config) for path in (folder, where))
    for key, value in one.batch(3, 5, 1).items():
        assert torch.equal(value, two.batch(3, 5, 1)[key])
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in packed.files]
    for file in packed.files:
        file.unlink()
    again = pack(folder, out=tmp_path / out, per_shard=8)
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in again.files] == digests, "the same bytes every time"


def test_packing_resizes_crops_and_leaves_no_half_package(folder: Path, tmp_path: Path) -> None:
    pixels(50, (40, 24)).save(folder / "wide.jpg")
    with pytest.raises(InputError, match=r"wide\.jpg: is 40×24: align it, or give --crop"):
        pack(folder, out=tmp_path / "a.zip", size=16)
    (folder / "bad.png").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"bad\.png: cannot be decoded .*nothing was written"):
        pack(folder, out=tmp_path / "s-%02d.tar", size=16, crop=True, per_shard=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    packed = pack(folder, out=tmp_path / "a.zip", size=16, crop=True, skip_bad=True)
    assert packed.pictures == 21 and [it.file for it in packed.left_out] == ["bad.png"]
    source = open_source(tmp_path / "a.zip")
    assert "wide.png" in source.names
    assert check(tmp_path / "a.zip").exit_code == 0


def test_shards_that_are_there_are_not_mixed_with_new_ones(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "s-7.tar").touch()
    with pytest.raises(InputError, match=r"s-7\.tar is there from before"):
        pack(folder, out=tmp_path / "s-%d.tar")
    with pytest.raises(InputError, match=r"shards-%06d\.tar"):
        pack(folder, out=tmp_path / "s.tar")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[int]]:
    """Six photographs of which one is broken and one has no face, and the colours at their corners that were looked at."""
    made, looked = tmp_path / "photos", list[int]()
    made.mkdir()
    for index in range(6):
        image = pixels(index, (240, 220))
        image.putpixel((0, 0), (index, 0, 0))
        image.save(made / f"{index}.png")
    (made / "4.png").write_bytes((made / "4.png").read_bytes()[:200])

    def detect(image: Image.Image, detector: str) -> list[Face]:
        index = int(image.getpixel((0, 0))[0])  # type: ignore[index]
        looked.append(index)
        count = 0 if index == 2 else 2 if index == 3 else 1
        shift = np.array([index, 2 * index], np.float32)
        return [Face((80, 70, 150, 170), 0.9, POINTS + shift + 40 * which, index=which) for which in range(count)]

    monkeypatch.setattr(faces, "detect", detect)
    return made, looked


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_align_keeps_transforms_that_lead_back(photos: tuple[Path, list[int]], tmp_path: Path) -> None:
    made, _ = photos
    result = align(made, out=tmp_path / "out", size=64, faces="all")
    assert (result.photos, result.crops) == (6, 5)
    assert {it.source: it.reason.split(":")[0].split("(")[0].strip() for it in result.skipped} == {
        "2.png": "the picture holds no face that was found",
        "4.png": "cannot be decoded",
    }
    found = table(result.transforms)
    assert [row["file"] for row in found] == ["0.png", "1.png", "3.png", "3_face1.png", "5.png"]
    for row in found:
        matrix = np.array(json.loads(row["matrix"])).reshape(2, 3)
        points = np.array(json.loads(row["points"])).reshape(5, 2)
        assert np.allclose(matrix, template_matrix("ffhq", points, 64), atol=1e-3)
        crop, photo = np.asarray(Image.open(tmp_path / "out" / row["file"]), float), np.asarray(Image.open(made / row["source"]), float)
        at = np.array([32.0, 36.0])  # a pixel of the crop, found again in the photograph by the inverse
        x, y = np.linalg.solve(matrix[:, :2], at - matrix[:, 2])
        assert np.abs(crop[36, 32] - photo[round(y), round(x)]).max() < 12
        assert float(row["score"]) == 0.9 and 0 < float(row["inside"]) <= 1
    assert [row["source"] for row in table(tmp_path / "out" / "skipped.csv")] == ["2.png", "4.png"]
    assert check(tmp_path / "out").totals.get("undecodable") is None
    assert len(open_dataset("images", tmp_path / "out", SimpleNamespace(size=32), True, where=["score>0.5"])) >= 4


def test_align_goes_on_where_it_stopped(photos: tuple[Path, list[int]], tmp_path: Path) -> None:
    made, looked = photos
    out = tmp_path / "out"
    align(made, out=out, size=64)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    looked.clear()
    (out / "1.png").unlink()  # lost
    text = (out / "transforms.csv").read_text()
    (out / "transforms.csv").write_text(text[: text.rindex("5.png,5.png") + 20])  # killed while it wrote the last line
    result = align(made, out=out, size=64)
    assert sorted(looked) == [1, 2, 5], "what is there is not done again; what was skipped is tried again"
    assert result.already == 2 and {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(InputError, match="holds crops made with size 64"):
        align(made, out=out, size=128)


def test_align_keeps_labels_and_leaves_out_small_faces(photos: tuple[Path, list[int]], tmp_path: Path) -> None:
    made, _ = photos
    (made / "labels.csv").write_text("file,identity\n0.png,anna\n1.png,bob\n")
    result = align(made, out=tmp_path / "out", size=64)
    known = {row["file"]: row["identity"] for row in table(tmp_path / "out" / "labels.csv")}
    assert known["0.png"] == "anna" and known["1.png"] == "bob" and known["5.png"] == ""
    small = align(made, out=tmp_path / "other", size=64, smallest=200)
    assert small.crops == 0 and "fewer than 200" in small.skipped[0].reason
    assert result.crops == 4


def test_align_says_what_is_wrong_with_the_wish(photos: tuple[Path, list[int]], tmp_path: Path) -> None:
    made, _ = photos
    with pytest.raises(InputError, match="there is no face template"):
        align(made, out=tmp_path / "out", template="fhq")
    with pytest.raises(InputError, match="frames a whole clip"):
        align(made, out=tmp_path / "out", template="fomm")
    with pytest.raises(InputError, match="is a file"):
        align(made, out=made / "0.png")


def test_pack_takes_what_fits_and_both_shares_make_the_whole(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(60):
        pixels(index).save(folder / f"{index:03}.png")
    lines = [f"{index:03}.png,{'old' if index % 3 else 'new'},person {index // 2}" for index in range(60)]
    (folder / "labels.csv").write_text("\n".join(["file,era,identity", *lines]))
    names = {}
    for share in ("all", "training", "held-out"):
        packed = pack(folder, out=tmp_path / f"{share}.zip", where=["era=old"], share=share)  # type: ignore[arg-type]
        names[share] = open_source(packed.files[0]).names
    assert len(names["all"]) == 40, "forty of the sixty are old"
    assert names["held-out"] and sorted(names["training"] + names["held-out"]) == list(names["all"])
    with pytest.raises(InputError, match="era=future"):
        pack(folder, out=tmp_path / "none.zip", where=["era=future"])

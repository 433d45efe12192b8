"""Every kind of dataset: what it gives, one broken file among a hundred, order and held-out share that depend on names and seed alone."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limn.errors import InputError, LimnError
from limn.media import write_video
from limn.training.datasets import open_dataset
from limn.training.datasets.order import is_held_out
from limn.training.datasets.pictures import Store, decode
from limn.training.datasets.source import open_source

CONFIG = SimpleNamespace(size=16)
COUNT = 100
BROKEN = 37


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "home"))


def pixels(index: int, size: int = 20) -> Image.Image:
    """A smooth picture that is like no other."""
    rng = np.random.default_rng(index)
    return Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def cut(path: Path) -> None:
    """Lose the second half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def table(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def images(root: Path) -> str:
    for index in range(COUNT):
        save(root / f"{index:03}.png", pixels(index))
    return f"{BROKEN:03}.png"


def attributes(root: Path) -> str:
    broken = images(root)
    table(root, [{"file": f"{i:03}.png", "Smiling": i % 2, "Male": -1 if i % 3 else 1, "yaw": 0.1 * i} for i in range(COUNT)])
    return broken


def identities(root: Path) -> str:
    for index in range(COUNT):
        save(root / f"person{index // 2:02}" / f"{index % 2}.png", pixels(index))
    return f"person{BROKEN // 2:02}/{BROKEN % 2}.png"


def paired(root: Path) -> str:
    for index in range(COUNT):
        save(root / "source" / f"{index:03}.png", pixels(index))
        save(root / "target" / f"{index:03}.jpg", pixels(index).transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    return f"target/{BROKEN:03}.jpg"


def side_by_side(root: Path) -> str:
    for index in range(COUNT):
        both = Image.new("RGB", (40, 20))
        both.paste(pixels(index), (0, 0))
        both.paste(pixels(index + 1000), (20, 0))
        save(root / f"{index:03}.png", both)
    return f"{BROKEN:03}.png"


def unpaired(root: Path) -> str:
    for index in range(COUNT):
        save(root / "A" / f"a{index:03}.png", pixels(index))
    for index in range(20):
        save(root / "B" / f"b{index:03}.png", pixels(index + 1000))
    return f"A/a{BROKEN:03}.png"


def masks(root: Path) -> str:
    for index in range(COUNT):
        save(root / "images" / f"{index:03}.png", pixels(index))
        levels = np.zeros((20, 20), np.uint8)
        levels[:, : index % 20] = 2
        save(root / "masks" / f"{index:03}.png", Image.fromarray(levels))
    return f"masks/{BROKEN:03}.png"


def clips(root: Path) -> str:
    root.mkdir()
    for index in range(6):
        frames = [Image.new("RGB", (32, 24), (40 * index, 20 * frame, 0)) for frame in range(12)]
        write_video(root / f"{index}.mp4", frames, 12)
    return "3.mp4"


KINDS: dict[str, tuple[str, Callable[[Path], str], dict[str, Any], tuple[str, ...]]] = {
    "images": ("images", images, {}, ("image",)),
    "attributes": ("attributes", attributes, {}, ("image", "attributes")),
    "identities": ("identities", identities, {"everyone": True}, ("image", "label")),
    "paired": ("paired", paired, {"jitter": 2}, ("source", "target")),
    "side by side": ("paired", side_by_side, {}, ("source", "target")),
    "unpaired": ("unpaired", unpaired, {"jitter": 2}, ("source", "target")),
    "masks": ("masks", masks, {"classes": 3}, ("image", "mask")),
    "clips": ("clips", clips, {}, ("frames", "time", "clip")),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_a_function_of_seed_and_step(name: str, tmp_path: Path) -> None:
    kind, make, options, keys = KINDS[name]
    make(tmp_path / "set")
    first, again = (open_dataset(kind, tmp_path / "set", CONFIG, True, **options) for _ in range(2))
    batches = [first.batch(step, 6, 0) for step in range(4)]
    assert set(batches[0]) == set(keys)
    for key in keys:
        assert len(batches[0][key]) == 6
        assert torch.equal(again.batch(3, 6, 0)[key], batches[3][key]), "a run resumed at step 3 must see what it would have seen"
    picture = batches[0][keys[0]]
    assert picture.shape[-3:] == (3, 16, 16) and picture.dtype == torch.float32
    assert -1 <= float(picture.min()) < float(picture.max()) <= 1
    assert not torch.equal(first.batch(0, 6, 1)[keys[0]], picture), "another seed, another order"


@pytest.mark.parametrize("name", KINDS)
def test_one_broken_file_is_named_before_the_first_step(name: str, tmp_path: Path) -> None:
    kind, make, options, _ = KINDS[name]
    broken = make(tmp_path / "set")
    share = not is_held_out(Path(broken).stem if kind in ("paired", "masks", "unpaired") else broken)
    cut(tmp_path / "set" / broken)
    with pytest.raises(LimnError, match=str(Path(broken).name).replace(".", r"\.")):
        open_dataset(kind, tmp_path / "set", CONFIG, share, **options)


@pytest.mark.parametrize("name", KINDS)
def test_skip_bad_reports_and_leaves_out(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, make, options, keys = KINDS[name]
    broken = make(tmp_path / "set")
    whole = open_dataset(kind, tmp_path / "set", CONFIG, True, **options)
    cut(tmp_path / "set" / broken)
    data = open_dataset(kind, tmp_path / "set", CONFIG, True, skip_bad=True, **options)
    assert len(data) == len(whole) - 1
    assert Path(broken).name in capsys.readouterr().err and Path(broken).name in data.left_out[0]  # type: ignore[attr-defined]
    assert len(data.batch(0, 6, 0)[keys[0]]) == 6


def test_what_does_not_fit_is_decoded_ahead_and_gives_the_same(tmp_path: Path) -> None:
    images(tmp_path / "set")
    whole = open_dataset("images", tmp_path / "set", CONFIG)
    room = 10 * 16 * 16 * 3 / 2**30
    lazy = open_dataset("images", tmp_path / "set", CONFIG, True, memory=room)
    assert lazy.store.room == 10, "the bound of memory is kept"  # type: ignore[attr-defined]
    for step in (0, 1, 2, 9, 3):
        assert torch.equal(lazy.batch(step, 8, 4)["image"], whole.batch(step, 8, 4)["image"])
        assert len(lazy.store.coming) <= 16, "two batches ahead at most"  # type: ignore[attr-defined]


def test_a_large_set_found_whole_is_not_read_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "set")
    open_dataset("images", tmp_path / "set", CONFIG, True, memory=0.0)
    made: list[int] = []
    fill = Store._tried
    monkeypatch.setattr(Store, "_tried", lambda self, number: made.append(number) or fill(self, number))  # type: ignore[func-returns-value]
    open_dataset("images", tmp_path / "set", CONFIG, True, memory=0.0)
    assert not made
    cut(tmp_path / "set" / f"{BROKEN:03}.png")
    with pytest.raises(InputError, match=f"{BROKEN:03}"):
        open_dataset("images", tmp_path / "set", CONFIG, True, memory=0.0)


def test_held_out_share_is_the_rest_and_keeps_people_together(tmp_path: Path) -> None:
    images(tmp_path / "set")
    table(tmp_path / "set", [{"file": f"{i:03}.png", "identity": f"p{i // 4}"} for i in range(COUNT)])
    train, held = (open_dataset("images", tmp_path / "set", CONFIG, share) for share in (True, False))
    people = [{row["identity"] for row in data.rows} for data in (train, held)]  # type: ignore[attr-defined]
    assert len(train) + len(held) == COUNT and len(held) > 0
    assert not people[0] & people[1]
    assert not held.mirror  # type: ignore[attr-defined]


def test_nvidia_labels_are_one_hot_or_vectors(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for index in range(COUNT):
        save(folder / f"{index // 50:05}" / f"img{index:08}.png", pixels(index))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    labels = [[name, index % 5] for index, name in enumerate(names)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in [*names, "dataset.json"]:
            archive.write(folder / name, name)
    for path in (folder, tmp_path / "set.zip"):
        data = open_dataset("images", path, SimpleNamespace(size=16, c_dim=5))
        batch = data.batch(2, 8, 0)
        assert batch["label"].shape == (8, 5) and (batch["label"].sum(1) == 1).all()
        wanted = dict(map(tuple, labels))
        assert [int(v.argmax()) for v in torch.from_numpy(data.labels)] == [wanted[row["file"]] for row in data.rows]  # type: ignore[attr-defined]
    (folder / "dataset.json").write_text(json.dumps({"labels": [[name, [0.5, index]] for index, name in enumerate(names)]}))
    vector = open_dataset("images", folder, CONFIG, True, label="label").batch(0, 4, 0)["label"]
    assert vector.shape == (4, 2) and (vector[:, 0] == 0.5).all()
    assert "label" not in open_dataset("images", folder, CONFIG).batch(0, 4, 0), "an unconditional model is given no labels"
    (folder / "dataset.json").write_text(json.dumps({"labels": [*labels[:-1], [names[-1], 7]]}))
    with pytest.raises(InputError, match=r"img00000099\.png has the label 7; expected 0 to 4"):
        open_dataset("images", folder, SimpleNamespace(size=16, c_dim=5), not is_held_out(names[-1]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,era\n000.png,modern\n", "no column 'file'; its columns are name, era"),
        ("file,era\n000.png,modern\n001.png\n", "line 3 has 1 cells, the header 2"),
        ("file,era\n000.png,modern\n000.png,old\n", "line 3 names 000.png, as line 2 does"),
        (b"file,era\n000.png,\xff\n", "is not UTF-8"),
    ],
)
def test_errors_of_labels_name_the_line(text: str | bytes, said: str, tmp_path: Path) -> None:
    save(tmp_path / "000.png", pixels(0))
    (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"labels\.csv: .*{said}"):
        open_dataset("images", tmp_path, CONFIG)


def test_attributes_of_celeba_and_values_out_of_range(tmp_path: Path) -> None:
    images(tmp_path / "set")
    lines = [f"{i:03}.png  {1 if i % 2 else -1} -1" for i in range(COUNT)]
    (tmp_path / "set" / "list_attr_celeba.txt").write_text("\n".join(["100", "Smiling Male", *lines]) + "\n")
    data = open_dataset("attributes", tmp_path / "set", CONFIG)
    assert data.names == ("Smiling", "Male")  # type: ignore[attr-defined]
    assert data.values[:, 1].max() == 0 and data.values[:, 0].mean() == pytest.approx(0.5, abs=0.05)  # type: ignore[attr-defined]
    (tmp_path / "set" / "list_attr_celeba.txt").unlink()
    attributes(tmp_path / "set")
    text = (tmp_path / "set" / "labels.csv").read_text()
    (tmp_path / "set" / "labels.csv").write_text(text.replace("005.png,1", "005.png,2"))
    with pytest.raises(InputError, match=r"005\.png has Smiling = '2'"):
        open_dataset("attributes", tmp_path / "set", CONFIG, not is_held_out("005.png"), columns=["Smiling"])


def test_pairs_move_together_and_a_single_one_is_named(tmp_path: Path) -> None:
    paired(tmp_path / "set")
    data = open_dataset("paired", tmp_path / "set", CONFIG, True, jitter=4)
    batch = data.batch(0, 16, 0)
    assert (batch["source"] - batch["target"].flip(2)).abs().mean() < 0.35, "mirrored and moved alike, but for the vertical shift"
    (tmp_path / "set" / "source" / "050.png").unlink()
    with pytest.raises(InputError, match=r"target/050\.jpg has no partner"):
        open_dataset("paired", tmp_path / "set", CONFIG)
    with pytest.raises(InputError, match="no folders left and right"):
        open_dataset("paired", tmp_path / "set", CONFIG, True, folders=("left", "right"))


def test_masks_keep_their_levels(tmp_path: Path) -> None:
    masks(tmp_path / "set")
    batch = open_dataset("masks", tmp_path / "set", CONFIG, True, classes=3).batch(0, 16, 0)
    assert batch["mask"].dtype == torch.int64 and set(batch["mask"].unique().tolist()) == {0, 2}
    with pytest.raises(InputError, match="has the value 2; expected 0 to 1"):
        open_dataset("masks", tmp_path / "set", CONFIG, True, classes=2)
    soft = open_dataset("masks", tmp_path / "set", CONFIG).batch(0, 4, 0)["mask"]
    assert soft.shape == (4, 1, 16, 16) and float(soft.max()) <= 2 / 255 + 1e-6


def test_frames_of_clips_are_in_order_of_time(tmp_path: Path) -> None:
    clips(tmp_path / "set")
    data = open_dataset("clips", tmp_path / "set", CONFIG, True, frames=3, fps=12)
    batch = data.batch(0, 8, 0)
    assert batch["frames"].shape == (8, 3, 3, 16, 16)
    green = batch["frames"][:, :, 1].mean((2, 3))
    assert (batch["time"].diff(dim=1) > 0).all() and (green.diff(dim=1) > 0).all(), "green grows with time in these clips"


def test_what_is_neither_grey_nor_8_bit_is_read_right(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    deep = save(tmp_path / "deep.png", Image.fromarray(ramp))
    assert (decode(deep.read_bytes(), 16, "deep")[..., 0] == np.arange(256).reshape(16, 16)).all(), "16 bits become 8 by scaling"
    upright = pixels(3, 16)
    exif = Image.Exif()
    exif[274] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert (decode((tmp_path / "turned.png").read_bytes(), 16, "turned") == np.asarray(upright)).all(), "EXIF orientation is applied"


def test_sources_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    (tmp_path / "a-0.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"no shard a-1\.tar"):
        open_source(tmp_path / "a-{0..1}.tar")
    with pytest.raises(InputError, match=r"a-0\.tar is no whole uncompressed tar"):
        open_source(tmp_path / "a-*.tar")
    with pytest.raises(InputError, match="there is no folder"):
        open_source(tmp_path / "missing")

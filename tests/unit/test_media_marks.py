"""Marks of origin in files: signed, complete, found again, and honest about what was changed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from limn.home import home
from limn.media import Origin, read_image, verify, write_image, write_video
from limn.media.identity import signing
from limn.tasks.verify import verify as verify_verb

MODEL = "00ff7a" + "1" * 58


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "home"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_image(Image.fromarray(astronaut()).resize((256, 256)), tmp_path / "photo.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_an_edit_says_what_it_is(tmp_path: Path, photo: Path, suffix: str) -> None:
    origin = Origin("edited", "portraits", MODEL, (photo,), {"smile": 1.5, "out": tmp_path})
    write_image(read_image(photo), tmp_path / f"a.{suffix}", origin=origin)
    marks = verify(tmp_path / f"a.{suffix}")
    said, seen = marks.credentials, marks.watermark
    assert marks.by_limn and said is not None and seen is not None
    assert (said.valid, said.own, said.problems) == (True, True, ()) and said.generator.startswith("limn 0")
    assert [action["action"] for action in said.actions] == ["c2pa.opened", "c2pa.edited"]
    assert said.actions[1]["source_type"] == "compositeWithTrainedAlgorithmicMedia"
    assert said.ingredients == ("photo.jpg",) and said.origin["sources"][0]["name"] == "photo.jpg"
    assert (said.origin["model"], said.origin["model_sha256"], said.origin["settings"]["smile"]) == ("portraits", MODEL, 1.5)
    assert (seen.how, seen.model_sha256) == ("edited", "00ff7a")


def test_a_generated_picture_and_its_whole_report(tmp_path: Path) -> None:
    write_image(Image.fromarray(astronaut()), tmp_path / "a.png", origin=Origin("generated", "portraits", MODEL, settings={"seed": 3}))
    report = verify_verb(tmp_path / "a.png")
    assert report["by_limn"] and json.dumps(report)
    action = report["credentials"]["actions"][0]
    assert action["action"] == "c2pa.created" and action["source_type"] == "trainedAlgorithmicMedia"
    assert "generated with portraits" in report["summary"] and "model 00ff7a" in report["summary"]


def test_a_clip_is_marked_in_every_frame(tmp_path: Path) -> None:
    frame = Image.fromarray(astronaut()).resize((320, 320))
    frames = [frame.rotate(i, Image.Resampling.BICUBIC) for i in range(8)]
    write_video(tmp_path / "a.mp4", frames, 25, origin=Origin("animated", "portraits", MODEL, consent="my own face"))
    marks = verify(tmp_path / "a.mp4")
    assert marks.credentials is not None and marks.credentials.valid and marks.credentials.origin["consent"] == "my own face"
    assert marks.watermark is not None and marks.watermark.how == "animated"


def test_a_changed_file_is_found_out(tmp_path: Path, photo: Path) -> None:
    write_image(read_image(photo), tmp_path / "a.jpg", origin=Origin("edited", "portraits", MODEL))
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    content[-2000] ^= 0x55
    (tmp_path / "a.jpg").write_bytes(content)
    said = verify(tmp_path / "a.jpg").credentials
    assert said is not None and not said.valid and "Hash" in said.problems[0]
    assert "do not hold" in verify_verb(tmp_path / "a.jpg")["summary"]


def test_the_watermark_outlives_the_credentials(tmp_path: Path, photo: Path) -> None:
    write_image(read_image(photo), tmp_path / "a.png", origin=Origin("swapped", "portraits", MODEL))
    Image.open(tmp_path / "a.png").convert("RGB").save(tmp_path / "shared.jpg", quality=75)
    marks = verify(tmp_path / "shared.jpg")
    assert marks.credentials is None and marks.watermark is not None and marks.watermark.how == "swapped" and marks.by_limn


def test_an_untouched_photo_has_no_marks(photo: Path) -> None:
    marks = verify(photo)
    assert not marks.by_limn and marks.credentials is None and marks.watermark is None


def test_pixels_outside_the_mask_and_metadata_stay(tmp_path: Path) -> None:
    image = Image.fromarray(astronaut())
    exif = image.getexif()
    exif[0x010F] = "Maker"
    for suffix in ("png", "tif"):
        image.save(tmp_path / f"in.{suffix}", exif=exif)
        read = read_image(tmp_path / f"in.{suffix}")
        mask = np.zeros((512, 512), np.float32)
        mask[20:290, 110:340] = 1
        origin = Origin("edited", "portraits", MODEL, (tmp_path / f"in.{suffix}",))
        write_image(read, tmp_path / f"out.{suffix}", origin=origin, mask=mask)
        with Image.open(tmp_path / f"out.{suffix}") as back:
            assert back.getexif()[0x010F] == "Maker"
            assert (np.asarray(back)[mask == 0] == np.asarray(image)[mask == 0]).all()


def test_sources_that_carry_no_credentials_are_still_named(tmp_path: Path, photo: Path) -> None:
    image = read_image(photo).image
    image.save(tmp_path / "old.gif")
    (tmp_path / "wrong.png").write_bytes(photo.read_bytes())
    origin = Origin("blended", "portraits", MODEL, (tmp_path / "old.gif", tmp_path / "wrong.png"))
    said = verify(write_image(image, tmp_path / "a.png", origin=origin)).credentials
    assert said is not None and said.valid and [entry["name"] for entry in said.origin["sources"]] == ["old.gif", "wrong.png"]
    assert said.ingredients == ("wrong.png",), "read by what it is, not by its name"


def test_the_key_is_kept_for_this_user_alone(tmp_path: Path) -> None:
    chain, key = signing()
    assert signing() == (chain, key) and home() == tmp_path / "home"
    assert (home() / "signing.pem").stat().st_mode & 0o077 == 0
    (home() / "signing.pem").write_text("damaged")
    signing.__globals__["_signing"].cache_clear()
    assert signing()[1] != key, "a damaged key is replaced"


def test_a_key_that_cannot_be_kept_still_signs(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "file"))
    write_image(read_image(photo), tmp_path / "a.png", origin=Origin("edited"))
    said = verify(tmp_path / "a.png").credentials
    assert said is not None and said.valid


def test_switching_off_is_recorded(tmp_path: Path, photo: Path) -> None:
    read = read_image(photo)
    write_image(read, tmp_path / "a.png", origin=Origin("edited", "portraits", MODEL, marked=False))
    assert read_image(tmp_path / "a.png").image.tobytes() == read.image.tobytes() and not verify(tmp_path / "a.png").by_limn
    line = json.loads((home() / "unmarked.jsonl").read_text())
    assert (line["file"], line["how"], line["model"]) == ("a.png", "edited", "portraits")


def test_a_kind_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="generated, edited"):
        Origin("painted")

"""Photographs in and out: every kind of file, every kind of damage."""

import errno
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin
from skimage.data import astronaut

from limn.errors import InputError
from limn.media import atomic, grid, read_image, to_image, to_tensor, write_image
from limn.media import jpeg as jpeg_tables


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(astronaut()).resize((160, 120))


def close(a: Image.Image, b: Image.Image, mean: float) -> bool:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean()) < mean


@pytest.mark.parametrize(("suffix", "mean"), [("jpg", 4), ("png", 1e-9), ("webp", 5), ("avif", 5), ("tif", 1e-9)])
def test_every_format_goes_out_and_comes_back(tmp_path: Path, photo: Image.Image, suffix: str, mean: float) -> None:
    back = read_image(write_image(photo, tmp_path / f"a.{suffix}"))
    assert back.size == photo.size and close(back.image, photo, mean)
    assert back.image.mode == "RGB" and back.alpha is None and not back.notes


def test_heic(tmp_path: Path, photo: Image.Image) -> None:
    pytest.importorskip("pillow_heif", reason="limn[heif] is not installed")
    assert close(read_image(write_image(photo, tmp_path / "a.heic")).image, photo, 5)


def oriented(photo: Image.Image, orientation: int) -> bytes:
    exif = photo.getexif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2026:11:20 10:00:00"
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    out = BytesIO()
    photo.save(out, "JPEG", quality=83, subsampling=1, exif=exif, xmp=packet, icc_profile=profile)
    return out.getvalue()


def test_orientation_is_applied_and_reset(tmp_path: Path, photo: Image.Image) -> None:
    (tmp_path / "a.jpg").write_bytes(oriented(photo, 6))
    read = read_image(tmp_path / "a.jpg")
    assert read.size == (120, 160)
    assert close(read.image, photo.transpose(Image.Transpose.ROTATE_270), 8)
    assert read.xmp and b'tiff:Orientation="1"' in read.xmp
    again = read_image(write_image(read, tmp_path / "b.jpg"))
    assert again.size == (120, 160), "orientation was applied twice"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_metadata_survives_an_edit(tmp_path: Path, photo: Image.Image, suffix: str) -> None:
    (tmp_path / "a.jpg").write_bytes(oriented(photo, 3))
    read = read_image(tmp_path / "a.jpg")
    write_image(read.image.convert("L"), tmp_path / f"b.{suffix}", like=read)
    back = read_image(tmp_path / f"b.{suffix}")
    assert back.icc == read.icc and back.xmp == read.xmp
    tags = Image.open(tmp_path / f"b.{suffix}").getexif()
    assert tags[0x010F] == "Maker" and tags.get(0x0112, 1) == 1
    assert tags.get_ifd(0x8769)[0x9003] == "2026:11:20 10:00:00"


def test_jpeg_keeps_its_quality(tmp_path: Path, photo: Image.Image) -> None:
    (tmp_path / "a.jpg").write_bytes(oriented(photo, 1))
    read = read_image(tmp_path / "a.jpg")
    assert (read.format, read.quality, read.subsampling) == ("JPEG", 83, 1)
    write_image(read, tmp_path / "b.jpg")
    with Image.open(tmp_path / "a.jpg") as a, Image.open(tmp_path / "b.jpg") as b:
        assert isinstance(a, JpegImagePlugin.JpegImageFile) and isinstance(b, JpegImagePlugin.JpegImageFile)
        assert a.quantization == b.quantization and JpegImagePlugin.get_sampling(b) == 1


@pytest.mark.parametrize("quality", [1, 20, 49, 50, 75, 90, 99, 100])
def test_quality_is_read_from_the_tables(photo: Image.Image, quality: int) -> None:
    out = BytesIO()
    photo.save(out, "JPEG", quality=quality)
    with Image.open(out) as opened:
        assert isinstance(opened, JpegImagePlugin.JpegImageFile)
        assert jpeg_tables.quality(opened.quantization) == quality


def test_the_thumbnail_of_the_unedited_face_is_dropped(tmp_path: Path, photo: Image.Image) -> None:
    secret = b"\xff\xd8the old face\xff\xd9"
    first = struct.pack("<HHHIHxx", 1, 0x0112, 3, 1, 6)
    second_at = 8 + len(first) + 4
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, second_at + 30, 0x0202, 4, 1, len(secret), 0)
    block = b"Exif\x00\x00II*\x00" + struct.pack("<I", 8) + first + struct.pack("<I", second_at) + second + secret
    photo.save(tmp_path / "a.jpg", exif=block)
    read = read_image(tmp_path / "a.jpg")
    assert read.exif and b"old face" not in read.exif and read.size == (120, 160)


def test_alpha_is_set_aside_and_put_back(tmp_path: Path, photo: Image.Image) -> None:
    rgba = photo.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(photo.size))
    rgba.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read.alpha is not None and read.image.tobytes() == photo.tobytes()
    back = Image.open(write_image(read, tmp_path / "b.png"))
    assert back.mode == "RGBA" and back.tobytes() == rgba.tobytes()
    assert Image.open(write_image(read, tmp_path / "b.jpg")).mode == "RGB"


def test_other_kinds_of_pixels_become_rgb_with_a_note(tmp_path: Path, photo: Image.Image) -> None:
    grey16 = (np.asarray(photo.convert("L"), np.uint16) * 257).astype(np.uint16)
    cases = {
        "l.png": photo.convert("L"),
        "one.png": photo.convert("1"),
        "p.png": photo.quantize(64),
        "la.png": photo.convert("LA"),
        "i16.png": Image.fromarray(grey16),
        "i16.tif": Image.fromarray(grey16),
        "f.tif": Image.fromarray(np.asarray(photo.convert("L"), np.float32) / 255),
        "cmyk.jpg": photo.convert("CMYK"),
        "lab.tif": ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"),
    }
    for name, image in cases.items():
        assert image is not None
        image.save(tmp_path / name)
        read = read_image(tmp_path / name)
        assert read.image.mode == "RGB" and read.notes, name
        expected = photo if name[0] in "pc" or name == "lab.tif" else photo.convert("L").convert("RGB")
        assert close(read.image, expected, 90 if name == "one.png" else 12), name
    assert read_image(tmp_path / "i16.png").image.tobytes() == photo.convert("L").convert("RGB").tobytes(), "16 bits are scaled exactly"


def test_profile_that_is_not_for_rgb_is_dropped(tmp_path: Path, photo: Image.Image) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo.convert("CMYK").save(tmp_path / "a.jpg", icc_profile=lab)
    assert read_image(tmp_path / "a.jpg").icc is None


def test_animation_gives_its_first_frame(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a.gif", save_all=True, append_images=[photo.rotate(90), photo.rotate(180)])
    read = read_image(tmp_path / "a.gif")
    assert "3 frames" in " ".join(read.notes) and close(read.image, photo, 15)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"\x78\x9c")


def test_bad_files_are_refused_in_one_line(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "whole.jpg")
    photo.save(tmp_path / "whole.png")
    bad = {
        "text.jpg": b"not a picture at all, only words",
        "empty.png": b"",
        "short.jpg": (tmp_path / "whole.jpg").read_bytes()[:2000],
        "short.png": (tmp_path / "whole.png").read_bytes()[:9000],
        "bomb.png": png_header(20_000, 20_000),
        "large.png": png_header(11_000, 10_000),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for name in [*bad, "missing.jpg", "."]:
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        message = str(caught.value)
        assert "\n" not in message and str(tmp_path / name) in message, name
    with pytest.raises(InputError, match="1 million allowed"):
        read_image(Image.new("RGB", (1001, 1000)), pixels=1_000_000)
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert read_image(tmp_path / "dot.png").size == (1, 1)


def test_bad_places_are_refused_in_one_line(tmp_path: Path, photo: Image.Image) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.png").mkdir()
    places = {"a.xyz": ".avif", "a": ".avif", "no/a.png": "does not exist", "file/a.png": "not a folder", "folder.png": "is a folder"}
    for place, said in places.items():
        with pytest.raises(InputError, match=said) as caught:
            write_image(photo, tmp_path / place)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="choose another format"):
        write_image(Image.new("RGB", (20_000, 2)), tmp_path / "wide.webp")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"], "something was left behind"


def test_full_disk_and_interruption_leave_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="disk is full"), atomic(target) as beside:
        beside.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyboardInterrupt), atomic(target) as beside:
        beside.write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
    with atomic(target) as beside:
        beside.write_bytes(b"new")
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]


def test_bytes_survive_the_tensor(photo: Image.Image) -> None:
    every = Image.fromarray(np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3))
    for image in (every, photo):
        tensor = to_tensor(image)
        assert tensor.shape == (1, 3, image.height, image.width) and tensor.min() >= -1 and tensor.max() <= 1
        assert to_image(tensor).tobytes() == image.tobytes() == to_image(tensor[0]).tobytes()
    assert to_image(to_tensor(every) * 3).getextrema() == ((0, 255),) * 3
    with pytest.raises(ValueError, match="3, H, W"):
        to_image(to_tensor(every)[0, :1])


def test_grid(photo: Image.Image) -> None:
    assert grid([photo] * 5, columns=3, gap=4).size == (3 * 160 + 8, 2 * 120 + 4)
    small = photo.resize((20, 20))
    assert grid([photo, small]).size == (322, 120)
    labelled = grid([photo, photo], labels=["a caption that is far too long for its cell", "b"])
    assert labelled.height > 130 and labelled.crop((0, 121, 160, labelled.height)).getextrema()[0][0] < 100, "no caption was drawn"
    with pytest.raises(ValueError, match="at least one"):
        grid([])


def test_import_is_light() -> None:
    code = "import sys, limn.media; assert not {'torch', 'PIL', 'numpy', 'av'} & set(sys.modules), 'heavy import'"
    subprocess.run([sys.executable, "-c", code], check=True)

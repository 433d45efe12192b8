"""Whatever a person gives by mistake: one clear line, code 2 (130 for Ctrl-C), nothing half-written."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Ran, Run
from PIL import Image


def no_file(folder: Path, photo: Image.Image) -> Path:
    return folder / "nothing.jpg"


def a_directory(folder: Path, photo: Image.Image) -> Path:
    (folder / "album").mkdir()
    return folder / "album"


def text_named_jpg(folder: Path, photo: Image.Image) -> Path:
    (folder / "text.jpg").write_text("not a picture at all\n" * 50)
    return folder / "text.jpg"


def an_empty_file(folder: Path, photo: Image.Image) -> Path:
    (folder / "empty.png").write_bytes(b"")
    return folder / "empty.png"


def truncated_jpeg(folder: Path, photo: Image.Image) -> Path:
    photo.save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:9000])
    return folder / "cut.jpg"


def one_pixel(folder: Path, photo: Image.Image) -> Path:
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    return folder / "one.png"


def a_bomb(folder: Path, photo: Image.Image) -> Path:
    """Write a PNG whose header says 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return folder / "bomb.png"


def no_face(folder: Path, photo: Image.Image) -> Path:
    noise = np.random.default_rng(0).integers(0, 60, (200, 300, 3)) + np.linspace(0, 190, 300)[None, :, None]
    Image.fromarray(noise.astype(np.uint8)).save(folder / "wall.png")
    return folder / "wall.png"


UNUSABLE: list[tuple[Callable[[Path, Image.Image], Path], str]] = [
    (no_file, "there is no file"),
    (a_directory, "is a folder"),
    (text_named_jpg, "is not a picture"),
    (an_empty_file, "is empty"),
    (truncated_jpeg, "damaged or cut off"),
    (one_pixel, "too small"),
    (a_bomb, "scale it down"),
    (no_face, "no face"),
]


def check_refused(ran: Ran, words: str, folder: Path) -> None:
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert ran.err.startswith("limn: ") and ran.err.count("\n") == 1, f"not one line: {ran.err}"
    assert words in ran.err
    left = [path.name for path in folder.rglob("*") if path.name.startswith("result") or ".part" in path.name]
    assert not left, f"half-written: {left}"


@pytest.mark.parametrize(("make", "words"), UNUSABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_unusable_pictures(run: Run, tmp_path: Path, astronaut: Image.Image, make: Callable[[Path, Image.Image], Path], words: str) -> None:
    path = make(tmp_path, astronaut)
    for ran in (
        run("edit", path, "--set", "smile=1", "--out", tmp_path / "result.png"),
        run("invert", path, "--out", tmp_path / "result.safetensors"),
        run("blend", path, "seed:1", "--out", tmp_path / "result.png"),
    ):
        check_refused(ran, words, tmp_path)
        assert path.name in ran.err, "the line does not name the file"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--set", "simle=1"), "did you mean 'smile'?"),
        (("--set", "smile"), "smile=1.5"),
        (("--set", "smile=1e9"), "too far"),
        (("--set", "smile=nan"), "too far"),
        ((), "nothing to change"),
        (("--set", "smile=1", "--face", "7"), "they count from 0"),
        (("--set", "smile=1", "--face", "some"), "face 'some'"),
        (("--strip", "smile"), "smile=-2:2:5"),
        (("--set", "smile=1", "--model", "limn-portrait64"), "did you mean 'limn-portraits64'?"),
        (("--set", "smile=1", "--model", "limn-mesh"), "a generator is needed"),
        (("--set", "smile=1", "--encoder", "limn-mesh"), "an encoder is needed"),
        (("--set", "smile=1", "--device", "tpu9"), "'tpu9'"),
        (("--set", "smile=1", "--direction", "nothing.npy"), "nothing.npy is not a file"),
    ],
)
def test_wrong_values(run: Run, tmp_path: Path, photo: Path, args: tuple[str, ...], words: str) -> None:
    check_refused(run("edit", photo, *args, "--out", tmp_path / "result.png"), words, tmp_path)


@pytest.mark.parametrize(
    ("out", "words"),
    [("missing/result.png", "does not exist"), ("result.xyz", "suffix"), ("file.txt/result.png", "not a folder"), ("", "folder")],
)
def test_places_that_cannot_be_written(run: Run, tmp_path: Path, photo: Path, out: str, words: str) -> None:
    (tmp_path / "file.txt").touch()
    ran = run("generate", "--out", tmp_path / out, "--seeds", "0") if out else run("edit", photo, "--set", "smile=1", "--out", tmp_path)
    if out == "result.xyz":
        assert ".png" in ran.err
    check_refused(ran, words if out else "", tmp_path)


def test_a_folder_that_refuses(run: Run, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        place = Path("/proc/limn-result.png")  # nobody, not even root, can write here
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        place = tmp_path / "locked" / "result.png"
    check_refused(run("generate", "--out", place, "--seeds", "0"), "cannot write", tmp_path)


def test_a_latent_of_another_model(run: Run, tmp_path: Path, photo: Path) -> None:
    import torch

    from limn.latent.files import Latent, save_latent

    other = save_latent(tmp_path / "other.safetensors", Latent("w_plus", (torch.zeros(1, 10, 256),), "somebody-else", "0" * 64))
    ran = run("edit", photo, "--set", "smile=1", "--latent", other, "--out", tmp_path / "result.png")
    check_refused(ran, "somebody-else", tmp_path)
    assert "limn-portraits64" in ran.err


def test_a_direction_of_another_size(run: Run, tmp_path: Path, photo: Path) -> None:
    np.save(tmp_path / "age.npy", np.ones((1, 512), np.float32))
    ran = run("edit", photo, "--set", "age=1", "--direction", tmp_path / "age.npy", "--out", tmp_path / "result.png")
    check_refused(ran, "another size of model", tmp_path)


def limn(*args: object, **kwargs: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "limn", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)  # type: ignore[call-overload,no-any-return]


def test_a_full_disk(tmp_path: Path) -> None:
    """No file of this process may grow beyond 2 kB: writing stops in the middle."""

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    process = limn("generate", "--seeds", "0-8", "--out", tmp_path / "result.png", preexec_fn=small_disk)
    out, err = process.communicate(timeout=120)
    check_refused(Ran(process.returncode, out, err), "cannot write", tmp_path)


def test_ctrl_c_in_the_middle(tmp_path: Path) -> None:
    process = limn("generate", "--seeds", "0-7", "--frames", "4000", "--video", tmp_path / "result.mp4")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".result*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1] == "limn: interrupted: nothing half-written was left"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []

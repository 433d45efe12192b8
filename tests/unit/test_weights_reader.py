"""The safe reader: what it opens, and what it refuses without running or allocating anything."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pathlib
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limn.errors import WeightsError
from limn.weights import read
from limn.weights.machine import Record


class Shell:
    """A pickle of this calls os.system when a careless reader loads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500, line
    assert path.name in line, "the line names the file"
    return line


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"a.weight": torch.randn(3, 4), "a.count": torch.tensor(7), "b": torch.randn(2, 3, dtype=torch.float64).half()}


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_both_formats(tmp_path: Path, state: dict[str, Tensor], zipped: bool) -> None:
    inner = {f"module.{name}": tensor for name, tensor in state.items()}
    extras = {
        "args": argparse.Namespace(size=8, where=pathlib.PurePosixPath("a/b")),
        "step": 5,
        "scale": np.float64(0.5),
        "loose": torch.ones(2),
    }
    content = {"g_ema": collections.OrderedDict(inner), "nested": {"ema": state}, "history": [np.arange(3.0), {1, 2}], **extras}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    contents = read(tmp_path / "x.pt")
    assert set(contents.states) == {"g_ema", "nested.ema"}
    for name in contents.states:
        assert all(torch.equal(contents.states[name][key], state[key]) for key in state), "values and names without module."
    assert list(contents.loose) == ["loose"] and contents.meta["step"] == 5
    assert contents.tensors["args"] == {"size": 8, "where": "a/b"} and contents.tensors["scale"] == 0.5
    assert torch.equal(contents.tensors["history"][0], torch.arange(3.0, dtype=torch.float64))


@pytest.mark.parametrize("zipped", [True, False])
def test_views_parameters_and_strides(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    content = {"view": base[1:3, ::2], "turned": base.T, "parameter": nn.Parameter(base), "none": base[:0], "wide": torch.ones(1).expand(8)}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read(tmp_path / "x.pth").states[""]
    assert all(torch.equal(found[name], content[name]) for name in content)


def test_safetensors_numpy_and_npz(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "x.safetensors")
    assert all(torch.equal(read(tmp_path / "x.safetensors").states[""][name], state[name]) for name in state)
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    np.save(tmp_path / "x.npy", array)
    assert torch.equal(read(tmp_path / "x.npy").tensors, torch.arange(6.0).reshape(2, 3))
    np.savez_compressed(tmp_path / "x.npz", first=array, second=np.array(["text"]))
    contents = read(tmp_path / "x.npz")
    assert list(contents.states[""]) == ["first"] and contents.tensors["second"][0] == "text"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_with_numpy_arrays(tmp_path: Path, protocol: int) -> None:
    content = {"edit": np.arange(6.0).reshape(2, 3), "column": np.asfortranarray(np.eye(3)), "strength": np.float32(2.5), "name": "smile"}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read(tmp_path / "x.pkl").tensors
    assert torch.equal(found["edit"], torch.arange(6.0, dtype=torch.float64).reshape(2, 3)) and found["strength"] == 2.5
    assert torch.equal(found["column"], torch.eye(3, dtype=torch.float64)) and found["name"] == "smile"


class Persistent(nn.Module):
    """Pickles as NVIDIA's persistent classes do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self._init_args, self._init_kwargs = (), dict(kwargs)

    def __reduce__(self) -> Any:
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('run!')"}
        meta |= {"class_name": type(self).__name__, "state": self.__dict__}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


@pytest.fixture
def persistence(monkeypatch: pytest.MonkeyPatch) -> None:
    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("the class of the pickle was built")

    module = types.ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


@pytest.mark.usefixtures("persistence")
def test_nvidia_pickles_open_without_their_classes(tmp_path: Path) -> None:
    outer, inner = Persistent(z_dim=4, c_dim=0), Persistent()
    inner.weight = nn.Parameter(torch.randn(3, 2))
    inner.register_buffer("filter", torch.ones(2))
    inner.register_buffer("scratch", torch.ones(2), persistent=False)
    outer.mapping = inner
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(pickle.dumps({"G_ema": outer, "D": None, "training_set_kwargs": {"resolution": 8}}))
    contents = read(path)
    assert list(contents.states) == ["G_ema"] and list(contents.states["G_ema"]) == ["mapping.weight", "mapping.filter"]
    assert torch.equal(contents.states["G_ema"]["mapping.weight"], inner.weight)
    assert contents.meta["G_ema"] == {"class": "Persistent", "init_kwargs": {"z_dim": 4, "c_dim": 0}}
    assert "module_src" not in contents.tensors["G_ema"].state
    torch.save(outer, tmp_path / "tuned.pt")  # as PTI saves its tuned generator
    assert list(read(tmp_path / "tuned.pt").states[""]) == ["mapping.weight", "mapping.filter"]


def test_real_snapshot_agrees_with_its_safetensors() -> None:
    folder = Path(os.environ.get("LIMN_DATA", "/nowhere")).parent / "parity" / "stylegan2" / "files"
    if not folder.is_dir():
        pytest.skip("LIMN_DATA is not set to a data folder that has the sample snapshot beside it")
    ours = read(folder / "network-snapshot-tiny.pkl").states["G_ema"]
    theirs = {
        k.removeprefix("state."): v for k, v in read(folder / "network-snapshot-tiny.safetensors").states[""].items() if k[:6] == "state."
    }
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_onnx_initialisers_of_every_spelling(tmp_path: Path) -> None:
    def field(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    def number_field(number: int, value: int) -> bytes:
        return varint(number << 3) + varint(value)

    def varint(value: int) -> bytes:
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    raw = number_field(1, 2) + number_field(1, 3) + number_field(2, 1) + field(8, b"raw") + field(9, np.arange(6, dtype="<f4").tobytes())
    packed = field(1, varint(2)) + number_field(2, 7) + field(8, b"packed") + field(7, varint(5) + varint((1 << 64) - 1))
    floats = number_field(1, 2) + number_field(2, 1) + field(8, b"floats") + field(4, np.array([1.5, 2], "<f4").tobytes())
    node = field(1, b"input") + field(1, b"raw") + field(2, b"out") + field(4, b"Conv")
    graph = field(1, node) + field(5, raw) + field(5, packed) + field(5, floats)
    (tmp_path / "x.onnx").write_bytes(number_field(1, 8) + field(2, b"test") + field(7, graph))
    contents = read(tmp_path / "x.onnx")
    assert torch.equal(contents.tensors["raw"], torch.arange(6.0).reshape(2, 3))
    assert contents.tensors["packed"].tolist() == [5, -1] and contents.tensors["floats"].tolist() == [1.5, 2]
    assert contents.meta["nodes"] == [("Conv", ("input", "raw"), ("out",))]
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "x.onnx").read_bytes()[:-9])
    refused(tmp_path / "cut.onnx")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrap", ["pickle", "zip", "legacy", "embedded"])
def test_a_pickle_that_calls_the_shell_is_refused_unrun(tmp_path: Path, protocol: int, wrap: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    evil = {"state_dict": {"weight": Shell(marker)}}
    if wrap == "pickle":
        path.write_bytes(pickle.dumps(evil, protocol))
    elif wrap == "embedded":
        inner = io.BytesIO()
        torch.save(evil, inner, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
        path.write_bytes(
            b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(inner.getvalue())) + inner.getvalue() + b"\x85R."
        )
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=wrap == "zip", pickle_protocol=protocol)
    line = refused(path)
    assert "system'" in line and "refused" in line, line
    assert not marker.exists(), "the pickle was run"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"\x80\x02c__builtin__\neval\nU\x011\x85R.", "eval"),
        (b"\x80\x02ctorch\nload\nU\x011\x85R.", "torch.load"),
        (b"\x80\x02cbuiltins\ngetattr\nK\x01K\x02\x86R.", "getattr"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "cannot be called"),
        (b"\x80\x02ccollections\nOrderedDict\n}U\x08__code__K\x01sb.", "damaged"),
        (b"\x80\x02(cos\nsystem\nU\x02idoq\x00.", "os.system"),
        (b"\x80\x02(U\x02idios\nsystem\n.", "os.system"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged"),
        (b"\x80\x04\x8d" + b"\xff" * 8 + b"a.", "damaged"),
        (b"\x80\x02U\x01xQ.", "not a whole file"),
        (b"\x80\x02]" + b"]" * 100_000 + b"a" * 100_000 + b".", "deep"),
        (b"\x80\x02" + b"0" * 50 + b".", "damaged"),
        (b"\x80\x02}", "damaged"),
    ],
)
def test_pickles_made_to_harm(tmp_path: Path, code: bytes, words: str) -> None:
    (tmp_path / "x.pkl").write_bytes(code)
    assert words in refused(tmp_path / "x.pkl")


def test_shared_containers_do_not_multiply(tmp_path: Path) -> None:
    node: Any = [1]
    for _ in range(60):
        node = [node, node]
    (tmp_path / "laughs.pkl").write_bytes(pickle.dumps({"x": node}))
    assert read(tmp_path / "laughs.pkl").states == {}
    record = Record("Leaf")
    for _ in range(40):
        record = Record("Node", {"_modules": {"a": record, "b": record}})
    with pytest.raises(WeightsError, match="modules"):
        record.tensors()


def test_sizes_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "header.safetensors"
    path.write_bytes(struct.pack("<Q", 100 * 10**9) + b'{"a":' + b" " * 100)
    assert "100,000,000,000" in refused(path)
    save_file({"a": torch.zeros(1000)}, tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-100])
    assert "cut off" in refused(tmp_path / "cut.safetensors")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000,), }"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"1234")
    assert "cut off" in refused(tmp_path / "x.npy")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "pickled Python objects" in refused(tmp_path / "objects.npy")


def test_zip_bombs(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped,
        zipped.open("a.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert "zip bomb" in refused(tmp_path / "bomb.npz")
    torch.save({"a": torch.zeros(10)}, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    for cut in (len(data) // 2, len(data) - 30):
        (tmp_path / "cut.pt").write_bytes(data[:cut])
        assert "damaged" in refused(tmp_path / "cut.pt")


@pytest.mark.parametrize("count", [10**12, 11])
def test_storages_that_claim_more_than_the_file_has(tmp_path: Path, count: int) -> None:
    for zipped in (True, False):
        torch.save({"a": torch.zeros(10)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        data = (tmp_path / "x.pt").read_bytes()
        number = b"\x8a\x08" + struct.pack("<q", count)
        place = data.index(b"K\x0a", data.index(b"cpu"))
        longer = data[:place] + number + data[place + 2 :]
        if zipped:
            with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w") as new:
                for entry in old.infolist():
                    content = old.read(entry)
                    at = content.index(b"K\x0a", content.index(b"cpu")) if entry.filename.endswith("data.pkl") else 0
                    new.writestr(entry.filename, content[:at] + number + content[at + 2 :] if at else content)
        else:
            (tmp_path / "y.pt").write_bytes(longer)
        assert "damaged" in refused(tmp_path / "y.pt")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.pt", b"this is a text file\n", "no weight file"),
        ("empty.pt", b"", "is empty"),
        ("page.pt", b"<!DOCTYPE html><html>", "web page"),
        ("pointer.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        ("photo.pt", b"\xff\xd8\xff\xe0" + bytes(100), "no weight file"),
        ("zip.pt", b"PK\x03\x04" + bytes(100), "damaged zip"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert words in refused(tmp_path / name)


def test_folders_missing_files_and_torchscript(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    assert "folder" in refused(tmp_path / "folder.pt")
    assert "cannot be read" in refused(tmp_path / "missing.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as zipped:
        zipped.writestr("x/data.pkl", b"\x80\x02}.")
        zipped.writestr("x/constants.pkl", b"\x80\x02).")
    assert "TorchScript" in refused(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as zipped:
        zipped.writestr("readme.txt", "hello")
    assert "readme.txt" in refused(tmp_path / "docs.zip")

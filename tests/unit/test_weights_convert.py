"""`limn models`: list, show, import, export, fetch."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from limn.errors import WeightsError
from limn.models.generation import stylegan2
from limn.models.records import Entry
from limn.tasks import models
from limn.weights import adopt, catalogue, load, read, save
from limn.weights.export import nvidia, rosinality

CONFIG = stylegan2.Config(size=16, z_dim=8, w_dim=8, mapping_layers=2, channels=(6, 6, 4))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {"generator": stylegan2.Generator(CONFIG), "discriminator": stylegan2.Discriminator(CONFIG)}
    for network in made.values():
        for name, tensor in network.state_dict().items():
            if "noise_strength" in name or "w_avg" in name:
                tensor.copy_(torch.full_like(tensor, 0.1))
    return made


@pytest.fixture
def snapshot(tmp_path: Path, networks: dict[str, torch.nn.Module]) -> Path:
    """A file in rosinality's layout, as its training saves it."""
    states = {key: rosinality(part, networks[part].state_dict(), CONFIG) for key, part in (("g_ema", "generator"), ("d", "discriminator"))}
    average = networks["generator"].state_dict()["mapping.w_avg"]
    torch.save({**states, "g": dict(states["g_ema"]), "latent_avg": average, "odd": {"x": torch.ones(1)}}, tmp_path / "My Model.pt")
    return tmp_path / "My Model.pt"


def test_import_names_what_a_file_is_and_converts_it(snapshot: Path, home: Path, networks: dict[str, torch.nn.Module]) -> None:
    converted = models.import_model(snapshot)
    assert converted.models == {"my-model": "stylegan2: generator, discriminator"}
    assert converted.files == (home / "my-model.safetensors",) and converted.licence == stylegan2.CARD.weights_licence
    assert set(converted.not_converted) == {"g", "odd"} and converted.sha256 == hashlib.sha256(snapshot.read_bytes()).hexdigest()
    loaded = load("my-model", "generator")
    z = torch.randn(2, 8)
    assert torch.equal(loaded.model(z), networks["generator"].eval()(z))
    assert models.import_model(snapshot).files == converted.files, "the same file again is no conflict"
    shown = models.show_model("my-model")
    assert (
        shown.hashes["generator"] == loaded.hash and shown.configuration["generator"]["size"] == 16 and shown.parameters["generator"] > 1000
    )
    row = next(row for row in models.list_models() if row.name == "my-model")
    assert (row.where, row.licence) == ("store", converted.licence)


def test_listing_passes_over_other_files_and_names_damaged_ones(home: Path) -> None:
    home.mkdir(parents=True)
    save_file({"smile": torch.ones(8)}, home / "portraits-directions.safetensors", {"limn_directions": "1"})
    (home / "broken.safetensors").write_bytes(b"\xff" * 7 + b"\x00{}")
    rows = {row.name: row.licence for row in models.list_models(where="store")}
    assert list(rows) == ["broken"] and "unreadable" in rows["broken"]


def test_names_are_kept_apart(snapshot: Path, tmp_path: Path, networks: dict[str, torch.nn.Module]) -> None:
    models.import_model(snapshot, name="mine")
    other = save(tmp_path / "other.safetensors", networks["generator"], "stylegan2", "generator", CONFIG, {"sha256": "1"})
    with pytest.raises(WeightsError, match="'mine' is already another model"):
        models.import_model(other, name="mine")
    with pytest.raises(WeightsError, match="such as 'my-name'"):
        models.import_model(other, name="My Name")
    assert list(models.import_model(other).models) == ["other"] and load("other").part == "generator"
    assert models.import_model(snapshot, out=tmp_path / "here.safetensors").files[0].exists()


def test_published_files_load_and_show_without_conversion(snapshot: Path, home: Path) -> None:
    assert load(snapshot, "generator").config == CONFIG
    assert load(snapshot).part in ("generator", "discriminator")
    shown = models.show_model(str(snapshot))
    assert set(shown.parts) == {"generator", "discriminator"} and "not recognised: g, odd" in shown.origin
    assert models.show_model("stylegan2").paper.startswith("2020, arXiv 1912.04958")
    assert not home.exists(), "nothing was written"


def test_unknown_files_say_what_they_hold(tmp_path: Path) -> None:
    torch.save({"alpha": torch.ones(2), "beta": torch.ones(2)}, tmp_path / "odd.pt")
    for call in (models.import_model, lambda path: models.show_model(str(path))):
        with pytest.raises(WeightsError, match="a PyTorch file: 2 tensors"):
            call(tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match="alpha, beta"):
        load(tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"did you mean|no model or file"):
        models.show_model("nothing-like-this")


@pytest.mark.parametrize("layout", ["nvidia", "rosinality"])
@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_exported_layouts_come_back_the_same(networks: dict[str, torch.nn.Module], layout: str, part: str) -> None:
    write = {"nvidia": nvidia, "rosinality": rosinality}[layout]
    theirs = write(part, dict(networks[part].state_dict()), CONFIG)
    beside = {"latent_avg": networks["generator"].state_dict()["mapping.w_avg"]}
    loaded = adopt(theirs, "stylegan2", part, beside)
    assert loaded.meta["layout"] == layout
    ours = networks[part].state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in loaded.model.state_dict().items())


def test_export(snapshot: Path, tmp_path: Path) -> None:
    models.import_model(snapshot, name="mine")
    original = load("mine", "generator")
    for name, layout in (("copy.safetensors", "native"), ("nv.pt", "nvidia"), ("ro.pt", "rosinality")):
        done = models.export_model("mine", tmp_path / name, layout=layout)
        assert done.path.exists() and done.licence == stylegan2.CARD.weights_licence
        assert load(tmp_path / name, "generator").hash == original.hash, layout
    assert set(read(tmp_path / "ro.pt").states) == {"g_ema", "d"} and list(read(tmp_path / "ro.pt").loose) == ["latent_avg"]
    models.export_model("mine", tmp_path / "g.safetensors", layout="nvidia", part="generator")
    assert "synthesis.b16.conv0.resample_filter" in load_file(tmp_path / "g.safetensors")
    with pytest.raises(WeightsError, match="choose one with --part"):
        models.export_model("mine", tmp_path / "both.safetensors", layout="nvidia")
    with pytest.raises(WeightsError, match=r"\.pt, \.pth or \.safetensors"):
        models.export_model("mine", tmp_path / "both.bin", layout="nvidia")


def test_export_to_onnx(networks: dict[str, torch.nn.Module], tmp_path: Path, home: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed: ONNX files cannot be written here")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: ONNX files cannot be run here")
    home.mkdir(parents=True)
    save(home / "g.safetensors", networks["generator"], "stylegan2", "generator", CONFIG)
    models.export_model("g", tmp_path / "g.onnx", layout="onnx")
    z, generator = torch.randn(1, 8), load("g").model
    image = runtime.InferenceSession(tmp_path / "g.onnx").run(None, {"z": z.numpy(), "truncation": torch.tensor(0.5).numpy()})[0]
    assert torch.allclose(torch.from_numpy(image), generator(z, truncation=0.5), atol=1e-4)


class Server(BaseHTTPRequestHandler):
    """Serves one file, with ranges; `cut` bytes are sent before the line drops."""

    content = b""
    cut: int | None = None
    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        Server.asked.append(self.headers.get("Range"))
        self.send_response(206 if start else 200)
        self.end_headers()
        self.wfile.write(self.content[start : None if Server.cut is None else start + Server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def entry(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entry]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.content, Server.cut, Server.asked = snapshot.read_bytes(), None, []
    url = f"http://127.0.0.1:{server.server_port}/files/tiny.pt"
    entry = Entry(url, hashlib.sha256(Server.content).hexdigest(), len(Server.content), "CC BY 4.0", "tiny")
    monkeypatch.setattr(catalogue, "published", lambda: {"stylegan2-tiny": ("stylegan2", entry)})
    yield entry
    server.shutdown()
    server.server_close()


def test_fetch_resumes_checks_and_converts(entry: Entry, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [row.licence for row in models.list_models(where="published")] == ["CC BY 4.0"]
    Server.cut = 1000
    with pytest.raises(WeightsError, match=r"ended after 1,000 of .* it goes on where it stopped"):
        models.fetch_model("stylegan2-tiny")
    Server.cut = None
    converted = models.fetch_model("stylegan2-tiny")
    assert Server.asked == [None, "bytes=1000-"] and "licence: CC BY 4.0" in capsys.readouterr().err
    assert converted.licence == "CC BY 4.0" and load("stylegan2-tiny").meta["sha256"] == entry.sha256
    assert list((home / "downloads").iterdir()) == [], "the published file is not kept"
    assert models.list_models(where="published") == [] and models.list_models(where="store")[0].licence == "CC BY 4.0"
    with pytest.raises(WeightsError, match="here already"):
        models.fetch_model("stylegan2-tiny")


def test_fetch_refuses_another_file(entry: Entry, home: Path) -> None:
    Server.content = bytes(len(Server.content))
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        models.fetch_model("stylegan2-tiny")
    Server.content += b"more"
    with pytest.raises(WeightsError, match="more than the"):
        models.fetch_model("stylegan2-tiny")
    assert not list(home.glob("*.safetensors")), "nothing was converted"
    with pytest.raises(WeightsError, match=r"did you mean 'stylegan2-tiny'"):
        models.fetch_model("stylegan2-tin")


def test_fetch_offline_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Entry("http://127.0.0.1:9/x.pt", "0" * 64, 5, "MIT", "gone")
    plain = Entry("http://example.org/x.pt", "0" * 64, 5, "MIT", "plain")
    monkeypatch.setattr(catalogue, "published", lambda: {"gone": ("stylegan2", there), "plain": ("stylegan2", plain)})
    with pytest.raises(WeightsError, match=r"cannot be fetched .*go online") as caught:
        models.fetch_model("gone")
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="not https"):
        models.fetch_model("plain")

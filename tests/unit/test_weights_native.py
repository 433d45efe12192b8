"""limn's own weight files: what goes in comes out, and what does not fit is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from limn.errors import WeightsError
from limn.weights import load, native, save
from limn.weights import store as places


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Config:
    sizes: tuple[tuple[int, int], ...] = ((2, 3), (3, 4))
    inner: Inner = Inner()
    name: str | None = None


class Net(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in config.sizes)
        self.register_buffer("steps", torch.tensor(3))


TOY = SimpleNamespace(Config=Config, NETWORKS={"generator": Net, "encoder": Net}, CARD=SimpleNamespace(weights_licence="MIT"))


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "import_system", lambda name: TOY)
    monkeypatch.setenv("LIMN_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "models").mkdir(parents=True)


def test_round_trip_of_one_network(tmp_path: Path) -> None:
    config = Config(sizes=((2, 5), (5, 1)), inner=Inner(4), name="x")
    network = Net(config)
    path = save(tmp_path / "a.safetensors", network, "toy", "generator", config, {"origin": "made here", "licence": "CC0", "kimg": 12})
    assert path.stat().st_mode & 0o777 == 0o644, "other users can read an installed model"
    random = torch.get_rng_state()
    loaded = load(tmp_path / "a.safetensors")
    assert torch.equal(random, torch.get_rng_state()), "loading must not draw from the global generator"
    assert loaded.config == config and hash(loaded.config), "tuples stay tuples, nested dataclasses are rebuilt"
    assert (loaded.system, loaded.part, loaded.meta["kimg"]) == ("toy", "generator", 12)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), loaded.model.state_dict().values(), strict=True))
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = file.metadata()
    assert (header["limn"], header["system"], header["origin"], header["licence"]) == ("1", "toy", "made here", "CC0")


def test_several_networks_and_their_hashes(tmp_path: Path) -> None:
    configs = {"generator": Config(), "encoder": Config(sizes=((1, 1),))}
    networks = {part: Net(config) for part, config in configs.items()}
    save(tmp_path / "two.safetensors", networks, "toy", "encoder", configs)
    save(tmp_path / "one.safetensors", networks["generator"], "toy", "generator", Config())
    assert load(tmp_path / "two.safetensors").part == "encoder", "the main part is what comes unasked"
    both, alone = load(tmp_path / "two.safetensors", "generator"), load(tmp_path / "one.safetensors")
    assert both.hash == alone.hash == native.content_hash(networks["generator"].state_dict()), "a network keeps its identity"
    assert both.hash != load(tmp_path / "two.safetensors").hash
    with pytest.raises(WeightsError, match=r"holds no 'critic'.*generator, encoder"):
        load(tmp_path / "two.safetensors", "critic")
    save(tmp_path / "dict.safetensors", nn.ModuleDict(networks), "toy", "generator", configs)
    assert load(tmp_path / "dict.safetensors", "encoder").config == configs["encoder"]


def test_half_precision_loads_as_float32(tmp_path: Path) -> None:
    network = Net(Config())
    with torch.no_grad():
        network.layers[1].bias.fill_(1e6)  # more than half precision holds
        network.layers[1].weight.fill_(1e-9)  # less than it resolves
    save(tmp_path / "h.safetensors", network, "toy", "generator", Config(), half=True)
    stored = load_file(tmp_path / "h.safetensors")
    assert stored["generator.layers.0.weight"].dtype == torch.float16 and stored["generator.steps"].dtype == torch.int64
    assert stored["generator.layers.1.bias"].dtype == stored["generator.layers.1.weight"].dtype == torch.float32
    model = load(tmp_path / "h.safetensors").model
    assert model.layers[0].weight.dtype == torch.float32
    assert torch.allclose(model.layers[0].weight, network.layers[0].weight, atol=1e-3) and torch.equal(
        model.layers[1].bias, network.layers[1].bias
    )


def test_shared_memory_is_written_once_each(tmp_path: Path) -> None:
    network = Net(Config(sizes=((3, 3), (3, 3))))
    network.layers[1].weight = network.layers[0].weight
    save(tmp_path / "tied.safetensors", network, "toy", "generator", Config(sizes=((3, 3), (3, 3))))
    assert torch.equal(load(tmp_path / "tied.safetensors").model.layers[1].weight, network.layers[0].weight)


def edited(path: Path, **fields: str) -> Path:
    with safe_open(path, "pt") as file:
        header = {**file.metadata(), **fields}
    save_file(load_file(path), path, header)
    return path


def test_files_that_do_not_fit_say_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", Net(Config()), "toy", "generator", Config())
    good = path.read_bytes()
    configs = json.dumps({"generator": {"sizes": [[2, 3], [3, 4]], "colour": 1}})
    with pytest.raises(WeightsError, match=r"has no colour; it was written by limn .*upgrade limn"):
        load(edited(path, config=configs))
    path.write_bytes(good)
    with pytest.raises(WeightsError, match="format 2 is newer"):
        load(edited(path, limn="2"))
    path.write_bytes(good)
    with pytest.raises(WeightsError, match="header is damaged"):
        load(edited(path, hashes="{"))
    path.write_bytes(good)
    with pytest.raises(WeightsError, match=r"misshapen.*layers.0.weight"):
        load(edited(path, config=json.dumps({"generator": {"sizes": [[2, 4], [4, 4]]}})))
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(WeightsError, match="not those that were saved"):
        load(path)


def test_strict_loading_lists_names() -> None:
    state = Net(Config(sizes=tuple((1, 1) for _ in range(20)))).state_dict()
    with pytest.raises(WeightsError, match=r"36 left over \(layers.2.weight, .*\.\.\.\); 4 misshapen") as caught:
        native.strict_load(Net(Config()), state, "file")
    assert str(caught.value).count("layers") < 25, "a long list is cut"


def test_names_resolve_in_order_and_suggest_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "BOX", tmp_path / "box")
    (tmp_path / "box").mkdir()
    config = Config()
    for folder, count in (("box", 1), ("home/models", 2)):
        save(tmp_path / folder / "portraits.safetensors", Net(config), "toy", "generator", config, {"count": count})
    save(tmp_path / "home/models/mine.safetensors", Net(config), "toy", "generator", config)
    assert load("portraits").meta["count"] == 1, "the box comes first"
    assert load("mine").system == "toy"
    with pytest.raises(WeightsError, match="did you mean 'portraits'"):
        load("portrait")
    with pytest.raises(WeightsError, match="is a folder"):
        load(tmp_path)


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.safetensors", Net(Config()), "toy", "generator", Config())
    before = path.read_bytes()

    def fails(_tensors: object, target: Path, _header: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "save_file", fails)
    with pytest.raises(Exception, match="disk is full"):
        save(path, Net(Config()), "toy", "generator", Config())
    assert path.read_bytes() == before and list(tmp_path.glob(".*")) == []
    with pytest.raises(WeightsError, match="without dots"):
        save(path, {"a.b": Net(Config())}, "toy", config=Config())
    assert replace(Config(), name="y") != Config()

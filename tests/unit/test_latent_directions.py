"""Directions: moving, finding, bundles, and the published file forms."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from limn.errors import InputError
from limn.latent import directions as d
from limn.latent.directions import Direction
from limn.models.generation.stylegan2 import Config, Generator

DATA = os.environ.get("LIMN_DATA")


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng(devices=[]):
        return Generator(Config(size=16, z_dim=8, w_dim=8, mapping_layers=2, channels=(8, 8, 4))).eval().requires_grad_(False)


def test_moving_adds_and_undoes():
    w, direction = torch.randn(2, 6, 8), Direction("smile", torch.randn(8), layers=(1, 2))
    moved = d.move(w, direction, 1.5)
    assert torch.equal(moved[:, [0, 3, 4, 5]], w[:, [0, 3, 4, 5]])
    assert torch.allclose(moved[:, 1] - w[:, 1], (1.5 * direction.vector).expand(2, -1), atol=1e-6)
    assert torch.allclose(d.move(moved, direction, -1.5), w, atol=1e-6)
    assert torch.equal(d.move(w, direction, 0.0), w), "strength 0 changes no bit"
    with pytest.raises(InputError, match="W\\+"):
        d.move(torch.zeros(1, 8), direction, 1.0)


def test_p_space_directions_move_before_the_last_activation():
    w = torch.randn(4, 8)
    assert torch.allclose(d.move(w, Direction("pca0", torch.zeros(8), space="p"), 3.0), w, atol=1e-6)
    moved = d.move(torch.full((1, 8), -0.2), Direction("pca0", torch.ones(8), space="p"), 0.5)
    assert torch.allclose(moved, torch.full((1, 8), -0.1)), "5 times below zero, then 0.2 times: (-1 + 0.5) * 0.2"


def test_several_directions_and_unknown_names(generator):
    known = {"smile": Direction("smile", torch.ones(8)), "eyes_open": Direction("eyes_open", torch.arange(8.0))}
    w = torch.zeros(1, 8)
    moved = d.apply(generator, w, known, {"smile": 1.0, "Eyes-Open": -1.0})
    assert moved.shape == (1, 6, 8) and torch.allclose(moved[0, 0], 1 - torch.arange(8.0))
    with pytest.raises(InputError, match="did you mean 'smile'"):
        d.apply(generator, w, known, {"smlie": 1.0})
    with pytest.raises(InputError, match="known are eyes_open, smile"):
        d.apply(generator, w, known, {"xyz": 1.0})


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        (Direction("age", torch.zeros(512)), "another size"),
        (Direction("age", torch.zeros(18, 8)), "another size"),
        (Direction("age", torch.zeros(8), layers=(8,)), "layer 8"),
        (Direction("age", torch.zeros(8), model="ffhq", model_hash="f" * 64), "belongs to the model ffhq"),
    ],
)
def test_directions_that_do_not_fit_are_refused(generator, direction, message):
    with pytest.raises(InputError, match=message):
        d.check_fits(direction, generator, "limn-faces", "a" * 64)


def test_a_bundle_comes_back_as_it_was(tmp_path):
    made = [
        Direction("smile", torch.randn(8), "one deviation", (0, 1), model="m", model_hash="a" * 64, source={"moves": {"smile": 1.0}}),
        Direction("age", torch.randn(6, 8), space="p"),
    ]
    back = d.load_directions(d.save_directions(tmp_path / "all.safetensors", made), "m", "a" * 64)
    for one in made:
        assert torch.equal(back[one.name].vector, one.vector)
        assert (back[one.name].unit, back[one.name].layers, back[one.name].space, dict(back[one.name].source)) == (
            one.unit,
            one.layers,
            one.space,
            dict(one.source),
        )
    with pytest.raises(InputError, match="belongs to the model m"):
        d.load_directions(tmp_path / "all.safetensors", "other", "b" * 64)
    with pytest.raises(InputError, match="same name"):
        d.save_directions(tmp_path / "two.safetensors", [made[0], made[0]])


def test_published_forms(tmp_path):
    unit = np.eye(16, dtype=np.float64)[:1]
    np.save(tmp_path / "age_boundary.npy", unit)
    torch.save(torch.eye(16)[:1], tmp_path / "smile.pt")
    torch.save(torch.eye(16)[:1].repeat(18, 1)[None], tmp_path / "pose.pt")
    torch.save(torch.randn(1, 18, 16), tmp_path / "layers.pt")
    torch.save({"mean": torch.zeros(1, 16), "comp": torch.eye(16)[:5, None], "std": torch.arange(5.0) + 1}, tmp_path / "pca.pt")
    torch.save({"ckpt": "x.pt", "eigvec": torch.eye(16)}, tmp_path / "factor.pt")
    np.savez(tmp_path / "basis.npz", X_mean=np.zeros(16), X_comp=np.eye(16), X_stdev=np.ones(16), X_var_ratio=np.ones(16))
    exported = {"name": "Light", "lat_comp": unit.astype(np.float32), "lat_stdev": 2.0, "edit_start": 8, "edit_end": 10}
    (tmp_path / "light.pkl").write_bytes(pickle.dumps(exported))
    shapes = {p.name: {k: tuple(v.vector.shape) for k, v in d.read_directions(p).items()} for p in tmp_path.iterdir()}
    assert shapes["age_boundary.npy"] == {"age": (16,)}
    assert shapes["smile.pt"] == {"smile": (16,)} and shapes["pose.pt"] == {"pose": (16,)}, "18 equal rows are one direction"
    assert shapes["layers.pt"] == {"layers": (18, 16)}
    assert len(shapes["pca.pt"]) == 5 and len(shapes["factor.pt"]) == 16 and len(shapes["basis.npz"]) == 16
    assert d.read_directions(tmp_path / "pca.pt")["pca2"].vector.norm() == 3, "+1 is one deviation"
    assert d.read_directions(tmp_path / "basis.npz")["pca0"].space == "p"
    light = d.read_directions(tmp_path / "light.pkl")["Light"]
    assert light.layers == (8, 9) and light.vector.norm() == 2


class Evil:
    def __reduce__(self):
        return os.system, ("echo owned > owned.txt",)


@pytest.mark.parametrize("kind", ["pickle", "object array", "text", "images", "nan", "missing", "network"])
def test_files_that_are_no_directions_are_refused_in_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("x.npy" if kind in {"object array", "nan", "images"} else "x.pt")
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "object array":
        np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)
    elif kind == "text":
        path.write_text("1 2 3")
    elif kind == "images":
        np.save(path, np.zeros((64, 64, 3)))
    elif kind == "nan":
        np.save(path, np.full(16, np.nan))
    elif kind == "network":
        torch.save({"conv.weight": torch.zeros(8, 3, 3, 3), "conv.bias": torch.zeros(8)}, path)
    with pytest.raises(InputError) as caught:
        d.read_directions(path)
    assert "\n" not in str(caught.value) and not (tmp_path / "owned.txt").exists()


@pytest.mark.skipif(not DATA, reason="set LIMN_DATA to the folder that holds weights/interfacegan and stylegan2_ffhq_directions_PTI")
def test_real_published_files():
    folder = Path(DATA) / "weights"
    files = [*(folder / "interfacegan").glob("*.npy"), *(folder / "stylegan2_ffhq_directions_PTI").glob("*.pt")]
    assert files, f"no direction files below {folder}"
    for path in files:
        for direction in d.read_directions(path).values():
            assert direction.vector.shape == (512,) and 0 < direction.vector.norm() < 100

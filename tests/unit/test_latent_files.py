"""Latents as files."""

import pytest
import torch
from safetensors.torch import save_file

from limn.errors import InputError
from limn.latent.files import Latent, difference, load_latent, save_latent, with_tuning
from limn.models.generation.stylegan2 import Config, Generator


def latent(**fields):
    return Latent("w_plus", (torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0)),), "limn-faces", "a" * 64, **fields)


def test_a_latent_comes_back_as_it_was(tmp_path):
    source = {"photo_sha256": "ff", "matrix": [[1.0, 0.0, 3.5], [0.0, 1.0, 2.0]], "psnr": 21.5}
    path = save_latent(tmp_path / "me.safetensors", latent(source=source))
    back = load_latent(path, "limn-faces", "a" * 64)
    assert torch.equal(back.code, latent().code) and back.space == "w_plus"
    assert back.source == source and back.model == "limn-faces"
    assert [p.name for p in tmp_path.iterdir()] == ["me.safetensors"], "nothing is left beside the file"


def test_styles_are_kept_in_order(tmp_path):
    styles = tuple(torch.full((1, width), float(width)) for width in (8, 4, 16))
    back = load_latent(save_latent(tmp_path / "s.safetensors", Latent("s", styles, "m", "")))
    assert [tuple(style.shape) for style in back.tensors] == [(1, 8), (1, 4), (1, 16)]
    with pytest.raises(InputError, match="list of styles"):
        _ = back.code


def test_another_model_is_refused_with_both_names(tmp_path):
    path = save_latent(tmp_path / "me.safetensors", latent())
    with pytest.raises(InputError, match=r"limn-faces \(aaaaaaaaaaaa\), not to ffhq \(bbbbbbbbbbbb\)"):
        load_latent(path, "ffhq", "b" * 64)
    assert load_latent(path).model == "limn-faces", "without a model nothing is compared"


@pytest.mark.parametrize("kind", ["text", "other", "folder", "missing", "truncated"])
def test_what_is_no_latent_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "x.safetensors"
    if kind == "text":
        path.write_text("hello")
    elif kind == "other":
        save_file({"a": torch.zeros(2)}, path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "truncated":
        path.write_bytes(save_latent(tmp_path / "y.safetensors", latent()).read_bytes()[:200])
    with pytest.raises(InputError) as caught:
        load_latent(path)
    assert "x.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unwritable_place_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        save_latent(tmp_path / "no" / "me.safetensors", latent())


def test_a_tuned_generator_travels_with_its_latent(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(Config(size=8, z_dim=8, w_dim=8, mapping_layers=2, channels=(4, 4))).eval().requires_grad_(False)
        tuned = Generator(generator.config).eval().requires_grad_(False)
    tuned.load_state_dict(generator.state_dict())
    tuned.synthesis.b4.conv1.weight += 0.01
    change = difference(tuned, generator)
    assert list(change) == ["synthesis.b4.conv1.weight"], "only what changed is kept"
    code = torch.randn(1, generator.num_ws, 8, generator=torch.Generator().manual_seed(3))
    back = load_latent(save_latent(tmp_path / "t.safetensors", Latent("w_plus", (code,), "m", "h", {}, change)))
    ours = with_tuning(generator, back)
    assert torch.allclose(ours.synthesis(code), tuned.synthesis(code), atol=1e-3)
    assert not torch.allclose(ours.synthesis(code), generator.synthesis(code), atol=1e-3)
    assert with_tuning(generator, latent()) is generator

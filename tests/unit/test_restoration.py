"""Tiles that leave no seam, network layouts that no parity case has, degradations that follow the generator they are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from limn.blocks.degradation import FACES, degraded_faces, degraded_twice, luma_of
from limn.blocks.jpeg import jpeg
from limn.models.records import drawing, seeded
from limn.models.restoration import esrgan, gpen, real_esrgan
from limn.tasks.tiles import enlarged, tiles
from limn.weights import adopt


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def built(config: real_esrgan.Config) -> torch.nn.Module:
    with drawing(0):
        return real_esrgan.generator(config).eval()


NETWORKS = {
    "x4": real_esrgan.Config(features=6, blocks=1, growth=4),
    "x2": real_esrgan.Config(features=6, blocks=1, growth=4, shuffle=2, factor=2),
    "x1": real_esrgan.Config(features=6, blocks=1, growth=4, shuffle=4, factor=1),
    "compact": real_esrgan.Config("compact", features=6, convs=3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_are_what_the_whole_picture_gives(name: str) -> None:
    network, image = built(NETWORKS[name]), picture(77, 58)
    whole = enlarged(image, network, tile=1000)
    tiled = enlarged(image, network, tile=20)
    assert whole.shape == (58 * network.scale, 77 * network.scale, 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1, "rounding may differ by a level, no more"
    assert (whole != tiled).mean() < 1e-3


def test_too_little_context_leaves_seams() -> None:
    network, image = built(replace(NETWORKS["x4"], growth=8)), picture(64, 48)
    whole, tiled = enlarged(image, network, tile=1000), enlarged(image, network, tile=16, context=0)
    assert (whole != tiled).mean() > 0.01, "the test could not see a seam"


def test_tiles_cover_a_picture_once() -> None:
    seen = np.zeros((31, 45), int)
    for part in tiles((45, 31), 16, 7, 2):
        left, top, right, bottom = part.box
        seen[top:bottom, left:right] += 1
        assert left - part.spare[0] >= 0 and right + part.spare[2] <= 45
        assert left % 2 == top % 2 == part.spare[0] % 2 == part.spare[1] % 2 == 0
    assert (seen == 1).all()


def old(state: dict[str, Tensor], stages: int) -> dict[str, Tensor]:
    """Give an RRDB network's entries the names of 2018."""
    names = {
        "conv_first": "model.0",
        "conv_body": "model.1.sub.1",
        "conv_hr": f"model.{3 * stages + 2}",
        "conv_last": f"model.{3 * stages + 4}",
    }
    names |= {f"conv_up{index + 1}": f"model.{3 * index + 3}" for index in range(stages)}
    renamed = {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith("body."):
            _, block, dense, conv = stem.split(".")
            dot = "" if conv == "conv1x1" else ".0"
            stem = f"model.1.sub.{block}.{dense.upper()}.{conv}{dot}"
        renamed[f"{names.get(stem, stem)}.{kind}"] = tensor
    return renamed


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_old_layout_at_other_scales_and_plus(stages: int) -> None:
    config = esrgan.Config(features=6, blocks=1, growth=4, stages=(2,) * stages, plus=stages == 1)
    network = esrgan.RrdbNet(config).eval()
    loaded = adopt(old(network.state_dict(), stages))
    assert loaded.system == "esrgan" and loaded.config == config
    x = torch.rand(1, 3, 9, 8)
    assert torch.equal(loaded.model(x), network(x)) and loaded.model(x).shape[-1] == 8 * 2**stages


def test_basicsr_names_are_of_real_esrgan_first() -> None:
    state = real_esrgan.generator(NETWORKS["x2"]).state_dict()
    loaded = adopt(state)
    assert (loaded.system, loaded.config.factor, loaded.config.shuffle) == ("real-esrgan", 2, 2)
    assert adopt(state, "esrgan").config.scale == 2


def test_networks_are_mixed_entry_by_entry() -> None:
    first, second = (esrgan.RrdbNet(esrgan.Config(features=4, blocks=1, growth=2)).state_dict() for _ in range(2))
    mixed = esrgan.interpolated(first, second, 0.25)
    assert all(torch.allclose(mixed[name], 0.75 * first[name] + 0.25 * second[name]) for name in first)


def test_degradation_is_a_function_of_its_generator() -> None:
    images = torch.rand(6, 3, 64, 64, generator=seeded(1)) * 2 - 1
    state = torch.get_rng_state()
    first, again, other = (degraded_faces(images, FACES["portraits64"], seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(state, torch.get_rng_state())
    assert first.shape == images.shape and first.abs().max() <= 1
    twice = [degraded_twice((images + 1) / 2, 4, seeded(seed)) for seed in (3, 3, 4, 5, 6)]
    assert torch.equal(twice[0], twice[1]) and all(each.shape == (6, 3, 16, 16) for each in twice)


def test_colour_is_lost_as_often_as_asked() -> None:
    images = torch.rand(8, 3, 32, 32, generator=seeded(1)) * 2 - 1
    greys = degraded_faces(images, replace(FACES["portraits64"], grey=1.0), seeded(0))
    assert torch.allclose(greys, luma_of(greys), atol=0.01)


def test_jpeg_is_close_at_high_quality_and_has_a_gradient() -> None:
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 5, 5, generator=seeded(0)), size=40, mode="bilinear").requires_grad_()
    good, poor = (jpeg(smooth, torch.full((2,), quality)) for quality in (95.0, 10.0))
    assert (good - smooth).abs().mean() < 0.03 < (poor - smooth).abs().mean()
    jpeg(smooth, torch.full((2,), 60.0), soft=True).sum().backward()
    assert smooth.grad is not None and smooth.grad.abs().sum() > 0


def test_gpen_begins_as_its_prior_draws() -> None:
    """With maps that are not looked at yet, the decoder is the trained generator."""
    from limn.models.generation import stylegan2

    with drawing(0):
        prior = stylegan2.Generator(stylegan2.Config(size=16, z_dim=8, w_dim=8, mapping_layers=2, channels=(8, 8, 4), noise=False)).eval()
        network = gpen.Generator(gpen.Config(16, 8, 2, (8, 8, 4), concat=False)).eval()
    gpen.embed_prior(network, prior)
    w, maps = network.encode(torch.rand(2, 3, 16, 16, generator=seeded(0)))
    w_plus = w[:, None].expand(-1, network.num_ws, -1)
    with torch.no_grad():
        assert torch.allclose(network.synthesis(w_plus, maps), prior.synthesis(w_plus, "none"), atol=1e-4)


def test_large_pictures_are_marked_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage.data import astronaut

    from limn.media import watermark

    monkeypatch.setattr(watermark, "LARGE", 90_000)
    monkeypatch.setattr(watermark, "STRIP", 20_000)
    monkeypatch.setattr(watermark, "COPY", 90_000)
    image = Image.fromarray(astronaut()).resize((640, 480))
    marked = watermark.embed(image, 0x12345678)
    found = watermark.detect(marked, cropped=False)
    assert found is not None and found.payload == 0x12345678
    mask = np.zeros((480, 640), bool)
    mask[100:400, 200:560] = True
    partly = watermark.embed(image, 0x12345678, mask)
    changed = np.abs(np.asarray(partly, int) - np.asarray(image, int)).max(-1) > 0
    assert changed[mask].mean() > 0.3 and not changed[~mask].any()

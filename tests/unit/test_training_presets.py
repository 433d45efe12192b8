"""The published recipes of StyleGAN2: every hyper-parameter of the published settings, and fine-tuning from other weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limn.errors import InputError
from limn.models.generation import stylegan2
from limn.models.generation.stylegan2 import Config, auto, widths
from limn.training import adopt
from limn.weights import save

# Resolution, channel base, mapping layers, batch, group, rate, gamma, EMA half-life, EMA ramp, kimg: arXiv 1912.04958, 2006.06676.
PUBLISHED = {
    "ffhq-1024": (1024, 32768, 8, 32, 4, 0.002, 10.0, 10, 0.0, 25_000),
    "paper256": (256, 16384, 8, 64, 8, 0.0025, 1.0, 20, 0.0, 25_000),
    "paper512": (512, 32768, 8, 64, 8, 0.0025, 0.5, 20, 0.0, 25_000),
    "paper1024": (1024, 32768, 8, 32, 4, 0.002, 2.0, 10, 0.0, 25_000),
    "cifar": (32, 32768, 2, 64, 32, 0.0025, 0.01, 500, 0.05, 100_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_settings(name: str) -> None:
    size, base, mapping, batch, group, rate, gamma, ema, ramp, kimg = PUBLISHED[name]
    preset = stylegan2.PRESETS[name]
    config, settings = preset.config, preset.objective
    assert (config.size, config.z_dim, config.w_dim, config.mapping_layers) == (size, 512, 512, mapping)
    assert config.channels == tuple(min(base // 2**level, 512) for level in range(2, size.bit_length()))
    assert (config.group, config.clamp, config.std_channels, config.architecture) == (group, 256.0, 1, "skip")
    assert (preset.batch, preset.ema_kimg, preset.ema_ramp) == (batch, ema, ramp)
    assert preset.steps * batch == pytest.approx(kimg * 1000, abs=batch)
    adam: Any = settings["adam"]
    assert (adam.lr, adam.betas, adam.eps, settings["gamma"]) == (rate, (0.0, 0.99), 1e-8, gamma)
    cifar = name == "cifar"
    assert (settings["path_weight"], settings["mixing"]) == ((0.0, 0.0) if cifar else (2.0, 0.9))
    assert config.discriminator == ("orig" if cifar else "resnet")
    assert settings["augment"] == ("" if name == "ffhq-1024" else "bgc")


@pytest.mark.parametrize(
    ("size", "devices", "batch", "group", "gamma", "rate", "base"),
    [
        (128, 1, 32, 4, 0.1024, 0.0025, 16384),
        (256, 1, 16, 4, 0.8192, 0.0025, 16384),
        (256, 8, 64, 4, 0.2048, 0.0025, 16384),
        (512, 4, 32, 4, 1.6384, 0.0025, 32768),
        (1024, 8, 32, 4, 6.5536, 0.002, 32768),
        (1024, 64, 64, 1, 3.2768, 0.002, 32768),
    ],
)
def test_auto_follows_resolution_and_batch(size: int, devices: int, batch: int, group: int, gamma: float, rate: float, base: int) -> None:
    preset = auto(size, devices=devices)
    adam: Any = preset.objective["adam"]
    assert (preset.batch, preset.config.group, preset.config.mapping_layers, adam.lr) == (batch, group, 2, rate)
    assert preset.objective["gamma"] == pytest.approx(gamma)
    assert preset.ema_kimg == pytest.approx(batch * 10 / 32) and preset.ema_ramp == 0.05
    assert preset.config.channels == widths(size, base)
    assert auto(size, batch=2 * batch, devices=devices).objective["gamma"] == pytest.approx(gamma / 2), "gamma falls with the batch"


def test_lazy_regularisation_corrects_adam() -> None:
    config = Config(size=8, z_dim=4, w_dim=4, mapping_layers=1, channels=(4, 4))
    phases = {phase.name: phase for phase in stylegan2.objective(config).phases()}
    assert (phases["r1"].every, phases["path"].every) == (16, 4)
    assert phases["discriminator"].optimiser.lr == pytest.approx(2.5e-3 * 16 / 17)
    assert phases["generator"].optimiser.betas == pytest.approx((0.0, 0.99 ** (4 / 5)))


TINY = Config(size=16, z_dim=8, w_dim=8, mapping_layers=2, channels=(8, 8, 8))


def test_frozen_blocks_do_not_learn() -> None:
    objective = stylegan2.objective(TINY, freeze=1)
    (phase,) = [phase for phase in objective.phases() if phase.name == "discriminator"]
    learning = {id(parameter) for parameter in phase.parameters()}
    names = {name for name, parameter in objective.discriminator.named_parameters() if id(parameter) not in learning}
    assert names and all(name.startswith("b16.") for name in names), names
    assert {name.split(".")[0] for name, _ in objective.discriminator.named_parameters()} == {"b16", "b8", "b4"}


def model(tmp_path: Path, config: Config, discriminator: bool) -> Path:
    networks: dict[str, Any] = {"generator": stylegan2.Generator(config)}
    if discriminator:
        networks["discriminator"] = stylegan2.Discriminator(config)
    return save(tmp_path / "model.safetensors", networks, "stylegan2", config=config)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_fine_tuning_begins_with_a_model_at_any_resolution(tmp_path: Path, size: int) -> None:
    theirs = replace(TINY, channels=(12, 10, 8))
    path = model(tmp_path, theirs, discriminator=True)
    source = adopt.read(path, "stylegan2", stylegan2.NETWORKS, Config)
    config = adopt.architecture(stylegan2.PRESETS["paper256"].config, source.config)
    assert (config.size, config.z_dim, config.mapping_layers, config.channels[:3]) == (256, 8, 2, (12, 10, 8)), (
        "the file decides the widths"
    )
    config = adopt.architecture(replace(TINY, size=size, channels=widths(size, 256)), source.config)
    objective = stylegan2.objective(config)
    said = adopt.adopt(objective.networks, source, objective.averaged)
    objective.grow(source.tensors)
    assert "generator" in said and "discriminator" in said
    ours = objective.networks.state_dict()
    for name in ("generator.mapping.fc0.weight", "generator.synthesis.b8.conv1.weight", "discriminator.b4.fc.weight"):
        assert torch.equal(ours[name], source.tensors[name]), name
    if size == 32:
        assert not ours["generator.synthesis.b32.torgb.weight"].any(), "a new layer begins silent"
        images = torch.rand(4, 3, 32, 32) * 2 - 1
        assert torch.isfinite(objective.discriminator(images)).all()


def test_a_model_without_a_discriminator_begins_too_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    source = adopt.read(model(tmp_path, TINY, discriminator=False), "stylegan2", stylegan2.NETWORKS, Config)
    objective = stylegan2.objective(TINY)
    assert "discriminator 0%" in adopt.adopt(objective.networks, source, objective.averaged)
    other = stylegan2.objective(replace(TINY, w_dim=32, channels=(32, 32, 32)))
    with pytest.raises(InputError, match=r"0% of this generator fits|% of this generator fits: .* there and .* here"):
        adopt.adopt(other.networks, source, other.averaged)

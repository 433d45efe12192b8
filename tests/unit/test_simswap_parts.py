"""SimSwap's own arithmetic: what a batch is, what the players see, what a state dict says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limn.errors import TrainingError, WeightsError
from limn.models.swapping import simswap
from limn.models.swapping.simswap import Config, Generator, Judge, Weights, moved, objective
from limn.models.swapping.simswap_judges import ProjectedDiscriminator, patches
from limn.weights import adopt
from limn.weights.recognise import rename

SMALL = Config(32, 12, 1.0, (8, 16), 1, "unit", "ffhq", residual=True, judge=Judge("patch", 8, depth=2))


class Colours(nn.Module):
    """Says who it is by the mean colours of the quarters."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1), requires_grad=False)

    def embed(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.gain)


def batch(count: int = 8, size: int = 32) -> dict[str, Tensor]:
    return {"image": torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1}


def test_pairs_of_one_person_come_first_and_the_others_change_partners() -> None:
    goal = objective(SMALL, identity=Colours(), same=0.5)
    given = batch()
    targets, sources, same = goal.pairs(given)
    assert same.tolist() == [True, True, False, False]
    assert torch.equal(targets, given["image"][0::2]) and torch.equal(sources[:2], given["image"][1:4:2])
    assert torch.equal(sources[2], given["image"][3]) and torch.equal(sources[3], given["image"][5])


def test_a_residual_swapper_begins_as_the_target() -> None:
    goal = objective(SMALL, identity=Colours())
    images = batch()["image"]
    goal.generator.eval()
    with torch.no_grad():
        assert (goal.generator.swap(images, torch.randn(8, 12)) - images).abs().mean() < 0.05


def test_the_discriminator_judges_what_the_generator_made_in_its_turn() -> None:
    goal, given, rng = objective(SMALL, identity=Colours(), views=1), batch(), torch.Generator().manual_seed(1)
    first, second = goal.phases()
    assert set(first.loss(given, rng)) == {"gan", "identity", "features", "reconstruction"}
    assert set(second.loss(given, rng)) == {"real", "fake"} and not given["fake"].requires_grad


def test_frozen_features_do_not_learn() -> None:
    config = Config(64, 12, 1.0, (8, 16), 1, judge=Judge(heads=((16,), (16,))))
    goal = objective(config, identity=Colours())
    learns = {id(parameter) for parameter in goal.judge_parameters()}
    judge = goal.networks["discriminator"]
    assert isinstance(judge, ProjectedDiscriminator)
    assert learns == {id(parameter) for parameter in judge.heads.parameters()}
    judge.train()
    assert not judge.pretrained.training and judge.heads.training


def test_moved_pictures_are_alike_and_not_the_same() -> None:
    smooth = nn.functional.interpolate(batch(4, 4)["image"], size=32, mode="bilinear")
    seen = moved(smooth, torch.Generator().manual_seed(0))
    assert seen.shape == smooth.shape and not torch.equal(seen, smooth)
    assert (seen.mean((2, 3)) - smooth.mean((2, 3))).abs().max() < 0.2


def test_without_an_identity_network_nobody_can_be_swapped() -> None:
    with pytest.raises(TrainingError, match="limn-identity"):
        objective(SMALL)


def published(network: nn.Module, names: list[tuple[str, str]]) -> dict[str, Tensor]:
    return rename(network.state_dict(), names)


@pytest.mark.parametrize("outermost", [0, 1])
def test_published_generators_are_told_apart_by_their_names(outermost: int) -> None:
    network = Generator(Config(widths=(4, 8, 16), blocks=2, latent=6))
    back = [(r"first\.0\.(.*)", r"first_layer.1.\1"), (r"first\.1\.(.*)", r"first_layer.2.\1"), (r"last\.(.*)", r"last_layer.1.\1")]
    back += [(rf"down\.{n}\.(.*)", rf"down{n + outermost}.\1") for n in range(2)]
    back += [(rf"up\.{n}\.{part}\.(.*)", rf"up{n + outermost}.{part + 1}.\1") for n in range(2) for part in (0, 1)]
    back += [(r"blocks\.(\d)\.(conv\d)\.(.*)", r"BottleNeck.\1.\2.1.\3"), (r"blocks\.(.*)", r"BottleNeck.\1")]
    state = published(network, back)
    loaded = adopt(state, "simswap", "generator")
    assert loaded.config.widths == (4, 8, 16) and loaded.config.blocks == 2 and loaded.config.latent == 6
    assert loaded.config.size == (512, 224)[outermost]
    with pytest.raises(WeightsError, match="down"):  # a stage too many is no silent partial load
        adopt({**state, "down5.0.weight": torch.zeros(1)}, "simswap", "generator")


def test_depth_and_width_of_patches() -> None:
    maps = patches(Judge("patch", 8, depth=3)).features(torch.zeros(2, 3, 64, 64))
    assert [x.shape[1] for x in maps] == [8, 16, 32, 32, 1] and maps[0].shape[-1] == 32
    assert Weights().identity == 30.0 and simswap.PRESETS["vggface2-224"].config.domain == "imagenet"

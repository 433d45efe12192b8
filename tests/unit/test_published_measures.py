"""LPIPS and Inception: parts that load by themselves, chains by name, resizers that hit known points."""

import pytest
import torch

from limn.errors import InputError, WeightsError
from limn.models.perception import inception, lpips
from limn.weights import adopt


def drawn(config: lpips.Config) -> lpips.Lpips:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lpips.Lpips(config).eval()


def published(model: lpips.Lpips) -> dict[str, torch.Tensor]:
    """The state dict that the published module would save of these weights: in slices, the linear weights twice."""
    state = {"scaling_layer.shift": model.shift, "scaling_layer.scale": model.scale}
    for name, value in model.trunk.state_dict().items():
        layer = int(name.split(".")[0])
        state[f"net.slice{1 + sum(tap < layer for tap in model.trunk.taps)}.{name}"] = value
    for index, value in enumerate(model.linear.layers):
        state[f"lin{index}.model.1.weight"] = state[f"lins.{index}.model.1.weight"] = value.data
    return state


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_a_published_state_dict_gives_the_same_distance(net: str) -> None:
    model = drawn(lpips.Config(net))
    loaded = adopt(published(model), "lpips")
    assert loaded.config == lpips.Config(net) and loaded.part == "lpips"
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(loaded.model.eval()(a, b), model(a, b))
    assert loaded.model.spatial(a, b).shape == (2, 1, 64, 64)
    assert float(model(a, a).abs().max()) == 0


def test_doubled_weights_that_differ_are_refused() -> None:
    state = published(drawn(lpips.Config("squeeze")))
    state["lins.3.model.1.weight"] = state["lins.3.model.1.weight"] + 1
    with pytest.raises(WeightsError):
        adopt(state, "lpips")


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_trunk_and_linear_weights_load_from_files_of_their_own(net: str) -> None:
    channels = lpips.CHANNELS[net]
    linear = adopt({f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1) for index, width in enumerate(channels)}, "lpips")
    assert linear.part == "linear" and linear.config.net == net
    if net != "vgg":  # 59 MB to draw
        state = {f"features.{name}": value for name, value in lpips.Trunk(lpips.Config(net)).state_dict().items()}
        trunk = adopt(state | {"classifier.1.weight": torch.zeros(4, 4)}, "lpips")
        assert trunk.part == "trunk" and trunk.config.net == net


def test_weights_of_an_unknown_network_are_refused() -> None:
    with pytest.raises(WeightsError, match="none of alex, vgg, squeeze"):
        adopt({"lin0.model.1.weight": torch.rand(1, 7, 1, 1)}, "lpips")


def test_the_first_release_feeds_pictures_as_they_are() -> None:
    a = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    new, old = drawn(lpips.Config("squeeze")), drawn(lpips.Config("squeeze", version="0.0"))
    torch.testing.assert_close(old.features((a - new.shift) / new.scale)[-1], new.features(a)[-1])


def test_tensorflow_resizing_starts_at_the_corner() -> None:
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 2, 4)
    assert inception.tf1_bilinear(ramp, 2, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert inception.tf1_bilinear(ramp, 2, 7, align_corners=True)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]


@pytest.mark.parametrize("chain", inception.CHAINS)
def test_chains_bring_a_grey_picture_to_the_middle(chain: str) -> None:
    out = inception.CHAINS[chain](torch.full((1, 3, 40, 50), 128.0))
    assert out.shape == (1, 3, 299, 299)
    assert out.abs().max() < 0.005


def test_an_unknown_chain_is_named() -> None:
    with torch.device("meta"):
        network = inception.Inception(inception.Config("matlab"))
    with pytest.raises(InputError, match="no FID resize chain 'matlab'"):
        network.describe(torch.zeros(1, 3, 64, 64))

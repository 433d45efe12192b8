"""VGG: layers by name, input conventions, published files, one network seen by several losses."""

from __future__ import annotations

import pytest
import torch

from limn.errors import InputError, WeightsError
from limn.models.perception import lpips, vgg
from limn.models.records import drawing
from limn.weights import adopt


def torchvision_state(net: str) -> dict[str, torch.Tensor]:
    with drawing(1):
        network = vgg.Vgg(vgg.Config(net))  # type: ignore[arg-type]
    return {f"features.{name}": tensor for name, tensor in network.state_dict().items()}


def test_layers_bear_the_names_of_the_literature() -> None:
    assert [vgg.names("vgg19").index(tap) for tap in vgg.RELUS] == [1, 6, 11, 20, 29], "as pix2pixHD cuts it"
    assert [vgg.names("vgg16").index(tap) for tap in ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")] == [3, 8, 15, 22, 29]
    assert vgg.names("vgg19").index("conv5_4") == 34 and vgg.names("vgg19")[14] == "conv3_3"
    assert len(vgg.layers("vgg16-bn")) == len(vgg.names("vgg16-bn")) == 44


@pytest.mark.parametrize("net", ["vgg19", "vgg16-bn"])
def test_published_files_load_strictly_without_their_classifier(net: str) -> None:
    state = torchvision_state(net)
    loaded = adopt(state | {"classifier.0.weight": torch.zeros(2, 2)})
    assert (loaded.system, loaded.config.net) == ("vgg", net)
    assert torch.equal(loaded.model[0].weight, state["features.0.weight"])
    with pytest.raises(WeightsError):
        adopt(state | {"features.99.weight": torch.zeros(1)}, "vgg")
    caffe = {f"{vgg.names(net)[int(name.split('.')[1])]}.{name.split('.')[2]}": tensor for name, tensor in state.items()}
    assert adopt(caffe).config.input == "caffe"


def test_input_conventions_agree_with_their_definitions() -> None:
    image = torch.linspace(-1, 1, 3 * 16).view(1, 3, 4, 4)
    unit = (image + 1) / 2
    assert vgg.prepared(image, "signed") is image and torch.equal(vgg.prepared(image, "unit"), unit)
    assert torch.allclose(vgg.prepared(image, "imagenet")[0, 0], (unit[0, 0] - 0.485) / 0.229)
    assert torch.allclose(vgg.prepared(image, "caffe")[0, 0], 255 * unit[0, 2] - 103.939, atol=1e-4)


def test_a_view_shares_weights_and_taps_what_a_loss_compares() -> None:
    network = adopt(torchvision_state("vgg19"), "vgg").model
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    seen = vgg.view(network, ("conv1_2", "pool2"), "signed")
    before, pooled = seen.features(images)
    assert seen[2] is network[2] and bool((before < 0).any()) and pooled.shape == (1, 128, 8, 8)
    with pytest.raises(InputError, match="relu9_9"):
        vgg.view(network, ("relu9_9",)).features(images)
    trunk = lpips.Trunk(lpips.Config("vgg"))
    assert len(vgg.view(trunk, ("relu1_1", "relu5_3")).features(images)) == 2
    other = torch.nn.Linear(2, 2)
    assert vgg.view(other, ("relu1_1",)) is other

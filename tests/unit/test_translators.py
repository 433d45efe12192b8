"""The translators: published layouts that no case shows, statistics of a picture, dropout, the pool, sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from limn.blocks.johnson import Johnson, JohnsonGenerator
from limn.blocks.norms import norm, normalised
from limn.blocks.patch import MultiScale, Patch, feature_matching
from limn.errors import TrainingError
from limn.models.records import seeded
from limn.models.translation import cyclegan, pix2pix, spade
from limn.weights import adopt, load


def picture(size: int = 16, channels: int = 3, count: int = 1) -> Tensor:
    return torch.rand(count, channels, size, size, generator=seeded(1)) * 2 - 1


class Residual(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def published_resnet(norm_of: type[nn.Module], bias: bool, zero: bool, dropout: bool, width: int = 4, blocks: int = 2) -> nn.Sequential:
    """The published sequence as its description gives it: every padding, norm and activation has a place."""

    def block() -> Residual:
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [] if zero else [nn.ReflectionPad2d(1)]
            layers += [nn.Conv2d(4 * width, 4 * width, 3, padding=int(zero), bias=bias), norm_of(4 * width)]
            layers += [] if last else [nn.ReLU(), *([nn.Dropout(0.5)] if dropout else [])]
        return Residual(layers)

    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), norm_of(width), nn.ReLU()]
    for few in (width, 2 * width):
        layers += [nn.Conv2d(few, 2 * few, 3, 2, 1, bias=bias), norm_of(2 * few), nn.ReLU()]
    layers += [block() for _ in range(blocks)]
    for many in (4 * width, 2 * width):
        layers += [nn.ConvTranspose2d(many, many // 2, 3, 2, 1, 1, bias=bias), norm_of(many // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()).eval()


def in_file(network: nn.Module, prefix: str = "model.") -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("kind", "system"), [(nn.BatchNorm2d, "pix2pix"), (nn.InstanceNorm2d, "cyclegan"), (nn.Identity, "cyclegan")])
@torch.no_grad()
def test_residual_generators_of_every_layout(kind: type[nn.Module], system: str, zero: bool, dropout: bool) -> None:
    theirs = published_resnet(kind, kind is nn.InstanceNorm2d, zero, dropout)
    loaded = adopt(in_file(theirs))
    assert (loaded.system, loaded.config.dropout, loaded.config.padding) == (system, dropout, "zero" if zero else "reflect")
    assert torch.allclose(loaded.model(picture()), theirs(picture()), atol=1e-5)


@torch.no_grad()
def test_old_files_keep_statistics_of_instance_norms_which_are_dropped(tmp_path: Path) -> None:
    theirs = published_resnet(lambda width: nn.InstanceNorm2d(width, track_running_stats=True), True, False, False)  # type: ignore[arg-type]
    torch.save(in_file(theirs, "module.model."), tmp_path / "latest_net_G.pth")  # as DataParallel saves it
    loaded = load(tmp_path / "latest_net_G.pth")
    assert (loaded.system, loaded.part, loaded.config.norm) == ("cyclegan", "a_to_b", "instance")
    assert torch.allclose(loaded.model(picture()), theirs.train()(picture()), atol=1e-5), "the picture's own statistics"


@pytest.mark.parametrize("kind", ["batch", "instance", "none"])
@torch.no_grad()
def test_discriminators_of_every_norm(kind: str) -> None:
    bias = kind == "instance"
    makers = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": lambda _: nn.Identity()}
    layers: list[nn.Module] = [nn.Conv2d(6, 4, 4, 2, 1), nn.LeakyReLU(0.2)]
    for few, stride in ((4, 2), (8, 1)):
        layers += [nn.Conv2d(few, 2 * few, 4, stride, 1, bias=bias), makers[kind](2 * few), nn.LeakyReLU(0.2)]
    theirs = nn.Sequential(*layers, nn.Conv2d(16, 1, 4, 1, 1)).eval()
    loaded = adopt(in_file(theirs))
    assert (loaded.system, loaded.config.norm, loaded.config.judge_layers) == ("pix2pix" if kind == "batch" else "cyclegan", kind, 2)
    assert torch.allclose(loaded.model(picture(32, 6)), theirs(picture(32, 6)), atol=1e-5)


@torch.no_grad()
def test_a_unet_of_instance_norms_is_read_back_by_its_published_names() -> None:
    config = pix2pix.Config(width=2, downs=5, norm="instance")
    ours, rows = pix2pix.Generator(config).eval(), pix2pix.unet_names(config)
    theirs = {}
    for name, tensor in ours.state_dict().items():
        for pattern, new in rows[1:]:  # the first row drops statistics
            head, _, last = name.rpartition(".")
            if new is not None and new.removesuffix(r".\1") == head:
                theirs[pattern.replace("\\", "").replace("(w+)", last)] = tensor
    loaded = adopt(theirs)
    assert loaded.system == "pix2pix" and loaded.config.downs == 5 and loaded.config.norm == "instance" and loaded.config.size == 32
    assert torch.equal(loaded.model(picture(32)), ours(picture(32)))


@torch.no_grad()
def test_a_translation_has_the_statistics_of_its_own_picture() -> None:
    network = pix2pix.Generator(pix2pix.Config(width=2, downs=5)).eval()
    pictures = picture(32, count=2)
    together = network.translate(pictures)
    assert torch.allclose(together[1:], network.translate(pictures[1:]), atol=1e-5), "neighbours in a batch have no say"
    network.train()
    assert torch.allclose(network(pictures[:1]), together[:1], atol=1e-4), "as the published test runs: training mode, a batch of one"


@torch.no_grad()
def test_dropout_is_drawn_from_the_generator_given() -> None:
    network = pix2pix.Generator(pix2pix.Config(width=2, downs=6)).eval()
    plain, first, again, other = (network.translate(picture(64), rng) for rng in (None, seeded(1), seeded(1), seeded(2)))
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, plain)


def test_norms_by_name() -> None:
    x = picture(8, 4, 2)
    assert normalised(norm("none", 4), x) is x
    assert torch.allclose(normalised(norm("instance", 4), x), normalised(norm("batch", 4), x, own=True), atol=1e-5)


@torch.no_grad()
def test_sizes_that_are_multiples_are_kept() -> None:
    assert JohnsonGenerator(Johnson(width=2, blocks=1))(picture(20)).shape == (1, 3, 20, 20)
    assert pix2pix.Generator(pix2pix.Config(width=2, downs=5))(torch.zeros(1, 3, 32, 96)).shape == (1, 3, 32, 96)
    network = spade.Generator(spade.Config(classes=4, width=2)).eval()
    assert network.multiple == 32 and network.fixed is None
    assert network(torch.zeros(1, 4, 32, 64)).shape == (1, 3, 32, 64)
    styled = spade.Generator(spade.Config(classes=4, width=2, size=64, aspect=2.0, z_dim=3)).eval()
    assert styled.fixed == (32, 64) and styled.translate(torch.zeros(1, 4, 8, 16)).shape == (1, 3, 32, 64)


def test_scales_and_feature_matching() -> None:
    judge = MultiScale(Patch(3, (4, 8), "instance", padding=2, spectral=True), 2).eval()
    with torch.no_grad():
        found = judge(picture(32))
    assert len(found) == 2 and [len(scale) for scale in found] == [3, 3] and found[0][0].shape[-1] > found[1][0].shape[-1]
    assert feature_matching(found, found) == 0
    assert feature_matching(found, judge(-picture(32))) > 0


def test_the_pool_gives_back_old_pictures_and_survives_an_interruption() -> None:
    objective = cyclegan.objective(cyclegan.Config(width=2, blocks=1, judge_width=2, judge_layers=1), pool=2)
    batch = {"source": picture(16), "target": -picture(16)}
    for step in range(4):
        objective.discriminator_loss(batch, seeded(step))
    kept = objective.state_dict()
    assert {name: tuple(images.shape) for name, images in kept.items()} == {"a": (2, 3, 16, 16), "b": (2, 3, 16, 16)}
    other = cyclegan.objective(cyclegan.Config(width=2, blocks=1, judge_width=2, judge_layers=1), pool=2)
    other.load_state_dict(kept)
    assert torch.equal(torch.stack(other.pools["a"].images), kept["a"])
    assert cyclegan.ImagePool(0).exchange(picture(4), lambda: 0.9).equal(picture(4)), "no pool, no past"


@torch.no_grad()
def test_spectral_norms_of_old_files_that_lack_a_vector() -> None:
    network = spade.Generator(spade.Config(classes=3, width=2)).train()
    network(torch.eye(3).repeat(1, 11)[None, :, :32, None].expand(2, 3, 32, 32))  # some power iterations
    network.eval()
    weight = network.blocks[0].conv_0.weight
    state = network.blocks[0].conv_0.state_dict()
    old = {"conv.weight_orig": state["parametrizations.weight.original"], "conv.weight_u": state["parametrizations.weight.0._u"]}
    names = spade.plain_names({**old, "conv.weight": weight})
    assert sorted(names) == [f"conv.parametrizations.weight.{end}" for end in ("0._u", "0._v", "original")]
    u, v = names["conv.parametrizations.weight.0._u"], names["conv.parametrizations.weight.0._v"]
    matrix = old["conv.weight_orig"].flatten(1)
    assert torch.allclose(matrix / (u @ matrix @ v), weight.flatten(1), atol=1e-5), "the file's own weight comes out"


def test_a_class_beyond_the_configuration_is_named() -> None:
    objective = spade.objective(spade.Config(classes=3, width=1, size=32, judge_width=2))
    with pytest.raises(TrainingError, match="class 7"):
        objective.one_hot({"mask": torch.full((1, 4, 4), 7)})


def published_spade(network: nn.Module) -> dict[str, Tensor]:
    """Our state dict by the published names."""
    tops = ["head_0", "G_middle_0", "G_middle_1", *(f"up_{index}" for index in range(5))]
    renamed = {"start.": "fc.", "head.": "conv_img.", **{f"blocks.{index}.": f"{top}." for index, top in enumerate(tops)}}
    vectors = {"original": "orig", "0._u": "u", "0._v": "v"}
    renamed |= {f"parametrizations.weight.{ours}": f"weight_{theirs}" for ours, theirs in vectors.items()}
    found = {}
    for name, tensor in network.state_dict().items():
        published = name
        for ours, theirs in renamed.items():
            published = published.replace(ours, theirs)
        found[published] = tensor
    return found


@pytest.mark.parametrize(
    "config",
    [
        spade.Config(classes=5, width=2, ups=7, norm="instance"),
        spade.Config(classes=5, width=2, size=64, aspect=2.0, kernel=5, z_dim=6),
        spade.Config(classes=5, width=2, spectral=False),
    ],
)
@torch.no_grad()
def test_spade_generators_are_inferred_from_their_shapes(config: spade.Config) -> None:
    ours = spade.Generator(config).eval()
    loaded = adopt(published_spade(ours))
    kept = ("classes", "width", "ups", "norm", "kernel", "spectral", "z_dim")
    assert [getattr(loaded.config, name) for name in kept] == [getattr(config, name) for name in kept]
    labels = torch.zeros(1, 5, 128, 256)
    labels[:, 2] = 1
    assert torch.equal(loaded.model(labels), ours(labels))

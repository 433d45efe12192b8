"""Inpainting systems: holes drawn from a seed, what is known stays, published files of both layouts, inference of what they are."""

from __future__ import annotations

import pytest
import torch

from limn.blocks import holes
from limn.errors import InputError, TrainingError, WeightsError
from limn.models.inpainting import deepfill_v2, partial_conv
from limn.models.records import Inpainter, drawing, seeded
from limn.weights import adopt

SMALL = deepfill_v2.Config(width=8, judge_width=4, size=32)
UNET = partial_conv.Config(width=4, depth=3, size=32)


def pictures(count: int = 2, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(count, 3, size, size, generator=seeded(1)) * 2 - 1
    return images, holes.draw(count, (size, size), seeded(2))


def test_holes_are_drawn_from_a_seed_and_differ() -> None:
    masks = holes.draw(16, (48, 80), seeded(5))
    assert masks.shape == (16, 1, 48, 80) and set(masks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masks, holes.draw(16, (48, 80), seeded(5))) and not torch.equal(masks[0], masks[1])
    shares = masks.mean((1, 2, 3))
    assert bool((shares > 0.05).all()) and bool((shares < 0.9).all())
    large = holes.draw(64, (128, 128), seeded(5), holes.Holes(box=(0.25, 0.25), boxes=1, brushed=0)).mean((1, 2, 3))
    assert torch.allclose(large, torch.full_like(large, 1 / 16), rtol=0.1), "a box of a quarter covers a sixteenth"
    assert bool((holes.draw(64, (32, 32), seeded(0), holes.Holes(boxes=0.1, brushed=0.1)).sum((1, 2, 3)) > 0).all()), "never nothing"


@pytest.mark.parametrize("network", [deepfill_v2.Generator(SMALL), partial_conv.UNet(UNET)], ids=["deepfill-v2", "partial-conv"])
def test_what_is_known_stays_and_what_is_hidden_is_not_seen(network: torch.nn.Module) -> None:
    assert isinstance(network, Inpainter)
    images, mask = pictures()
    with torch.no_grad():
        filled = network.eval().inpaint(images, mask)
        hidden = network.inpaint(images * (1 - mask) + 0.3 * mask, mask)
    assert torch.equal(filled * (1 - mask), images * (1 - mask))
    assert torch.equal(filled, hidden), "the pixels of the hole are looked at"


def test_a_sketch_guides_a_model_that_has_a_channel_for_it() -> None:
    images, mask = pictures()
    lines = deepfill_v2.edges(images)
    assert lines.shape == mask.shape and 0.005 < float(lines.mean()) < 0.2
    with pytest.raises(InputError, match="sketch"):
        deepfill_v2.Generator(SMALL).inpaint(images, mask, lines)
    guided = deepfill_v2.Generator(deepfill_v2.Config(width=8, channels_in=6))
    with torch.no_grad():
        assert not torch.equal(guided.inpaint(images, mask, lines), guided.inpaint(images, mask))
        assert torch.equal(guided.inpaint(images, mask), guided.inpaint(images, mask, torch.zeros_like(mask)))


def test_attention_copies_what_is_known() -> None:
    """A stripe is continued through a hole: the features of the hole come from patches outside it."""
    columns = torch.arange(16).remainder(4).eq(0).float()
    features = columns.expand(1, 1, 16, 16).contiguous() + 0.05
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 24:40] = 1
    spoilt = features.clone()
    spoilt[..., 6:10, 6:10] = 9.0
    copied = deepfill_v2.attention(features, spoilt, mask, deepfill_v2.Config(padding="symmetric", fuse=False))
    assert float(copied.max()) < 1.2, "a patch of the hole was copied"


@pytest.mark.parametrize(("layout", "table"), [("official", deepfill_v2.OFFICIAL), ("port", deepfill_v2.PORT)])
def test_both_published_layouts_of_the_generator_are_known(layout: str, table: dict[str, list[str]]) -> None:
    with drawing(3):
        ours = deepfill_v2.Generator(deepfill_v2.Config(width=12, channels_in=6)).state_dict()
    state = {}
    for name, tensor in ours.items():
        part, index, _, parameter = name.split(".")
        theirs = table[part][int(index)].replace("(?:conv|b1)", "b1").replace("(?:ca|b2)", "ca")
        state[f"{theirs}{'.conv' if 'upsample' in theirs else ''}.conv.{parameter}"] = tensor
    loaded = adopt(state)
    assert (loaded.system, loaded.part, loaded.meta["layout"]) == ("deepfill-v2", "generator", layout)
    assert (loaded.config.width, loaded.config.channels_in) == (12, 6), "a layer of three outputs is not gated"
    assert all(torch.equal(tensor, ours[name]) for name, tensor in loaded.model.state_dict().items())
    with pytest.raises(WeightsError, match="left over"):
        adopt(state | {"stage9.conv.weight": torch.zeros(1)})


def test_partial_convolution_scales_by_what_is_known() -> None:
    conv = partial_conv.PartialConv((1,), 1, 3, 1, 1, bias=False)
    conv.weight.data.fill_(1 / 9)
    mask = torch.ones(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 0
    with torch.no_grad():
        y, reached = conv(torch.full((1, 1, 8, 8), 5.0), mask)
    assert torch.allclose(y[reached > 0], torch.tensor(5.0), atol=1e-4), "the mean of what is known, at the hole's edge and the frame's"
    assert float(reached.sum()) == 64 - 4 and float(y[reached == 0].abs().sum()) == 0, "the hole shrinks by a pixel a side"


def test_objectives_give_finite_losses_and_take_masks_as_drawn() -> None:
    images, mask = pictures()
    batch = {"image": images, "mask": mask}
    filling = deepfill_v2.objective(SMALL)
    for phase in filling.phases():
        assert all(bool(loss.isfinite()) for loss in phase.loss(batch, seeded(0)).values())
    assert torch.equal(filling.holes_of(batch, seeded(0))[0], mask) and filling.samples(filling.networks).shape == (6, 3, 32, 32)
    with pytest.raises(TrainingError, match="features"):
        partial_conv.objective(UNET)
    learning = partial_conv.objective(UNET, weights=partial_conv.Weights(perceptual=0, style=0), finetune=True)
    before = learning.networks["unet"].encoder[1].norm.running_mean.clone()
    assert set(learning.phases()[0].loss(batch, seeded(0))) == {"valid", "hole", "smooth"}
    assert torch.equal(before, learning.networks["unet"].encoder[1].norm.running_mean), "fine-tuning leaves the encoder's statistics"

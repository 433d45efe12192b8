"""Recognising a published state dict, renaming it, and loading it strictly."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from limn.errors import WeightsError
from limn.models.records import Published, State
from limn.weights import adopt, recognise
from limn.weights.recognise import preferred, rename


@dataclass(frozen=True)
class Config:
    width: int = 4


class Net(nn.Module):
    average: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.conv = nn.Conv2d(config.width, 2, 1)
        self.register_buffer("average", torch.zeros(2))


NAMES = [
    (r"body\.0\.(weight|bias)", r"conv.\1"),
    (r"tied\.weight", "conv.weight"),
    (r".*num_batches_tracked", None),
    ("latent_avg", "average"),
]


def complete(state: State) -> State:
    return {"latent_avg": torch.zeros(2), **state}


ROWS = [
    Published("generator", "old", lambda s: "never" in s, lambda s: Config(), Net),
    Published("generator", "public", lambda s: "body.0.weight" in s, lambda s: Config(s["body.0.weight"].shape[1]), Net, NAMES, complete),
]


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules["limn.weights.recognise"]
    monkeypatch.setattr(module, "SYSTEMS", {"toy": "toy"})
    monkeypatch.setattr(module, "import_system", lambda name: SimpleNamespace(PUBLISHED=ROWS))


def published(width: int = 6) -> dict[str, Tensor]:
    return {"body.0.weight": torch.randn(2, width, 1, 1), "body.0.bias": torch.randn(1, 2, 1), "bn.num_batches_tracked": torch.tensor(1)}


def test_recognised_inferred_renamed_reshaped() -> None:
    state = published()
    assert [match.published.layout for match in recognise(state)] == ["public"]
    loaded = adopt(state)
    assert (loaded.system, loaded.part, loaded.config, loaded.meta["layout"]) == ("toy", "generator", Config(6), "public")
    assert torch.equal(loaded.model.conv.bias, state["body.0.bias"].flatten()), "axes of size one are no difference"
    assert torch.equal(loaded.model.conv.weight, state["body.0.weight"])


def test_loose_tensors_are_taken_where_the_names_mention_them() -> None:
    loaded = adopt(published(), beside={"latent_avg": torch.tensor([3.0, 4.0]), "other": torch.ones(9)})
    assert loaded.model.average.tolist() == [3, 4]
    assert adopt(published()).model.average.tolist() == [0, 0]


def test_left_over_missing_misshapen_and_unknown() -> None:
    with pytest.raises(WeightsError, match=r"toy generator \(public layout\) does not fit Net: 1 left over \(extra\)"):
        adopt(published() | {"extra": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"1 missing \(conv.bias\)"):
        adopt({name: tensor for name, tensor in published().items() if "bias" not in name})
    with pytest.raises(WeightsError, match=r"misshapen \(conv.bias"):
        adopt(published() | {"body.0.bias": torch.ones(3)})
    with pytest.raises(WeightsError, match=r"not of any system.*alpha"):
        adopt({"alpha": torch.ones(1)})
    with pytest.raises(WeightsError, match="shapes do not"):
        adopt(published() | {"body.0.weight": torch.tensor(1.0)})


def test_tied_duplicates_must_be_equal() -> None:
    state = published()
    adopt(state | {"tied.weight": state["body.0.weight"].clone()})
    with pytest.raises(WeightsError, match=r"two different tensors become 'conv.weight'"):
        adopt(state | {"tied.weight": state["body.0.weight"] + 1})


def test_renaming_takes_the_first_whole_match() -> None:
    ones = torch.ones(1)
    assert list(rename({"ab": ones, "abc": ones, "x": ones}, [("ab", "first"), ("ab.*", "second"), ("a.*", None)])) == [
        "first",
        "second",
        "x",
    ]


def test_averaged_weights_come_first() -> None:
    assert preferred(["G", "D", "G_ema"]) == ["G_ema", "G", "D"] and preferred(["params", "params_ema"]) == ["params_ema", "params"]

"""Directions found by looking: planted effects are separated, and real steps are measured."""

import pytest
import torch
import torch.nn.functional as F

from limn.errors import InputError
from limn.latent import discover
from limn.latent.appearance import appearance
from limn.latent.directions import Direction
from limn.latent.discover import Survey
from limn.models.generation.stylegan2 import Config, Generator


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Generator(Config(size=16, z_dim=8, w_dim=8, mapping_layers=2, channels=(8, 8, 8))).eval().requires_grad_(False)


def measure(images):
    """Brightness of the halves of a picture, and a stand-in for who it is."""
    left, right = images.mean((1, 2)).split(8, 1)
    who = F.normalize(F.avg_pool2d(images - images.mean((2, 3), keepdim=True), 4).flatten(1), dim=1)
    return {"left": left.mean(1), "right": right.mean(1), "red": images[:, 0].mean((1, 2))}, who


def planted(count=3000):
    """Age goes along with glasses in the samples; smile with nothing."""
    rng = torch.Generator().manual_seed(0)
    codes = torch.randn(count, 6, generator=rng) * torch.tensor([3.0, 1.0, 1.0, 0.5, 1.0, 1.0])
    age, glasses = codes[:, 0] + codes[:, 1], codes[:, 0] - codes[:, 1]
    who = F.normalize(torch.stack([codes[:, 4], codes[:, 5]], 1) + 0.01, dim=1)
    return Survey(codes, {"age": age, "glasses": glasses, "smile": codes[:, 2]}, who)


def test_holding_separates_what_goes_together():
    found = planted()
    entangled, alone = discover.isolate(found, "age", hold=0.0), discover.isolate(found, "age", hold=1000.0)

    def effect(step):
        return float(step[0] + step[1]) / found.spread()["age"], float(step[0] - step[1]) / found.spread()["glasses"]

    assert abs(effect(entangled)[0] - 1) < 0.05 and effect(entangled)[1] > 0.5, "without holding, glasses go along with age"
    assert abs(effect(alone)[0] - 1) < 0.05 and abs(effect(alone)[1]) < 0.02
    freed = discover.isolate(found, "age", hold=1000.0, free=["glasses"])
    assert effect(freed)[1] > 0.5, "what is free may go along"
    with pytest.raises(InputError, match="age, glasses, smile"):
        discover.isolate(found, "hat")


def test_identity_is_held_too():
    found = planted()
    values = {"mixed": found.codes[:, 2] + found.codes[:, 4]}
    mixed = Survey(found.codes, values, found.embeddings)
    free, held = discover.isolate(mixed, "mixed", 0.0), discover.isolate(mixed, "mixed", 1000.0)
    assert abs(float(held[4])) < 0.3 * abs(float(free[4])), "the way that changes who it is is avoided"


def test_a_survey_finds_a_direction_that_checks_out(generator):
    found = discover.survey(generator, measure, count=600)
    assert found.codes.shape == (600, 8) and set(found.spread()) == {"left", "right", "red"}
    direction = discover.best(
        generator, measure, "left", found, holds=(1.0, 10.0), count=16, unit="one deviation", model="m", model_hash="h"
    )
    moved = discover.check(generator, measure, direction, found, count=32)
    assert direction.model_hash == "h" and direction.source["hold"] in (1.0, 10.0)
    assert 0.7 < moved.changes["left"] < 1.3, "strength 1 is one standard deviation, on samples it was not calibrated on"
    assert moved.other[0] in ("right", "red")
    turned = discover.calibrate(
        Direction("left", -direction.vector), discover.check(generator, measure, Direction("left", -direction.vector), found)
    )
    assert turned.vector @ direction.vector > 0, "a direction that goes down is turned round"


def test_samples_that_cannot_be_measured_are_left_out(generator):
    def shaky(images):
        values, who = measure(images)
        values["left"][::2] = float("nan")
        return values, who

    assert len(discover.survey(generator, shaky, count=64).codes) == 32
    with pytest.raises(InputError, match="could be measured"):
        discover.survey(generator, shaky, count=8)


def test_verdicts():
    good = discover.Moved("smile", 1.0, {"smile": 1.0, "yaw": -0.3}, 0.2)
    assert good.selective and good.other == ("yaw", -0.3) and abs(good.score - 0.5) < 1e-6
    assert not discover.Moved("smile", 1.0, {"smile": 0.2, "yaw": 0.0}, 0.0).selective, "it hardly moves what it names"
    assert not discover.Moved("smile", 1.0, {"smile": 1.0, "yaw": -1.3}, 0.2).selective
    assert not discover.Moved("smile", 1.0, {"smile": 0.5, "yaw": 0.1}, 0.8).selective, "it makes someone else"


def test_appearance_reads_colours_where_they_are():
    image = torch.full((1, 3, 64, 64), -1.0)
    image[:, :, 24:, 32:] = 1.0
    points = torch.zeros(1, 478, 3)
    points[:] = torch.tensor([20.0, 40.0, 0.0])
    points[0, [280, 346, 347, 425, 411, 352]] = torch.tensor([44.0, 40.0, 0.0])
    points[0, [10, 109, 338, 67, 297]] = torch.tensor([20.0, 20.0, 0.0])
    found = {name: float(value[0]) for name, value in appearance(image, points).items()}
    assert found["light_side"] > 1 and found["hair"] < 0.01 and found["background"] < 0.01
    assert abs(found["brightness"] - 40 * 32 / 64**2) < 1e-3 and found["colour"] < 1e-3
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 64, 64)
    assert appearance(red, points)["colour"] > 0.3

"""The identity network: shapes, loading by shapes, an objective that learns, and people who are on one side only."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from limn.errors import InputError, TrainingError
from limn.metrics import identity as measure
from limn.models.perception.limn_identity import PRESETS, PUBLISHED, Config, Identity, contrast, objective
from limn.training.datasets import identities
from limn.training.datasets.augment import distort

SMALL = Config(size=32, widths=(8, 12, 16), depths=(1, 1, 1), embedding=16)


def seeded(config: Config, seed: int = 0) -> Identity:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Identity(config).eval()


def people(folder, count: int = 12, each: int = 2, size: int = 40):
    """Write a data set of flat colours, one per person, with a labels.csv; return its path."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["file", "identity"])
    for person in range(count):
        colour = rng.integers(0, 256, (2, 2, 3), np.uint8)
        for index in range(each):
            picture = Image.fromarray(colour).resize((size, size), Image.Resampling.BICUBIC)
            picture.save(folder / "images" / f"{person}_{index}.png")
            rows.writerow([f"{person}_{index}.png", f"person {person}"])
    (folder / "labels.csv").write_text(table.getvalue())
    return folder


def test_shapes_and_unit_length() -> None:
    network = seeded(Config())
    with torch.inference_mode():
        embedded = network.embed(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1)
        maps = network.features(torch.zeros(1, 3, 128, 128))
        assert network.moments(torch.zeros(2, 3, 64, 64)).shape == (2, 32 + 64 + 128 + 192)
    assert embedded.shape == (2, 128)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 64, 64), (64, 32, 32), (128, 16, 16), (192, 8, 8)]
    assert sum(p.numel() for p in network.parameters()) * 2 < 4e6, "at most 4 MB in half precision"


def test_refuses_what_is_not_an_aligned_square() -> None:
    with pytest.raises(InputError, match="align them with template 'ffhq'"):
        seeded(SMALL).embed(torch.zeros(1, 3, 64, 48))


@pytest.mark.parametrize("config", [Config(), SMALL, Config(size=128, widths=(16, 24, 32, 48), depths=(1, 3, 2, 1), embedding=64)])
def test_configuration_is_read_from_shapes(config: Config) -> None:
    state = Identity(config).state_dict()
    assert PUBLISHED[0].recognise(state) and PUBLISHED[0].infer(state) == config


def test_contrast_wants_partners_near_and_ignores_the_same_person() -> None:
    far = torch.eye(8)
    near = torch.eye(8)[[0, 0, 2, 2, 4, 4, 6, 6]]
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert contrast(near, labels, 16.0) < 0.01 < contrast(far, labels, 16.0)
    twice = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    assert contrast(near[[0, 0, 0, 0, 4, 4, 6, 6]], twice, 16.0) < 0.01, "two pairs of one person do not repel each other"


def test_the_objective_learns(tmp_path) -> None:
    data = identities.open(people(tmp_path), SMALL, everyone=True)
    goal = objective(SMALL, seed=0, identities=12, scale=16.0, margin=0.1, lr=5e-3)
    phase = goal.phases()[0]
    optimiser = torch.optim.AdamW(phase.parameters(), phase.optimiser.lr)
    losses = []
    for step in range(50):
        total = torch.stack(list(phase.loss(data.batch(step, 16, 0), torch.Generator()).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total))
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3]), losses


def test_the_objective_depends_on_its_seed_alone() -> None:
    states = [objective(SMALL, seed=seed, identities=12).networks.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["people.people"], states[2]["people.people"])


def test_people_are_on_one_side_only(tmp_path) -> None:
    path = people(tmp_path, count=60)
    train, held = (identities.open(path, SMALL, train=flag) for flag in (True, False))
    assert not set(train.people) & set(held.people) and len(train.people) + len(held.people) == 60
    assert 2 <= len(held.people) <= 18


def test_batches_are_functions_of_seed_and_step(tmp_path) -> None:
    data = identities.open(people(tmp_path), SMALL, everyone=True)
    one, again, other = data.batch(3, 8, 0), data.batch(3, 8, 0), data.batch(4, 8, 0)
    assert torch.equal(one["image"], again["image"]) and not torch.equal(one["image"], other["image"])
    assert one["image"].shape == (8, 3, 32, 32) and one["image"].abs().max() <= 1
    assert torch.equal(one["label"][::2], one["label"][1::2]), "rows come in pairs of one person"


def test_pairs_are_balanced_and_true(tmp_path) -> None:
    data = identities.open(people(tmp_path, each=3), SMALL, everyone=True)
    a, b, same = data.pairs()
    assert len(a) == 2 * 12 * 3 and int(same.sum()) == 36
    assert torch.equal(data.labels[a] == data.labels[b], same)


def test_folders_of_people_and_errors_that_name_the_file(tmp_path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name / "1.png")
    assert identities.open(tmp_path, SMALL, everyone=True).people == ("ann", "bob")
    (tmp_path / "bob" / "2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"bob/2\.png"):
        identities.open(tmp_path, SMALL, everyone=True)
    with pytest.raises(TrainingError, match="no pictures"):
        (tmp_path / "empty").mkdir()
        identities.open(tmp_path / "empty", SMALL)


def test_distortion_is_bounded_and_leaves_its_input_alone() -> None:
    images = torch.rand(6, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = images.clone()
    out = distort(images, 32, np.random.default_rng(0))
    assert out.shape == (6, 3, 32, 32) and out.abs().max() <= 1 and torch.isfinite(out).all()
    assert torch.equal(images, before)


def test_similarity_is_one_for_the_same_face() -> None:
    network = seeded(SMALL)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(measure.similarity(network, images, images.flip(-1)), torch.ones(3), msg="mirroring changes nobody")
    with pytest.raises(InputError, match="cannot be paired"):
        measure.similarity(network, images, images[:2])


def test_presets_can_be_built() -> None:
    preset = PRESETS["portraits64"]
    assert objective(replace(preset.config, widths=(4, 4, 4, 4)), seed=0, **preset.objective).phases()

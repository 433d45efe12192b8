"""What a run says of itself: each sign has a run that shows it and one that does not; the page; the scalars."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from limn.training import diagnosis, page


def rows(count: int, seed: int, spread: float = 1.0) -> torch.Tensor:
    return torch.randn(count, 48, generator=torch.Generator().manual_seed(seed)) * spread


def test_divergence_is_a_settled_loss_that_leaves_for_good() -> None:
    settled = [1.0, 0.9, 1.1, 1.0, 1.2, 0.8, 1.0, 0.9]
    assert diagnosis.divergence([*settled, 12.0, 40.0, 90.0]) is not None
    assert diagnosis.divergence([*settled, 90.0, 1.0, 1.1]) is None, "a spike alone is none"
    assert diagnosis.divergence([8.0, 4.0, 2.0, 1.0, 0.8, 0.7, 0.6, 0.5, 0.5, 0.4, 0.4]) is None, "a loss that falls"
    assert diagnosis.divergence([1.0, 50.0, 60.0]) is None, "too early to say"


def test_a_discriminator_that_has_won_has_no_loss_left() -> None:
    assert "has won" in (diagnosis.discriminator_won(0.005, 0.01, 9.0) or "")
    assert diagnosis.discriminator_won(0.42, 0.36, 1.9) is None, "a healthy run of portraits64"


def test_a_discriminator_memorises_where_augmentation_cannot_help() -> None:
    assert diagnosis.discriminator_memorises(0.97, 0.95) is not None
    assert diagnosis.discriminator_memorises(0.97, 0.1) is None, "augmentation can still grow"
    assert diagnosis.discriminator_memorises(0.6, 0.95) is None


def test_collapse_is_samples_that_become_alike() -> None:
    real, healthy, alike = (diagnosis.distance(rows(32, seed, spread)) for seed, spread in ((0, 1.0), (1, 0.7), (2, 0.2)))
    assert diagnosis.collapse(alike, healthy, real) is not None
    assert diagnosis.collapse(healthy, healthy, real) is None, "truncated samples are closer than photographs, and that is no collapse"
    assert diagnosis.collapse(alike, alike, real) is None, "the first samples of a new generator are alike"


def test_a_memorising_generator_lies_on_its_training_pictures() -> None:
    pictures = rows(64, 0)
    assert diagnosis.memorising(pictures[:16] + rows(16, 1, 0.1), pictures) is not None
    assert diagnosis.memorising(rows(16, 2), pictures) is None
    assert diagnosis.memorising(rows(16, 3, 0.7), pictures) is None, "truncated samples are nearer to everything"
    assert diagnosis.memorising(pictures[:4], pictures[:8]) is None, "too few pictures to say"


def test_each_sign_is_told_once_and_only_of_generators() -> None:
    watch, line = diagnosis.Watch(generates=True), {"overfit": 0.99, "augment": 1.0}
    assert len(watch.figures(line)) == 1 and watch.figures(line) == []
    pictures = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    watch.see({"image": pictures})
    assert "repeats training pictures" in watch.samples(pictures[:16])[0]
    assert watch.samples(pictures[:16]) == [] and watch.samples(None) == []
    encoder = diagnosis.Watch(generates=False)
    encoder.see({"image": pictures})
    assert encoder.samples(pictures[:16]) == [], "an encoder is meant to repeat what it is shown"


LINE: dict[str, Any] = {"step": 50, "images": 1600, "images_per_second": 21.5, "seconds": 75.0, "eta": 3725.0, "memory": 1.25}


def test_a_terminal_shows_a_page_and_a_file_gets_lines() -> None:
    written = io.StringIO()
    with page.shown("stylegan2 auto", 100, Console(file=written, width=200)) as report:
        report(LINE | {"rate/generator": 0.002, "generator/adversarial": 1.5})
        report({"step": 50, "warning": "the generator is collapsing"})
    lines = written.getvalue().splitlines()
    assert "21.5/s" in lines[0] and "1:02:05 left" in lines[0] and "generator/adversarial 1.5" in lines[0] and "rate" not in lines[0]
    assert "WARNING: the generator is collapsing" in lines[1]
    shown = io.StringIO()
    with page.shown("stylegan2 auto", 100, Console(file=shown, width=120, force_terminal=True)) as report:
        for value in (1.0, 2.0, float("nan")):
            report(LINE | {"rate/generator": 0.002, "generator/adversarial": value})
        report({"step": 50, "note": "begins with model.safetensors"})
    text = shown.getvalue()
    for expected in ("step 50 of 100", "1:02:05 left", "1.2 GB", "rate/generator", "begins with"):
        assert expected in text, expected


@pytest.mark.parametrize(("values", "bars"), [([0.0, 1.0], "▁█"), ([2.0, 2.0], "▁▁"), ([0.0, 0.5, 1.0], "▁▅█")])
def test_curves_reach_from_the_least_to_the_largest_value(values: list[float], bars: str) -> None:
    assert page.curve(values) == bars

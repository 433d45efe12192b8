"""Adversarial games: who wants what, and penalties that vanish where they should; published values are in tests/parity."""

import pytest
import torch

from limn.losses import games


@pytest.mark.parametrize("name", games.GAMES)
def test_every_game_rewards_the_right_answer(name: str) -> None:
    game = games.GAMES[name]
    low, high = torch.full((4, 1), 0.1), torch.full((4, 1), 0.9)
    assert game(high, True) < game(low, True)
    assert game(low, False) < game(high, False)
    assert game(high, True, True) < game(low, True, True), "a generator wants to be called real"


def test_relativistic_scores_mirror_each_other() -> None:
    real, fake = torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(0))
    of_generator = games.relativistic_generator(games.vanilla, real, fake)
    torch.testing.assert_close(of_generator, games.relativistic_discriminator(games.vanilla, fake, real))


def test_gradient_penalty_of_a_plane_is_known() -> None:
    direction = torch.randn(3 * 4 * 4, 1, generator=torch.Generator().manual_seed(0))
    direction = 3 * direction / direction.norm()
    real, fake = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    value = games.gradient_penalty(lambda x: x.flatten(1) @ direction, real, fake, torch.rand(5, 1, 1, 1))
    assert float(value) == pytest.approx(4, rel=1e-5), "a slope of 3 is 2 too steep everywhere"


def test_memory_forgets_the_oldest() -> None:
    pool = games.Remembered(2)
    means = [float(pool.add(torch.full((1,), value))) for value in (1.0, 3.0, 5.0)]
    assert means == [1, 2, 4]

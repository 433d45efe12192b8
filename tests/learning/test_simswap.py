"""A tiny SimSwap learns to give a picture the colours that its identity network takes for who it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limn.models.swapping.simswap import Config, Judge, Weights, objective
from limn.training.loop import optimiser


class Colours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1), requires_grad=False)

    def embed(self, images: Tensor) -> Tensor:
        return F.normalize(images.mean((2, 3)) * self.gain + 1e-3)


def people(step: int, count: int = 16) -> Tensor:
    """Two pictures of each person: a colour, with a pattern of its own in each."""
    rng = torch.Generator().manual_seed(step)
    colour = (torch.rand(count // 2, 3, 1, 1, generator=rng) * 1.2 - 0.6).repeat_interleave(2, 0)
    return (colour + 0.2 * F.interpolate(torch.randn(count, 1, 4, 4, generator=rng), size=16)).clamp(-1, 1)


def test_identity_is_taken_over() -> None:
    config = Config(16, 3, (8, 16), 1, "unit", "ffhq", residual=True, judge=Judge("patch", 8, depth=1))
    goal = objective(config, identity=Colours(), weights=Weights(5.0, 1.0, 1.0), lr=3e-3)
    phases = goal.phases()
    optimisers = [optimiser(phase.optimiser, phase.parameters()) for phase in phases]
    likeness = []
    for step in range(60):
        batch = {"image": people(step)}
        for phase, adam in zip(phases, optimisers, strict=True):
            losses = phase.loss(batch, torch.Generator().manual_seed(step))
            adam.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            adam.step()
            if "identity" in losses:
                likeness.append(1 - float(losses["identity"].detach()) / 5)
    assert sum(likeness[-5:]) / 5 > sum(likeness[:3]) / 3 + 0.15, likeness

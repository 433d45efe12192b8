"""From a picture to its code by optimisation, and pivotal tuning, which bends the generator so that the code fits.

The projector: Karras et al., Analyzing and Improving the Image Quality of StyleGAN (arXiv 1912.04958), section 5 and appendix D.
Pivotal tuning: Roich, Mokady, Bermano, Cohen-Or, TOG 2022, arXiv 2106.05744.
Differs: the distance is a function that the caller passes in, so that no feature network is tied to it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from limn.errors import InputError
from limn.latent.spaces import w_to_w_plus, z_to_w
from limn.models.generation.stylegan2 import Generator
from limn.models.records import seeded

Distance = Callable[[Tensor, Tensor], Tensor]  # (images, target), both (N, 3, H, W) in [-1, 1] -> a scalar
Progress = Callable[[int, float], None]  # (step, loss)
SMALLEST = 8  # pixels: the noise regulariser's pyramid ends here


@dataclass(frozen=True)
class Schedule:
    """The published projector's settings; lengths are shares of all steps."""

    steps: int = 1000
    lr: float = 0.1
    noise_factor: float = 0.05  # of w's deviation: how far w is jittered at first
    ramp_down: float = 0.25
    ramp_up: float = 0.05
    noise_ramp: float = 0.75  # the jitter has faded out by then
    regularise: float = 1e5  # weight of the noise planes' autocorrelation; 0: the planes stay as they are

    def rate(self, step: int) -> float:
        """Learning rate of a step: up linearly, down by a cosine."""
        t = step / self.steps
        ramp = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / self.ramp_down))
        return self.lr * ramp * min(1.0, t / self.ramp_up)

    def jitter(self, step: int, deviation: float) -> float:
        """Standard deviation of the noise added to w at a step."""
        return deviation * self.noise_factor * max(0.0, 1 - step / self.steps / self.noise_ramp) ** 2


@dataclass(frozen=True)
class Projected:
    """What a projection found."""

    code: Tensor  # w (1, w_dim) or W+ (1, num_ws, w_dim)
    noise: dict[str, Tensor]  # noise planes by their names in the synthesis network; empty where they were left alone
    distances: list[float]  # of every step, without the regulariser
    path: Tensor = field(repr=False)  # the code after every step (steps, ...)


def statistics(generator: Generator, z: Tensor) -> tuple[Tensor, float]:
    """Mean w (1, w_dim) over z (N, z_dim), and its deviation: the root of the summed variance of all channels."""
    w = z_to_w(generator, z)
    mean = w.mean(0, keepdim=True)
    return mean, float((w - mean).square().sum(1).mean().sqrt())


def project(
    generator: Generator,
    target: Tensor,
    distance: Distance,
    *,
    seed: int = 0,
    start: Tensor | None = None,
    schedule: Schedule = Schedule(),
    pull: float = 0.0,
    noise: dict[str, Tensor] | None = None,
    jitters: Tensor | None = None,
    statistic: tuple[Tensor, float] | None = None,
    progress: Progress | None = None,
) -> Projected:
    """Find the code whose image is nearest to `target` (1, 3, H, W) in [-1, 1].

    `start` (1, w_dim) or (1, num_ws, w_dim) says where to begin and so whether W or W+ is searched; the average w where None.
    `pull` weighs the mean squared way from the start. `noise`, `jitters` (steps, ...) and `statistic` replace the draws from `seed`.
    """
    size = generator.config.size
    if target.shape != (1, generator.config.image_channels, size, size):
        raise InputError(f"the target of shape {tuple(target.shape)} does not fit: this generator makes (1, 3, {size}, {size})")
    rng = seeded(seed, target.device)
    mean, deviation = statistic or statistics(generator, torch.randn(2000, generator.config.z_dim, generator=rng, device=target.device))
    origin = (mean if start is None else start).detach().clone()
    code = origin.clone().requires_grad_()
    planes = _planes(generator, noise, rng) if schedule.regularise else {}
    optimiser = torch.optim.Adam([code, *planes.values()], betas=(0.9, 0.999))
    parameters = {**dict(generator.synthesis.named_parameters()), **dict(generator.synthesis.named_buffers())}
    fixed = {name: value.detach() for name, value in parameters.items()}
    distances, path = [], []
    for step in range(schedule.steps):
        optimiser.param_groups[0]["lr"] = schedule.rate(step)
        draw = jitters[step].reshape(code.shape) if jitters is not None else torch.randn(code.shape, generator=rng, device=code.device)
        w_plus = w_to_w_plus(generator, code + draw * schedule.jitter(step, deviation))
        found = distance(functional_call(generator.synthesis, {**fixed, **planes}, (w_plus,)), target)
        loss = found + schedule.regularise * autocorrelation(planes.values()) if planes else found
        if pull:
            loss = loss + pull * (code - origin).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        _normalise(planes)
        distances.append(float(found.detach()))
        path.append(code.detach()[0].clone())
        if progress is not None:
            progress(step, distances[-1])
    kept = {name: plane.detach() for name, plane in planes.items()}
    return Projected(code.detach(), kept, distances, torch.stack(path))


def _planes(generator: Generator, given: dict[str, Tensor] | None, rng: torch.Generator) -> dict[str, Tensor]:
    """Leaf tensors for the noise planes: drawn, or copies of those given by name."""
    found = {name: plane for name, plane in generator.synthesis.named_buffers() if name.endswith("noise_const")}
    if given is None:
        given = {name: torch.randn(plane.shape, generator=rng, device=rng.device) for name, plane in found.items()}
    return {name: given[name].to(plane).clone().requires_grad_() for name, plane in found.items()}


@torch.no_grad()
def _normalise(planes: dict[str, Tensor]) -> None:
    for plane in planes.values():
        plane.sub_(plane.mean()).mul_(plane.square().mean().rsqrt())


def autocorrelation(planes: Iterable[Tensor]) -> Tensor:
    """Squared mean product of each noise plane with itself moved by one pixel, over a pyramid of halved planes (appendix D)."""
    total = torch.zeros(())
    for whole in planes:
        plane = whole[None, None]
        while True:
            total = total.to(plane) + sum((plane * plane.roll(1, axis)).mean().square() for axis in (2, 3))
            if plane.shape[2] <= SMALLEST:
                break
            plane = F.avg_pool2d(plane, 2)
    return total


# --------------------------------------------------------------------------------------------------------- pivotal tuning


@dataclass(frozen=True)
class Locality:
    """Keeps the generator as it was at some distance from the pivot (PTI, eq. 5); the published settings leave it off."""

    radius: float = 30.0  # distance from the pivot over all layers and channels
    weight: float = 0.1  # of both terms
    samples: int = 1
    truncation: float = 0.5


@dataclass(frozen=True)
class Tuned:
    """A tuned copy of the generator, and the losses before every step."""

    generator: Generator
    losses: list[float]
    distances: list[float]  # of the image to the target


def tune(
    generator: Generator,
    pivot: Tensor,
    target: Tensor,
    distance: Distance,
    *,
    steps: int = 350,
    lr: float = 3e-4,
    stop: float = 0.0,
    locality: Locality | None = None,
    seed: int = 0,
    draws: Tensor | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Tune a copy of the generator so that the pivot (1, num_ws, w_dim) gives the target (1, 3, H, W) in [-1, 1] (PTI, section 3.2).

    Stops early where the distance falls to `stop`. `draws` (steps, samples, z_dim) replaces the locality term's draws from `seed`.
    """
    tuned = copy.deepcopy(generator)
    tuned.requires_grad_(True)
    pivot = w_to_w_plus(generator, pivot).detach()
    rng = seeded(seed, target.device)
    optimiser = torch.optim.Adam(tuned.synthesis.parameters(), lr=lr)
    losses, distances = [], []
    for step in range(steps):
        found = distance(tuned.synthesis(pivot), target)
        distances.append(float(found.detach()))
        if distances[-1] <= stop:
            break
        loss = found
        if locality is not None:
            shape = (locality.samples, generator.config.z_dim)
            z = draws[step] if draws is not None else torch.randn(shape, generator=rng, device=rng.device)
            loss = loss + _locality(tuned.synthesis, generator, near(generator, pivot, z, locality), distance, locality.weight)
        losses.append(float(loss.detach()))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if progress is not None:
            progress(step, losses[-1])
    return Tuned(tuned.eval().requires_grad_(False), losses, distances)


def near(generator: Generator, pivot: Tensor, z: Tensor, locality: Locality) -> Tensor:
    """Codes (N, num_ws, w_dim) at the locality's radius from the pivot, towards truncated random codes (PTI, eq. 4)."""
    with torch.no_grad():
        w_plus = generator.mapping.truncate(generator.mapping(z), locality.truncation)
    way = w_plus - pivot
    return pivot + locality.radius * way / way.flatten(1).norm(dim=1)[:, None, None]


def _locality(tuned: nn.Module, generator: Generator, codes: Tensor, distance: Distance, weight: float) -> Tensor:
    total = torch.zeros((), device=codes.device)
    for code in codes:
        with torch.no_grad():
            before = generator.synthesis(code[None], noise="none")
        total = total + weight * distance(tuned(code[None], noise="none"), before)
    return total / len(codes)

"""Finding directions in a generator by looking at what it makes, and checking that each moves what it names.

A survey renders random codes and measures every picture. A direction for one measure is the shortest step, in the metric of the
codes' own spread, that moves it by one standard deviation, where moving other measures and the identity costs extra: the closed
form of conditional manipulation (Shen et al., arXiv 1907.10786, section 3.2) for many conditions at once. Calibration and check
render the step and measure again, because pictures do not follow codes linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from limn.errors import InputError
from limn.latent.directions import Direction, move
from limn.latent.spaces import sample_z, truncate, w_to_w_plus, z_to_w
from limn.models.generation.stylegan2 import Generator

Measure = Callable[[Tensor], tuple[Mapping[str, Tensor], Tensor]]  # images (N, 3, H, W) -> values (N,) by name, unit embeddings (N, E)
Progress = Callable[[int, int], None]  # (codes done, codes in all)
BATCH = 32


@dataclass(frozen=True)
class Survey:
    """Random codes, and what was measured in their pictures."""

    codes: Tensor  # (N, w_dim)
    values: dict[str, Tensor]  # (N,) each
    embeddings: Tensor  # (N, E) unit vectors: who it is

    def spread(self) -> dict[str, float]:
        """Standard deviation of every measure: the unit in which changes are told."""
        return {name: max(float(values.double().std()), 1e-9) for name, values in self.values.items()}

    def strangers(self) -> float:
        """Mean identity distance (1 - cosine) of two different samples."""
        return float((1 - (self.embeddings * self.embeddings.roll(1, 0)).sum(1)).mean())


@dataclass(frozen=True)
class Moved:
    """What a step along a direction moves, as a mean over samples and over both ways."""

    name: str
    strength: float
    changes: dict[str, float]  # of every measure, in standard deviations of the survey, per step of `strength`
    identity: float  # identity distance of before and after: 0 the same person, 1 as far as two strangers
    free: tuple[str, ...] = ()  # measures that go along by the very meaning of the named one

    @property
    def other(self) -> tuple[str, float]:
        """The measure that moves most beside the named one and those that go along with it."""
        rest = {name: change for name, change in self.changes.items() if name not in (self.name, *self.free)}
        return max(rest.items(), key=lambda item: abs(item[1]), default=("nothing", 0.0))

    @property
    def selective(self) -> bool:
        """Whether the named measure moves, moves most, and more than the identity."""
        own = self.changes[self.name]
        return own > 0.25 and own > abs(self.other[1]) and own > self.identity

    @property
    def score(self) -> float:
        """How much better the named measure moves than what should stay: the largest side effect and identity, per unit of its own move."""
        own = self.changes[self.name]
        return -1e3 if own < 0.05 else 1 - (abs(self.other[1]) + self.identity) / own


def codes_of(generator: Generator, seeds: Sequence[int], truncation: float) -> Tensor:
    """Truncated w (N, w_dim) of seeds."""
    return truncate(generator, z_to_w(generator, sample_z(generator, seeds)), truncation)


@torch.no_grad()
def look(generator: Generator, codes: Tensor, measure: Measure, progress: Progress | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Render W or W+ codes and measure the pictures, some at a time: values (N,) by name, embeddings (N, E)."""
    values, embeddings = [], []
    for part in codes.split(BATCH):
        found, who = measure(generator.synthesis(w_to_w_plus(generator, part)).clamp(-1, 1))
        values.append(found)
        embeddings.append(who)
        if progress is not None:
            progress(min(BATCH * len(values), len(codes)), len(codes))
    return {name: torch.cat([found[name].float().flatten() for found in values]) for name in values[0]}, torch.cat(embeddings)


def survey(
    generator: Generator,
    measure: Measure,
    *,
    count: int = 4000,
    truncation: float = 0.8,
    first_seed: int = 0,
    progress: Progress | None = None,
) -> Survey:
    """Render `count` random codes and measure them. Samples with a value that is not finite are left out."""
    codes = codes_of(generator, range(first_seed, first_seed + count), truncation)
    values, embeddings = look(generator, codes, measure, progress)
    whole = torch.stack([value.isfinite() for value in values.values()]).all(0)
    if int(whole.sum()) < 2 * codes.shape[1]:
        raise InputError(f"only {int(whole.sum())} of {count} samples could be measured: at least {2 * codes.shape[1]} are needed")
    return Survey(codes[whole], {name: value[whole] for name, value in values.items()}, embeddings[whole])


def isolate(found: Survey, name: str, hold: float = 3.0, free: Sequence[str] = (), ridge: float = 1e-2) -> Tensor:
    """Return the step (w_dim,) that should move a measure by one standard deviation and little else.

    `hold` weighs other measures (but those in `free`) and identity against the length of the step: 0 moves whatever goes along with
    the measure in the samples, large values hold everything else still. Lengths are Mahalanobis', so the step stays where codes are.
    """
    if name not in found.values:
        raise InputError(f"nothing called {name!r} was measured: there are {', '.join(sorted(found.values))}")
    u, back = _whitened(found.codes.double(), ridge)
    effects = {other: u.T @ _standard(value) / len(u) for other, value in found.values.items()}
    own = effects.pop(name)
    cost = torch.eye(len(own), dtype=own.dtype)
    for other, effect in effects.items():
        if other not in free:
            cost += hold * torch.outer(effect, effect) / own.square().sum()
    who = u.T @ (found.embeddings.double() - found.embeddings.double().mean(0)) / len(u)  # how every number of the identity follows
    cost += hold * (who @ who.T) / (found.strangers() * own.square().sum())
    step = torch.linalg.solve(cost, own)
    return (back @ (step / (own @ step))).float()


def _whitened(codes: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Codes (N, d) in coordinates of unit variance (N, k), and the matrix (d, k) that leads back; faint coordinates are dropped."""
    centred = codes - codes.mean(0)
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(codes))
    kept = variance > variance.max() * ridge**2
    deviation = variance[kept].sqrt()
    return centred @ axes[:, kept] / deviation, axes[:, kept] * deviation


def _standard(values: Tensor) -> Tensor:
    values = values.double()
    return (values - values.mean()) / values.std().clamp_min(1e-9)


def check(
    generator: Generator,
    measure: Measure,
    direction: Direction,
    found: Survey,
    *,
    count: int = 200,
    first_seed: int = 100_000,
    strength: float = 1.0,
    truncation: float = 0.7,
) -> Moved:
    """Move `count` fresh samples both ways along a direction and measure how far everything goes."""
    start = w_to_w_plus(generator, codes_of(generator, range(first_seed, first_seed + count), truncation))
    return _moved(generator, measure, direction, found, (start, look(generator, start, measure)[1]), strength=strength)


def _moved(
    generator: Generator, measure: Measure, direction: Direction, found: Survey, still: tuple[Tensor, Tensor], *, strength: float = 1.0
) -> Moved:
    """Move codes (N, num_ws, w_dim), of which the identities are known, both ways."""
    start, who = still
    sides = [look(generator, move(start, direction, sign * strength), measure) for sign in (-1, 1)]
    spread = found.spread()
    changes = {name: float(torch.nanmean((sides[1][0][name] - sides[0][0][name]) / 2)) / spread[name] for name in spread}
    distance = float(torch.stack([1 - (moved * who).sum(1) for _, moved in sides]).mean())
    return Moved(direction.name, strength, changes, distance / max(found.strangers(), 1e-9))


def calibrate(direction: Direction, moved: Moved) -> Direction:
    """Scale a direction so that strength +1 moves its measure by one standard deviation, as measured; turn it if it went down."""
    own = moved.changes[direction.name] / moved.strength
    scale = (1 if own >= 0 else -1) / max(abs(own), 0.1)  # one that hardly moves anything is not blown up without bound
    return replace(direction, vector=direction.vector * scale)


def best(
    generator: Generator,
    measure: Measure,
    name: str,
    found: Survey,
    *,
    holds: Sequence[float] = (0.0, 3.0, 20.0),
    layers: Sequence[Sequence[int] | None] = (None,),
    free: Sequence[str] = (),
    count: int = 24,
    first_seed: int = 50_000,
    **fields: Any,
) -> Direction:
    """Try every weight of holding and every choice of layers on `count` samples; return the best, calibrated.

    `fields` go into the Direction (unit, model, model_hash, source). Check what comes back on other samples.
    """
    start = w_to_w_plus(generator, codes_of(generator, range(first_seed, first_seed + count), 0.7))
    still = (start, look(generator, start, measure)[1])
    tried = []
    for hold in holds:
        vector = isolate(found, name, hold, free)
        for chosen in layers:
            plain = Direction(name, vector, layers=None if chosen is None else tuple(chosen), **fields)
            moved = _moved(generator, measure, plain, found, still)
            direction = calibrate(plain, moved)
            tried.append((moved.score, replace(direction, source={**direction.source, "hold": hold})))
    return max(tried, key=lambda row: row[0])[1]

"""The latent spaces of a style-based generator, and ways between and within them.

Z (N, z_dim): Gaussian noise. W (N, w_dim): a style. W+ (N, num_ws, w_dim): a style of its own for every layer.
S: the list of channel scales (N, channels), one for every modulated layer, those that paint RGB included, in the order of synthesis.
Karras et al., arXiv 1812.04948 (W, truncation, style mixing); Abdal et al., arXiv 1904.03189 (W+); Wu et al., arXiv 2011.12799 (S).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from limn.errors import InputError
from limn.models.generation.stylegan2 import Generator
from limn.models.records import seeded

Space = Literal["z", "w", "w_plus", "s"]
SPACES: tuple[Space, ...] = ("z", "w", "w_plus", "s")


def sample_z(generator: Generator, seeds: Iterable[int]) -> Tensor:
    """Draw z (N, z_dim), one row per seed: a seed gives the same face whichever seeds stand beside it."""
    rows = [torch.randn(generator.config.z_dim, generator=seeded(seed)) for seed in seeds]
    if not rows:
        raise InputError("no seeds were given: name at least one, such as 0 or 0-15")
    return torch.stack(rows).to(generator.w_avg.device)


@torch.no_grad()
def z_to_w(generator: Generator, z: Tensor, label: Tensor | None = None) -> Tensor:
    """Map z (N, z_dim) to w (N, w_dim)."""
    if z.ndim != 2 or z.shape[1] != generator.config.z_dim:
        raise InputError(f"a z of shape {tuple(z.shape)} does not fit this generator: it takes (N, {generator.config.z_dim})")
    return generator.mapping(z, label)[:, 0]


def w_to_w_plus(generator: Generator, w: Tensor) -> Tensor:
    """Repeat w (N, w_dim) for every layer; a W+ code (N, num_ws, w_dim) passes."""
    check_w(generator, w)
    return w[:, None].expand(-1, generator.num_ws, -1) if w.ndim == 2 else w


def w_plus_to_s(generator: Generator, w_plus: Tensor) -> list[Tensor]:
    """Map W+ (N, num_ws, w_dim) to the styles (N, channels) of every modulated layer."""
    check_w(generator, w_plus)
    return generator.synthesis.styles(w_to_w_plus(generator, w_plus))


def check_w(generator: Generator, w: Tensor) -> None:
    """Raise InputError unless w is (N, w_dim) or (N, num_ws, w_dim) of this generator."""
    width, layers = generator.config.w_dim, generator.num_ws
    if w.shape[1:] not in {(width,), (layers, width)}:
        raise InputError(f"a code of shape {tuple(w.shape)} does not fit this generator: it takes (N, {width}) or (N, {layers}, {width})")


def to_w_plus(generator: Generator, space: Space, code: Tensor, label: Tensor | None = None) -> Tensor:
    """Bring a code of Z, W or W+ to W+ (N, num_ws, w_dim); S has no way back."""
    if space == "s":
        raise InputError("a code of S cannot be brought back to W+: use the W+ code that it came from")
    return w_to_w_plus(generator, z_to_w(generator, code, label) if space == "z" else code)


def render(
    generator: Generator,
    space: Space,
    code: Tensor | Sequence[Tensor],
    noise: Literal["const", "random", "none"] = "const",
    rng: torch.Generator | None = None,
) -> Tensor:
    """Synthesise images (N, 3, H, W) about [-1, 1] from a code of any space (unconditional for Z)."""
    if space == "s":
        return generator.synthesis.render(list(code), noise, rng)
    if not isinstance(code, Tensor):
        raise InputError(f"a code of {space} is one tensor; a list of styles belongs to the space s")
    return generator.synthesis(to_w_plus(generator, space, code), noise, rng)


def truncate(generator: Generator, w: Tensor, psi: float = 0.7, cutoff: int | None = None) -> Tensor:
    """Pull w or W+ towards the average style: psi 1 leaves it, 0 gives the average. Only the first `cutoff` layers, if given."""
    check_w(generator, w)
    return generator.mapping.truncate(w if cutoff is None else w_to_w_plus(generator, w), psi, cutoff)


# ------------------------------------------------------------------------------------------------------- within a space


def mix(base: Tensor, styles: Tensor, layers: Sequence[int]) -> Tensor:
    """Take `layers` of the W+ code `styles` into `base`, both (N, num_ws, w_dim): style mixing."""
    mixed = base.clone()
    mixed[:, list(layers)] = styles[:, list(layers)].to(base)
    return mixed


def parse_layers(text: str, num_ws: int) -> list[int]:
    """Read layers such as "0-3,7" (both ends included), "coarse" (up to 8x8), "middle" (16x16, 32x32) or "fine" (the rest)."""
    named = {"all": range(num_ws), "coarse": range(min(4, num_ws)), "middle": range(4, min(8, num_ws)), "fine": range(8, num_ws)}
    if text in named:
        return list(named[text])
    layers: set[int] = set()
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isdecimal() for end in ends):
            raise InputError(f"layers {text!r} cannot be read: give numbers and ranges such as 0-3,7, or coarse, middle, fine, all")
        layers.update(range(int(ends[0]), min(int(ends[-1]), num_ws) + 1))
    if not layers or max(layers) >= num_ws:
        raise InputError(f"layers {text!r} are not all there: this generator has the layers 0 to {num_ws - 1}")
    return sorted(layers)


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Go the share t of the straight way from a to b: right for W, W+ and S."""
    return a + (b - a) * t


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Go the share t of the way from a to b along the arc, for Z, whose draws lie near a sphere. Lengths change linearly."""
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / length_a.clamp_min(1e-12), b / length_b.clamp_min(1e-12)
    angle = (unit_a * unit_b).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * unit_a + (t * angle).sin() * unit_b) / sine.clamp_min(1e-6)
    unit = torch.where(sine < 1e-4, lerp(unit_a, unit_b, t), arc)  # parallel: the chord; opposite codes have no one arc
    return unit * lerp(length_a, length_b, t)


def journey(keys: Tensor, frames: int, space: Space = "w", loop: bool = True, ease: bool = True) -> Iterator[Tensor]:
    """Yield codes from key to key (K, ...), `frames` per leg, spherical in Z, linear elsewhere, slowing down at the keys."""
    if len(keys) < 2 or frames < 1:
        raise InputError(f"an interpolation needs at least two keys and one frame per leg, not {len(keys)} and {frames}")
    between = slerp if space == "z" else lerp
    for index in range(len(keys) if loop else len(keys) - 1):
        a, b = keys[index : index + 1], keys[(index + 1) % len(keys)][None]
        for frame in range(frames):
            t = frame / frames
            yield between(a, b, 0.5 - 0.5 * math.cos(math.pi * t) if ease else t)
    if not loop:
        yield keys[-1:]

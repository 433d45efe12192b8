"""Latents as files: safetensors that name their model by hash, so that no code is fed to a network it was not made for."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from limn.errors import InputError
from limn.latent.spaces import SPACES, Space
from limn.media.files import atomic
from limn.models.generation.stylegan2 import Generator

FORMAT = "1"
KEY = "limn_latent"
TUNED = "tuned."


@dataclass(frozen=True)
class Latent:
    """A code of one generator, with where it came from."""

    space: Space
    tensors: tuple[Tensor, ...]  # one for Z, W and W+; one per modulated layer for S
    model: str  # the generator's name, for people
    model_hash: str  # the generator's content hash: `limn.weights.load(...).hash`
    source: Mapping[str, Any] = field(default_factory=dict)  # plain values: seed, photo's sha256, alignment matrix, closeness reached
    tuned: Mapping[str, Tensor] = field(default_factory=dict)  # pivotal tuning: what is added to the generator's state, by name

    @property
    def code(self) -> Tensor:
        """The tensor of a code of Z, W or W+."""
        if self.space == "s":
            raise InputError("a code of S is a list of styles: use `tensors`")
        return self.tensors[0]


def save_latent(path: str | Path, latent: Latent) -> Path:
    """Write a latent atomically; the tuning is kept in half precision."""
    tensors = {f"{latent.space}.{index}": tensor.detach().cpu().contiguous() for index, tensor in enumerate(latent.tensors)}
    tensors |= {TUNED + name: tensor.detach().cpu().half().contiguous() for name, tensor in latent.tuned.items()}
    header = {
        KEY: FORMAT,
        "space": latent.space,
        "count": str(len(latent.tensors)),
        "model": latent.model,
        "model_hash": latent.model_hash,
        "source": json.dumps(dict(latent.source)),
    }
    with atomic(path) as temporary:
        save_file(tensors, temporary, header)
    return Path(path)


def load_latent(path: str | Path, model: str = "", model_hash: str = "") -> Latent:
    """Read a latent; with `model_hash` given, one of another model raises InputError that names both."""
    path = Path(path)
    header, tensors = read_safetensors(path, KEY, "a saved latent (made by `limn invert` or `limn generate`)")
    try:
        space, count, source = header["space"], int(header["count"]), json.loads(header["source"])
        codes = tuple(tensors[f"{space}.{index}"] for index in range(count))
        found = Latent(cast(Space, space), codes, header["model"], header["model_hash"], source, _tuning(tensors))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path.name}: the latent is damaged ({error}): make it again with `limn invert`") from error
    if space not in SPACES:
        raise InputError(f"{path.name}: the space {space!r} is not known here; known are {', '.join(SPACES)}")
    check_model(f"the latent {path.name}", found.model, found.model_hash, model, model_hash)
    return found


def _tuning(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(TUNED): tensor.float() for name, tensor in tensors.items() if name.startswith(TUNED)}


def read_safetensors(path: Path, key: str, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a safetensors file that bears `key`; InputError says what it is not."""
    if not path.is_file():
        raise InputError(f"{path} is not a file: give {what}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if key not in header:
                raise InputError(f"{path.name} is not {what}")
            if header[key] != FORMAT:
                raise InputError(f"{path.name}: format {header[key]} is newer than this limn reads ({FORMAT}): upgrade limn")
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name} is not {what}: {error}") from error


def check_model(what: str, its_model: str, its_hash: str, model: str, model_hash: str) -> None:
    """Raise InputError where `what` was made for a model of another hash; an empty hash on either side fits all."""
    if its_hash and model_hash and its_hash != model_hash:
        ours = f"{model or 'the model in use'} ({model_hash[:12]})"
        raise InputError(f"{what} belongs to the model {its_model} ({its_hash[:12]}), not to {ours}: choose that model or make it again")


def difference(tuned: Generator, original: Generator) -> dict[str, Tensor]:
    """What pivotal tuning changed: the floating-point entries of the state that differ, tuned minus original."""
    before, after = original.state_dict(), tuned.state_dict()
    return {
        name: after[name] - before[name]
        for name in before
        if before[name].is_floating_point() and not torch.equal(before[name], after[name])
    }


def with_tuning(generator: Generator, latent: Latent) -> Generator:
    """Return the generator that a latent asks for: itself, or a copy with the latent's tuning added."""
    if not latent.tuned:
        return generator
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    odd = [name for name, change in latent.tuned.items() if name not in state or state[name].shape != change.shape]
    if odd:
        raise InputError(f"the latent's tuning does not fit this generator ({odd[0]}): it belongs to {latent.model}")
    for name, change in latent.tuned.items():
        state[name] += change.to(state[name])
    tuned = copy.deepcopy(generator)
    tuned.load_state_dict(state)
    return tuned

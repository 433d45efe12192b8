"""A run's state in one file, written beside and renamed: there is always a whole one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from limn.errors import InputError, TrainingError
from limn.media import atomic


def write(path: Path, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Save named groups of tensors, and facts as JSON in the header."""
    tensors = {f"{part}/{name}": t.detach().contiguous().clone() for part, group in parts.items() for name, t in group.items()}
    with writing(path), atomic(path) as beside:
        save_file(tensors, beside, {"facts": json.dumps(facts)})


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what can go wrong with a disk into one line; safetensors reports it as an error of its own."""
    try:
        yield
    except (OSError, SafetensorError, InputError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise TrainingError(f"{path}: could not be written ({reason}); the last good checkpoint is untouched: go on from it") from error


def refuse_broken(networks: nn.Module, step: int) -> None:
    """Raise where a weight is not finite: a checkpoint must never replace a good one with that."""
    bad = [name for name, t in networks.state_dict().items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise TrainingError(f"step {step}: {len(bad)} weights are not finite (first {bad[0]}); the last checkpoint is good: lower the rate")


def sweep(out: Path) -> None:
    """Remove what a killed run left half written."""
    for part in out.glob(".*.part.safetensors"):
        part.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `write` saved."""
    parts: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "null"))
            for key in file.keys():  # noqa: SIM118 - the handle is not a mapping
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: cannot be read ({' '.join(str(error).split())}); take the folder's model.safetensors") from error
    if facts is None:
        raise TrainingError(f"{path}: is not the state of a limn run; give --out the folder of one, or a new folder")
    return parts, facts


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimiser's state: `index.name` -> tensor."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, entry in state.items() for name, value in entry.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took out."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})

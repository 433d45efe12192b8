"""A run's state in one file, written beside and renamed: there is always a whole one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from limn.errors import TrainingError
from limn.media import atomic


def write(path: Path, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Save named groups of tensors, and facts as JSON in the header."""
    tensors = {f"{part}/{name}": t.detach().contiguous().clone() for part, group in parts.items() for name, t in group.items()}
    try:
        with atomic(path) as beside:
            save_file(tensors, beside, {"facts": json.dumps(facts)})
    except OSError as error:
        raise TrainingError(f"{path}: the checkpoint could not be written ({error.strerror}); the last one is untouched") from error


def read(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `write` saved."""
    parts: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {}).get("facts", "null"))
        for key in file.keys():  # noqa: SIM118 - the handle is not a mapping
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = file.get_tensor(key)
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

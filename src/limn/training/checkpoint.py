"""A run's state, written beside and renamed: there is always a whole one.

One file where every process has all, `state.safetensors`. A folder `state-STEP` where the state is spread over processes, to which each
writes its share through torch.distributed.checkpoint, as safetensors (its usual format is pickled). Either is read into either layout.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from limn.errors import InputError, TrainingError
from limn.media import atomic
from limn.training import average
from limn.training.processes import Processes

FILE, FOLDER, FACTS = "state.safetensors", "state-{:08d}", "facts.json"
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam; its count of steps is a scalar
Outer = Callable[[nn.Parameter, Tensor], Tensor]


def write(path: Path, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Save named groups of tensors, and facts as JSON in the header."""
    tensors = {name: t.detach().contiguous().clone() for name, t in flat(parts).items()}
    with writing(path), atomic(path) as beside:
        save_file(tensors, beside, {"facts": json.dumps(facts)})
    retire(path.parent, path)


def write_shares(out: Path, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any], processes: Processes) -> None:
    """Save named groups of DTensors and tensors as a folder, each process its share: all of them call this together.

    The first process alone writes what is not shared, and names the folder when everything is in it.
    """
    from torch.distributed import checkpoint as dcp

    path = out / FOLDER.format(facts["step"])
    if path.exists():  # the same step of the same run
        return
    beside = path.with_name(f".{path.name}.part")
    with writing(path):
        if processes.first:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
        processes.wait()
        if any(processes.any(not beside.is_dir())):
            raise TrainingError(f"{out}: is not one folder to all processes: give one on a disk that all hosts see, or use --parallel ddp")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(flat(parts), storage_writer=dcp.HuggingFaceStorageWriter(str(beside), save_distributed=True))
        if processes.first:
            sizes = {file.name: file.stat().st_size for file in beside.iterdir()}
            with atomic(beside / FACTS) as facts_beside:
                facts_beside.write_text(json.dumps({"facts": facts, "files": sizes}))
            beside.rename(path)
            retire(out, path)
    processes.wait()


def flat(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return all tensors under names of the form part/name."""
    return {f"{part}/{name}": tensor.detach() for part, group in parts.items() for name, tensor in group.items()}


def retire(out: Path, kept: Path) -> None:
    """Remove every other state; a folder loses its name first, so that one half removed is not taken for a whole one."""
    for other in states(out):
        if other.is_dir() and other.name != kept.name:
            shutil.rmtree(other.rename(other.with_name(f".{other.name}.part")), ignore_errors=True)
        elif other.name != kept.name:
            other.unlink(missing_ok=True)


def states(out: Path) -> list[Path]:
    """Return the states in a run's folder: one, or two where a run was killed between writing one and removing the other."""
    return [path for path in (out / FILE, *sorted(out.glob("state-" + "[0-9]" * 8))) if path.exists()]


def latest(out: Path) -> Path | None:
    """Return the state of a run that is furthest on, a file or a folder; None where there is none."""
    found = states(out)
    return found[0] if len(found) == 1 else max(found, key=lambda path: int(facts_of(path)["step"]), default=None)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what can go wrong with a disk into one line; safetensors reports it as an error of its own."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except (OSError, SafetensorError, InputError, CheckpointException) as error:
        cause = next((cause for cause, _ in error.failures.values()), error) if isinstance(error, CheckpointException) else error
        reason = " ".join(str(getattr(cause, "strerror", None) or cause).split())
        raise TrainingError(f"{path}: could not be written ({reason}); the last good checkpoint is untouched: go on from it") from error


def refuse_broken(networks: nn.Module, step: int, processes: Processes) -> None:
    """Raise in every process where a weight is not finite in one: a checkpoint must never replace a good one with that."""
    kept = {name: average.here(t) for name, t in networks.state_dict().items()}
    bad = [name for name, t in kept.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if any(processes.any(bool(bad))):
        where = f"{len(bad)} weights are not finite (first {bad[0]})" if bad else "weights of another process are not finite"
        raise TrainingError(f"step {step}: {where}; the last checkpoint is good: lower the rate")


def sweep(out: Path) -> None:
    """Remove what a killed run left half written."""
    for part in out.glob(".*.part.safetensors"):
        part.unlink(missing_ok=True)
    for folder in out.glob(".state-*.part"):
        shutil.rmtree(folder, ignore_errors=True)


def facts_of(path: Path) -> dict[str, Any]:
    """Read the facts of a state; TrainingError where it is not whole."""
    try:
        if path.is_dir():
            held = json.loads((path / FACTS).read_text())
            broken = [name for name, size in held["files"].items() if (path / name).stat().st_size != size]
            if broken:
                raise TrainingError(f"{path / broken[0]}: is not as it was written; take the folder's model.safetensors")
            found: Any = held["facts"]
        else:
            with safe_open(path, "pt") as file:
                found = json.loads((file.metadata() or {}).get("facts", "null"))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{path}: cannot be read ({' '.join(str(error).split())}); take the folder's model.safetensors") from error
    if not isinstance(found, dict):
        raise TrainingError(f"{path}: is not the state of a limn run; give --out the folder of one, or a new folder")
    return found


def read(path: Path, like: Mapping[str, Tensor] | None = None) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `write` or `write_shares` saved. What has the name of a DTensor in `like` comes as one: of it, this process's share."""
    facts, templates = facts_of(path), like or {}
    try:
        tensors = read_shares(path, templates) if path.is_dir() else read_file(path, templates)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read ({' '.join(str(error).split())}); take the folder's model.safetensors") from error
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    return parts, facts


def read_file(path: Path, templates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a file."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    tensors: dict[str, Tensor] = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 - the handle is not a mapping
            tensor, template = file.get_tensor(key), templates.get(key)
            if isinstance(template, DTensor) and template.shape == tensor.shape:
                tensor = distribute_tensor(tensor.to(template.device), template.device_mesh, template.placements, src_data_rank=None)
            tensors[key] = tensor
    return tensors


def read_shares(path: Path, templates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a folder, in however many shares it was written; each process reads for itself."""
    from torch.distributed import checkpoint as dcp

    held: dict[str, Any] = dcp.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for key, facts in held.items():
        template = templates.get(key)
        fits = template is not None and template.shape == facts.size
        tensors[key] = torch.empty_like(template) if fits else torch.empty(facts.size, dtype=facts.properties.dtype)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    return tensors


def optimiser_tensors(optimiser: torch.optim.Optimizer, outer: Outer = lambda _, value: value) -> dict[str, Tensor]:
    """Flatten an optimiser's state: `index.name` -> tensor; `outer` makes of this process's share of one the whole."""
    stepped = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    return {
        f"{index}.{name}": outer(parameter, torch.as_tensor(value))
        for index, parameter in enumerate(stepped)
        for name, value in optimiser.state.get(parameter, {}).items()
    }


def optimiser_templates(optimiser: torch.optim.Optimizer, template: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    """Return for the moments of an optimiser, by the names of `optimiser_tensors`, tensors that are laid out as they are."""
    stepped = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    return {f"{index}.{name}": template(parameter) for index, parameter in enumerate(stepped) for name in MOMENTS}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took out."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = average.here(value)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})

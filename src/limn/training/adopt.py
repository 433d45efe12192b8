"""Fine-tuning: begin with the weights of another run or model, published or own, at another resolution too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limn.errors import InputError, WeightsError
from limn.training import checkpoint
from limn.weights import load
from limn.weights.native import config_from, read_header
from limn.weights.reader import safetensors_metadata
from limn.weights.store import resolve


@dataclass(frozen=True)
class Source:
    """What a file offers to begin with: tensors by `part.name`, and the configuration it was made with where the file says it."""

    path: Path
    tensors: dict[str, Tensor]
    config: Any


def read(given: str | Path, system: str, wanted: Iterable[str], kind: type) -> Source:
    """Read the networks `wanted` from a run (its folder or state), a model's name or file, or a published checkpoint.

    The discriminator comes too where the file holds one. `kind` is the system's Config. WeightsError where nothing is known of the file.
    """
    path = Path(given).expanduser()
    path = path / "state.safetensors" if path.is_dir() else resolve(str(given))
    metadata = safetensors_metadata(path) if path.suffix == ".safetensors" else None
    if metadata is not None and "facts" in metadata:
        return of_run(path, kind)
    tensors, config, refusals = dict[str, Tensor](), None, list[WeightsError]()
    header = read_header(path)
    for part in wanted if header is None else [part for part in wanted if part in header.parts]:
        try:
            loaded = load(path, part=part)
        except WeightsError as error:
            refusals.append(error)
            continue
        if loaded.system != system:
            raise InputError(f"{path}: is a model of {loaded.system}, and {system} is to be trained: give one of {system}")
        config = config or loaded.config
        tensors |= {f"{part}.{name}": tensor for name, tensor in loaded.model.state_dict().items()}
    if not tensors:
        raise refusals[0] if refusals else InputError(f"{path}: holds no {' or '.join(wanted)} to begin with")
    return Source(path, tensors, config)


def of_run(path: Path, kind: type) -> Source:
    """Read the trained networks (not their averages) of a run's state; its configuration stands in run.json beside it."""
    parts, _ = checkpoint.read(path)
    beside = path.with_name("run.json")
    config = config_from(kind, json.loads(beside.read_text())["config"], where=str(beside)) if beside.exists() else None
    return Source(path, parts["networks"], config)


def architecture(config: Any, source: Any) -> Any:
    """The configuration of a model that goes on from `source` at the size of `config`: its widths where it has that resolution.

    Systems whose widths are not listed by resolution keep the `config` of their preset.
    """
    names = {field.name for field in fields(config)}
    if source is None or type(source) is not type(config) or not {"size", "channels"} <= names:
        return config
    changed = {"size": config.size, "channels": widths(config.channels, source.channels)}
    if "discriminator_channels" in names and source.discriminator_channels:
        changed["discriminator_channels"] = widths(config.discriminator_channels or config.channels, source.discriminator_channels)
    return replace(source, **changed, **{name: getattr(config, name) for name in ("clamp", "group") if name in names})


def widths(ours: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...]:
    """Widths of the resolutions 4, 8, ...: theirs, and beyond those ours, but none wider than the last of theirs."""
    return (theirs + tuple(min(width, theirs[-1]) for width in ours[len(theirs) :]))[: len(ours)]


def adopt(networks: nn.ModuleDict, source: Source, main: Iterable[str]) -> str:
    """Copy every entry whose name and shape fit, and say in words how much that was; new ToRGB layers begin silent.

    InputError where less than half of the networks `main` fits: then it is another architecture.
    """
    ours = networks.state_dict()
    fit = {name: value for name, value in source.tensors.items() if name in ours and ours[name].shape == value.shape}
    silent = {name: torch.zeros_like(v) for name, v in ours.items() if name not in fit and name.endswith("torgb.weight")}
    shares = {part: share(part, ours, fit) for part in networks}
    poor = [part for part in main if shares[part] < 0.5]
    if poor:
        raise InputError(f"{source.path}: {shares[poor[0]]:.0%} of this {poor[0]} fits: {misfit(ours, source.tensors)}; choose its preset")
    networks.load_state_dict({**ours, **fit, **silent})
    said = ", ".join(f"{part} {part_share:.0%}" for part, part_share in shares.items() if any(n.startswith(f"{part}.") for n in ours))
    new = [part for part, part_share in shares.items() if not part_share and part == "discriminator"]
    advice = "; the discriminator is new and should learn alone first, see the page on training" if new else ""
    return f"begins with {source.path} ({said}){advice}"


def share(part: str, ours: Mapping[str, Tensor], fit: Mapping[str, Tensor]) -> float:
    """Share of a network's numbers that are among those that fit."""
    sizes = {name: tensor.numel() for name, tensor in ours.items() if name.startswith(f"{part}.")}
    return sum(size for name, size in sizes.items() if name in fit) / max(sum(sizes.values()), 1)


def misfit(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """Name the first tensor of two states that differs."""
    for name, tensor in ours.items():
        if name in theirs and theirs[name].shape != tensor.shape:
            return f"{name} is {tuple(theirs[name].shape)} there and {tuple(tensor.shape)} here"
    return f"it has no {next((name for name in ours if name not in theirs), 'tensor of this name')}"

"""Recognise a published state dict by its names, infer its configuration from its shapes, and load it strictly into our network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limn.errors import LimnError, WeightsError
from limn.models import SYSTEMS
from limn.models import system as import_system
from limn.models.records import Names, Published
from limn.weights.native import Loaded, content_hash, listed, strict_load
from limn.weights.reader import Contents, read

State = Mapping[str, Tensor]

# Of several states of one network in a file, the first of these names is the one to use.
PREFERRED = ("G_ema", "g_ema", "params_ema", "model_ema", "state_dict_ema", "generator_ema")


@dataclass(frozen=True)
class Match:
    """One row of one system that knows a state dict."""

    system: str
    published: Published


def recognise(state: State, system: str | None = None, part: str | None = None, options: Mapping[str, Any] | None = None) -> list[Match]:
    """Return the rows of all systems (or of one, or for one part) that know the names of a state dict.

    They come in the table's order, first those whose training option the file's `options` name.
    """
    rows = [Match(name, row) for name in ([system] if system else SYSTEMS) for row in import_system(name).PUBLISHED]
    known = [match for match in rows if part in (None, match.published.part) and match.published.recognise(state)]
    return sorted(known, key=lambda match: (options or {}).get(match.published.says[0]) != match.published.says[1])


def networks_in(contents: Contents) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts of a file; one that nothing knows as a whole is taken apart where its names begin with those of networks."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, state in contents.states.items():
        sides: dict[str, dict[str, Tensor]] = {}
        for key, tensor in {} if recognise(state) else state.items():
            first, _, rest = key.partition(".")
            sides.setdefault(first, {})[rest] = tensor
        known = {".".join(filter(None, (name, first))): side for first, side in sides.items() if recognise(side)}
        found |= known or {name: state}
    return found


def adopt(
    state: State,
    system: str | None = None,
    part: str | None = None,
    beside: State | None = None,
    options: Mapping[str, Any] | None = None,
) -> Loaded:
    """Load a published state dict: recognise, infer the configuration, rename, load strictly.

    `beside` holds loose tensors of the same file (such as `latent_avg`); a row takes those that its names mention.
    Raises WeightsError when nothing knows it or when names are missing or left over.
    """
    matches = recognise(state, system, part, options)
    if not matches:
        asked = " ".join(filter(None, (system, part))) or "any system in `limn models list`"
        raise WeightsError(f"these {len(state)} tensors are not of {asked}: they are named {listed(list(state), 5)}")
    refusals = []
    for match in matches:
        try:
            return _load(match, state, beside or {})
        except WeightsError as error:
            refusals.append(error)
    raise refusals[0]


def adopt_file(
    path: Path, system: str | None = None, part: str | None = None, device: torch.device | str = "cpu", contents: Contents | None = None
) -> Loaded:
    """Load one network of a published file; `part` chooses, else the first that is known (averaged weights before trained ones)."""
    contents = contents or read(path)
    if not contents.states:
        raise WeightsError(f"{path.name} holds no state dict: it is {contents.kind} with {contents.summary()}")
    states = networks_in(contents)
    names = [name for name in preferred(list(states)) if recognise(states[name], system, part)]
    if not names:
        held = "; ".join(f"{name or 'state'}: {listed(list(state), 3)}" for name, state in list(contents.states.items())[:4])
        raise WeightsError(f"{path.name} is {contents.kind} of no system that limn knows{f' as {part}' if part else ''} ({held})")
    try:
        loaded = adopt(states[names[0]], system, part, contents.loose, contents.meta.get("opts"))
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error}") from error
    meta = {"origin": path.name, "sha256": contents.sha256, "licence": import_system(loaded.system).CARD.weights_licence}
    return Loaded(loaded.model.to(device), loaded.system, loaded.part, loaded.config, loaded.meta | meta, loaded.hash)


def preferred(names: list[str]) -> list[str]:
    """Order the states of a file so that averaged weights come before the trained ones."""
    return sorted(names, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))


def rename(state: State, names: Names, where: str = "state") -> dict[str, Tensor]:
    """Rename by the first row that matches a whole name; None drops the entry. One name twice is accepted if the values are equal."""
    rows = [(re.compile(pattern), new) for pattern, new in names]
    renamed: dict[str, Tensor] = {}
    for old, tensor in state.items():
        new = _new_name(old, rows)
        if new is None:
            continue
        if new in renamed and not torch.equal(renamed[new], tensor):
            raise WeightsError(
                f"{where}: two different tensors become {new!r}, one of them {old!r}: the file is damaged or of another version"
            )
        renamed[new] = tensor
    return renamed


def _new_name(old: str, rows: list[tuple[re.Pattern[str], str | None]]) -> str | None:
    for pattern, new in rows:
        match = pattern.fullmatch(old)
        if match:
            return None if new is None else match.expand(new)
    return old


def _load(match: Match, state: State, beside: State) -> Loaded:
    row, where = match.published, f"{match.system} {match.published.part} ({match.published.layout} layout)"
    try:
        config = row.infer(state)
        names = row.names(config) if callable(row.names) else row.names
        mentioned = {name: tensor for name, tensor in beside.items() if name not in state and _mentions(names, name)}
        prepared: State = {**state, **mentioned}
        prepared = dict(row.prepare(prepared)) if row.prepare else prepared
        with torch.random.fork_rng(devices=[]):
            network = row.build(config)
    except LimnError as error:
        raise WeightsError(f"{where}: {error}") from error
    except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, StopIteration) as error:
        raise WeightsError(f"{where}: its names fit but its shapes do not ({type(error).__name__}: {_first_line(error)})") from error
    ours = rename(prepared, names, where)
    model = strict_load(network, _reshaped(ours, network.state_dict()), where)
    return Loaded(model, match.system, row.part, config, {"layout": row.layout}, content_hash(model.state_dict()))


def _mentions(names: Names, name: str) -> bool:
    return any(new is not None and re.fullmatch(pattern, name) for pattern, new in names)


def _reshaped(state: State, wanted: State) -> dict[str, Tensor]:
    """Give each tensor the wanted shape where only axes of size 1 differ."""

    def fit(tensor: Tensor, shape: torch.Size) -> Tensor:
        same = [n for n in tensor.shape if n != 1] == [n for n in shape if n != 1]
        return tensor.reshape(shape) if same else tensor

    return {name: fit(tensor, wanted[name].shape) if name in wanted else tensor for name, tensor in state.items()}


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]

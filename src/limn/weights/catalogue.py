"""What there is: models in the box, in the user's store, and published files that can be fetched, licence first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from limn.errors import WeightsError
from limn.models import SYSTEMS
from limn.models import system as import_system
from limn.models.records import Card, Entry
from limn.weights.native import Header, read_header
from limn.weights.store import BOX, names

Where = Literal["box", "store", "published"]
UNKNOWN = "not stated"


@dataclass(frozen=True)
class Model:
    """One model that can be used by its name, or fetched under it."""

    licence: str
    name: str
    system: str
    parts: tuple[str, ...]
    where: Where
    megabytes: float


def models() -> list[Model]:
    """Return the models here and those that can be fetched, sorted by place and name."""
    here = [_here(name, path) for name, path in names().items()]
    known = {model.name for model in here}
    there = [
        Model(entry.licence or UNKNOWN, name, system, (), "published", round(entry.bytes / 1e6, 1))
        for name, (system, entry) in published().items()
        if name not in known
    ]
    order = {"box": 0, "store": 1, "published": 2}
    return sorted([*here, *there], key=lambda model: (order[model.where], model.name))


def published() -> dict[str, tuple[str, Entry]]:
    """Return the published files of all systems by the name under which `limn models fetch` knows them: (system, entry)."""
    found = {}
    for system in SYSTEMS:
        for entry in import_system(system).CARD.entries:
            found[f"{system}-{entry.preset}" if entry.preset else system] = (system, entry)
    return found


def published_entry(name: str) -> tuple[str, Entry]:
    """Return system and entry of a published file; WeightsError suggests the nearest name."""
    known = published()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
        raise WeightsError(f"no published model is called {name!r}: {hint}; a file of your own comes in by `limn models import FILE`")
    return known[name]


def known_file(sha256: str) -> tuple[str, Entry] | None:
    """Return name and entry of the published file with this checksum."""
    return next(((name, entry) for name, (_, entry) in published().items() if entry.sha256 == sha256), None)


def card(system: str) -> Card:
    """Return the card of a system."""
    found: Card = import_system(system).CARD
    return found


def header_of(path: Path) -> Header:
    """Return the header of a native file; WeightsError for any other."""
    header = read_header(path)
    if header is None:
        raise WeightsError(f"{path.name} is not a limn file: `limn models import {path}` converts it")
    return header


def licence_of(meta: Mapping[str, Any]) -> str:
    """Return the licence that a file was saved with."""
    return str(meta.get("licence") or UNKNOWN)


def _here(name: str, path: Path) -> Model:
    where: Where = "box" if path.parent == BOX else "store"
    try:
        header = header_of(path)
    except WeightsError as error:
        return Model(f"unreadable: {error}", name, "", (), where, round(path.stat().st_size / 1e6, 1))
    return Model(licence_of(header.meta), name, header.system, header.parts, where, round(path.stat().st_size / 1e6, 1))

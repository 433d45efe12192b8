"""Convert a published file to native ones: every network in it that a system knows, with configuration, origin and licence."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limn.errors import WeightsError
from limn.media.files import atomic
from limn.weights.catalogue import UNKNOWN, card, known_file, licence_of
from limn.weights.native import Header, Loaded, read_header, save
from limn.weights.reader import Contents, read
from limn.weights.recognise import adopt, networks_in, preferred, recognise
from limn.weights.store import BOX, SUFFIX, names, store


@dataclass(frozen=True)
class Converted:
    """One native file, and what it was made from."""

    name: str
    path: Path
    system: str
    parts: tuple[str, ...]
    licence: str
    origin: str
    sha256: str  # of the published file
    configuration: dict[str, Any]  # part -> fields of the system's Config
    not_converted: tuple[str, ...]  # states of the file that were left out: trained weights beside averaged ones, unknown networks


def convert(
    path: Path, name: str | None = None, out: Path | None = None, system: str | None = None, licence: str | None = None
) -> list[Converted]:
    """Write the networks of a published file to the store (or to `out`): one native file for each system in it.

    `system` settles what a file is where several systems fit. Raises WeightsError if no system knows it.
    """
    header = read_header(path)
    if header is not None:
        return [_kept(path, header, name, out)]
    contents = read(path)
    entry = known_file(contents.sha256)
    found, left = networks(contents, system)
    if not found:
        raise WeightsError(f"{path.name} ({contents.kind}: {contents.summary()}) is of no system that limn knows: see `limn models list`")
    base = name or (entry[0] if entry else slug(path.stem))
    systems = list(dict.fromkeys(loaded.system for loaded in found))
    converted = []
    for index, one in enumerate(systems):
        parts = {loaded.part: loaded for loaded in found if loaded.system == one}
        target = _target(base if index == 0 else f"{base}-{one}", contents.sha256, out if index == 0 else None)
        said = licence or (entry[1].licence if entry else "") or card(one).weights_licence or UNKNOWN
        converted.append(_write(target, parts, contents, said, left))
    return converted


def networks(contents: Contents, system: str | None = None) -> tuple[list[Loaded], tuple[str, ...]]:
    """Load every network in a file that a system knows, one of each part (averaged first); also the names of the states left."""
    found: dict[tuple[str, str], Loaded] = {}
    left = []
    states = networks_in(contents)
    for name in preferred(list(states)):
        state = states[name]
        matches = recognise(state, system, None, contents.meta.get("opts"))
        if not matches or all((match.system, match.published.part) in found for match in matches):
            left.append(name or "state")
            continue
        try:
            loaded = adopt(state, matches[0].system, matches[0].published.part, contents.loose)
        except WeightsError as error:
            raise WeightsError(f"{contents.path.name}: {error}") from error
        found[loaded.system, loaded.part] = loaded
    return list(found.values()), tuple(left)


def slug(text: str) -> str:
    """Return a name for a model: lower case, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"


def _target(name: str, sha256: str, out: Path | None) -> Path:
    """Where to write: `out`, or the store under a name that is free or holds the same file."""
    if out is not None:
        return out
    if slug(name) != name:
        raise WeightsError(f"{name!r} is no name for a model: use lower case, digits, dots and dashes, such as {slug(name)!r}")
    taken = names().get(name)
    if taken is not None and taken.parent == BOX:
        raise WeightsError(f"{name!r} is a model in the box: choose another name with --name")
    header = read_header(taken) if taken is not None else None
    if header is not None and header.meta.get("sha256") != sha256:
        raise WeightsError(f"{name!r} is already another model in the store ({taken}): choose another name with --name")
    store().mkdir(parents=True, exist_ok=True)
    return store() / f"{name}{SUFFIX}"


def _write(target: Path, parts: dict[str, Loaded], contents: Contents, licence: str, left: tuple[str, ...]) -> Converted:
    first = next(iter(parts.values()))
    meta: dict[str, Any] = {"origin": contents.path.name, "sha256": contents.sha256, "licence": licence, "kind": contents.kind}
    meta |= {"layouts": {part: loaded.meta["layout"] for part, loaded in parts.items()}}
    configs = {part: loaded.config for part, loaded in parts.items()}
    main = "generator" if "generator" in parts else first.part
    save(target, {part: loaded.model for part, loaded in parts.items()}, first.system, main, configs, meta)
    shown = {part: asdict(config) for part, config in configs.items()}
    return Converted(target.stem, target, first.system, tuple(parts), licence, contents.path.name, contents.sha256, shown, left)


def _kept(path: Path, header: Header, name: str | None, out: Path | None) -> Converted:
    """Copy a native file as it is."""
    target = _target(name or slug(path.stem), str(header.meta.get("sha256")), out)
    if target.resolve() != path.resolve():
        with atomic(target) as temporary:
            shutil.copyfile(path, temporary)
    origin, sha256 = (str(header.meta.get(key) or "") for key in ("origin", "sha256"))
    return Converted(target.stem, target, header.system, header.parts, licence_of(header.meta), origin, sha256, header.configs, ())

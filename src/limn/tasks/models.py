"""`limn models`: what is here, what can be had, what may be done with it; bring files in and take them out."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console

from limn.errors import WeightsError
from limn.media.files import atomic
from limn.models import SYSTEMS
from limn.models.records import Entry
from limn.tasks.progress import bar
from limn.weights import catalogue
from limn.weights.arrays import safetensors_shapes
from limn.weights.catalogue import UNKNOWN, Model, card, header_of, known_file, licence_of, models, published_entry
from limn.weights.convert import Converted, convert, networks
from limn.weights.export import export
from limn.weights.fetch import download
from limn.weights.native import Loaded, load, read_header, save
from limn.weights.reader import read
from limn.weights.store import names, resolve, store

Layout = Literal["native", "nvidia", "rosinality", "onnx"]


@dataclass(frozen=True)
class Shown:
    """All that is known of a model."""

    licence: str
    name: str
    system: str
    title: str
    paper: str
    verbs: tuple[str, ...]
    parts: tuple[str, ...]
    configuration: dict[str, Any]  # part -> fields of the system's Config
    parameters: dict[str, int]  # part -> number of values
    origin: str
    sha256: str
    hashes: dict[str, str]  # part -> what saved latents and directions name it by
    path: Path | None
    url: str
    megabytes: float
    card: Path | None  # the page about it


@dataclass(frozen=True)
class Imported:
    """What a published file was, and the native files that it became: one for each system in it."""

    licence: str
    models: dict[str, str]  # name in the store -> system and parts
    configuration: dict[str, Any]  # part -> fields of the system's Config
    origin: str
    sha256: str  # of the published file
    not_converted: tuple[str, ...]  # trained weights beside averaged ones, and networks that no system knows
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    layout: str
    parts: tuple[str, ...]
    licence: str
    megabytes: float


def list_models(*, where: Annotated[Literal["all", "box", "store", "published"], "Only those of one place."] = "all") -> list[Model]:
    """List models, licence first: those in the box, those in your store, and published ones that can be fetched."""
    return [model for model in models() if where in ("all", model.where)]


def show_model(name: Annotated[str, "A model's name, a weight file, or a system."]) -> Shown:
    """Show what a model is: licence, system, configuration, origin, checksums.

    A published file is recognised and described without being converted.
    """
    if name not in names() and not Path(name).expanduser().exists():
        known = catalogue.published()
        if name in known:
            return _shown_entry(name, *known[name])
        if name in SYSTEMS:
            return _shown_card(name, name)
    return _shown_file(name)


def import_model(
    file: Annotated[Path, "A published weight file: .pt, .pth, .ckpt, .pkl, .safetensors, .onnx, .npz."],
    *,
    name: Annotated[str | None, "The name it gets in your store; made from the file's name if not given."] = None,
    out: Annotated[Path | None, "Write the native file here, not to the store."] = None,
    system: Annotated[str | None, "What it is, where several systems fit."] = None,
) -> Imported:
    """Import a published weight file: say which system, configuration and licence it has, and convert it once.

    Nothing in the file is executed; a network that does not fit its system entirely is refused with the names that differ.
    """
    return _imported(convert(file, name, out, system))


def export_model(
    name: Annotated[str, "A model's name or file."],
    out: Annotated[Path, "The file to write: .safetensors, .pt or .onnx."],
    *,
    layout: Annotated[Layout, "native, or a published layout: nvidia, rosinality, onnx."] = "native",
    part: Annotated[str | None, "One network of a model that holds several; all if not given."] = None,
) -> Exported:
    """Export a model to a file that other programs read, in a published layout or our own."""
    path = resolve(name)
    header = header_of(path)
    chosen = header.parts if part is None else (part,)
    if layout == "native" and part is None:
        with atomic(out) as temporary:
            shutil.copyfile(path, temporary)
    else:
        loaded: dict[str, Loaded] = {each: load(path, each) for each in chosen}
        if layout == "native":
            one = loaded[chosen[0]]
            save(out, one.model, one.system, one.part, one.config, one.meta)
        else:
            chosen = export(loaded, out, layout)
    return Exported(out, layout, tuple(chosen), licence_of(header.meta), _megabytes(out))


def fetch_model(name: Annotated[str, "The name of a published model: `limn models list` shows them."]) -> Imported:
    """Fetch a published model: shows its licence, downloads (resumable), checks size and SHA-256, converts it once."""
    system, entry = published_entry(name)
    here = names().get(name)
    if here is not None:
        raise WeightsError(f"{name} is here already: {here}")
    Console(stderr=True).print(
        f"{name}: {entry.bytes / 1e6:.1f} MB from {entry.url}\nlicence: {entry.licence}", markup=False, soft_wrap=True
    )
    with bar(f"fetch {name}", entry.bytes) as move:
        path = download(entry, store() / "downloads", lambda done, _: move(done - 1, done / 1e6))
    converted = convert(path, name, None, system, entry.licence)
    path.unlink()
    return _imported(converted)


def _imported(converted: list[Converted]) -> Imported:
    first = converted[0]
    return Imported(
        licence=first.licence,
        models={one.name: f"{one.system}: {', '.join(one.parts)}" for one in converted},
        configuration={part: config for one in converted for part, config in one.configuration.items()},
        origin=first.origin,
        sha256=first.sha256,
        not_converted=first.not_converted,
        files=tuple(one.path for one in converted),
    )


def _shown_file(name: str) -> Shown:
    """Describe a native file by its header, a published one by what it turns out to be."""
    path = resolve(name)
    header = read_header(path)
    if header is None:
        return _shown_published_file(path)
    page = path.with_suffix(".md")
    return _shown_card(
        path.stem,
        header.system,
        licence=licence_of(header.meta),
        parts=header.parts,
        configuration=header.configs,
        parameters=_parameters(path),
        origin=str(header.meta.get("origin") or ""),
        sha256=str(header.meta.get("sha256") or ""),
        hashes=header.hashes,
        path=path,
        megabytes=_megabytes(path),
        card=page if page.exists() else None,
    )


def _shown_published_file(path: Path) -> Shown:
    contents = read(path)
    found, left = networks(contents)
    if not found:
        raise WeightsError(f"{path.name} ({contents.kind}: {contents.summary()}) is of no system that limn knows: see `limn models list`")
    entry = known_file(contents.sha256)
    return _shown_card(
        path.name,
        found[0].system,
        **({"licence": entry[1].licence} if entry else {}),
        parts=tuple(loaded.part for loaded in found),
        configuration={loaded.part: asdict(loaded.config) for loaded in found},
        parameters={loaded.part: sum(value.numel() for value in loaded.model.state_dict().values()) for loaded in found},
        origin=f"{contents.kind}: {contents.summary()}" + (f"; not recognised: {', '.join(left)}" if left else ""),
        sha256=contents.sha256,
        hashes={loaded.part: loaded.hash for loaded in found},
        path=path,
        megabytes=_megabytes(path),
    )


def _shown_entry(name: str, system: str, entry: Entry) -> Shown:
    return _shown_card(name, system, licence=entry.licence, sha256=entry.sha256, url=entry.url, megabytes=round(entry.bytes / 1e6, 1))


def _shown_card(name: str, system: str, **known: Any) -> Shown:
    """Fill in what the system's card says."""
    its = card(system)
    paper = f"{its.year}" + (f", arXiv {its.arxiv}" if its.arxiv else "") + (f", {its.source}" if its.source else "")
    unknown: dict[str, Any] = {"parts": (), "configuration": {}, "parameters": {}, "hashes": {}, "path": None, "card": None}
    unknown |= {"origin": "", "sha256": "", "url": "", "megabytes": 0.0, "licence": its.weights_licence or UNKNOWN}
    return Shown(name=name, system=system, title=its.title, paper=paper, verbs=its.verbs, **{**unknown, **known})


def _parameters(path: Path) -> dict[str, int]:
    """Count the values of each part of a native file from its header alone."""
    counts: dict[str, int] = {}
    for name, count in safetensors_shapes(path).items():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + count
    return counts


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1)

"""Marks of origin: signed content credentials (C2PA) beside the pixels and a watermark in them; put in on writing, read by `verify`.

The EU AI Act, Art. 50, asks that synthetic and manipulated pictures be marked so that a machine can tell. The credentials say in full what
was done, by which model, from what; the watermark repeats the essence where they are stripped off. Everything works without a network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import c2pa
from cryptography import x509
from numpy.typing import NDArray
from PIL import Image

import limn
from limn.errors import InputError
from limn.home import home
from limn.media import identity, watermark

SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
ACTIONS, ORIGIN = "c2pa.actions.v2", "org.limn.origin"  # assertion labels
MIME = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".heic": "image/heic",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
}
CLIPS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"}
VERSION = 1  # of the payload: 4 bits version, 4 bits kind, 24 bits of the model's hash


class Kind(NamedTuple):
    """How a picture came about, for the watermark and for the credentials."""

    code: int  # 4 bits of the payload
    action: str  # of C2PA 2.x
    source: str  # digital source type of the IPTC


_MADE, _COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
KINDS = {
    "generated": Kind(1, "c2pa.created", _MADE),
    "edited": Kind(2, "c2pa.edited", _COMPOSITE),
    "blended": Kind(3, "c2pa.edited", _COMPOSITE),
    "restored": Kind(4, "c2pa.edited", _COMPOSITE),
    "translated": Kind(5, "c2pa.edited", _COMPOSITE),
    "inpainted": Kind(6, "c2pa.edited", _COMPOSITE),
    "stylized": Kind(7, "c2pa.edited", _COMPOSITE),
    "swapped": Kind(8, "c2pa.edited", _COMPOSITE),
    "animated": Kind(9, "c2pa.edited", _COMPOSITE),
    "inverted": Kind(10, "c2pa.edited", _COMPOSITE),
}


@dataclass(frozen=True)
class Origin:
    """Where a picture comes from, as the verb that writes it knows."""

    how: str  # one of KINDS
    model: str = ""  # name
    model_sha256: str = ""  # hexadecimal
    sources: tuple[Path, ...] = ()  # files it was made from; the first is the one that was edited
    settings: Mapping[str, Any] = field(default_factory=dict)  # what was asked for: {"smile": 1.5}, {"seed": 3}
    consent: str = ""  # the statement given for a swap or an animation
    marked: bool = True  # False: no marks; the refusal is written to unmarked.jsonl in the user's data folder

    def __post_init__(self) -> None:
        if self.how not in KINDS:
            raise ValueError(f"a picture cannot be {self.how!r}: expected one of {', '.join(KINDS)}")

    @property
    def payload(self) -> int:
        """The 32 bits that the watermark carries."""
        digest = int(self.model_sha256[:6] or "0", 16)
        return VERSION << 28 | KINDS[self.how].code << 24 | digest


@dataclass(frozen=True)
class Credentials:
    """What the content credentials of a file say; `valid` means signed and unchanged since, not that the signer is known."""

    valid: bool
    problems: tuple[str, ...]  # why not, in the words of the C2PA validator
    generator: str  # program that signed: "limn 0.1.0"
    actions: tuple[Mapping[str, str], ...]  # action, source type, agent, when, description
    ingredients: tuple[str, ...]  # titles of the files it was made from
    origin: Mapping[str, Any]  # limn's own record: how, model, model_sha256, sources, settings, consent
    signer: str
    own: bool  # signed with this user's key


@dataclass(frozen=True)
class Watermark:
    """What the pixels say."""

    how: str  # one of KINDS; "" where the mark is too weak to be read
    model_sha256: str  # the first six digits
    score: float  # standard deviations above chance
    box: tuple[float, float, float, float]  # left, top, right, bottom in fractions of the picture


@dataclass(frozen=True)
class Marks:
    """The marks of origin of a file."""

    credentials: Credentials | None
    watermark: Watermark | None

    @property
    def by_limn(self) -> bool:
        """Whether either of them says that limn made or changed the picture."""
        return self.watermark is not None or (self.credentials is not None and self.credentials.generator.startswith("limn"))


def mark_pixels(image: Image.Image, origin: Origin, mask: NDArray[Any] | None = None) -> Image.Image:
    """Return the image with the watermark of its origin; with a mask (H, W), pixels where it is 0 stay identical."""
    return watermark.embed(image, origin.payload, mask) if origin.marked else image


def sign(path: Path, origin: Origin, title: str) -> None:
    """Put content credentials into the finished file `path`, in place; for a suffix that C2PA does not know nothing is done.

    Only for a file that nobody sees yet (see `limn.media.atomic`).
    """
    if not origin.marked:
        _record(origin, title)
        return
    mime = MIME.get(path.suffix.lower())
    if mime is None:
        return
    chain, key = identity.signing()
    signed = path.with_name(f"{path.name}.signed")
    try:
        with _builder(origin, title) as builder, path.open("rb") as plain, signed.open("w+b") as target:
            builder.sign(c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", chain, key, None)), mime, plain, target)
        signed.replace(path)
    except c2pa.C2paError as error:
        raise InputError(f"cannot sign {title}: {str(error)[:200]}; choose another format or switch the marks off") from error
    finally:
        signed.unlink(missing_ok=True)


def verify(path: str | Path) -> Marks:
    """Read the marks of an image or a clip. InputError for a file that is neither."""
    path = Path(path).expanduser()
    if path.suffix.lower() in CLIPS:
        found = _in_clip(path)
    else:
        from limn.media.photo import read_image

        found = watermark.detect(read_image(path).image)
    return Marks(_credentials(path), _watermark(found))


@cache
def _context() -> c2pa.Context:
    """Return settings without thumbnails (they would show the face again) and without any use of a network."""
    verify_settings = {"verify_trust": False, "remote_manifest_fetch": False, "ocsp_fetch": False}
    return c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}, "verify": verify_settings})


def _builder(origin: Origin, title: str) -> c2pa.Builder:
    kind = KINDS[origin.how]
    agent = {"name": "limn", "version": limn.__version__}
    manifest = {"claim_generator_info": [agent], "title": title, "assertions": [{"label": ORIGIN, "data": _said(origin)}]}
    builder = c2pa.Builder(manifest, _context())
    edits = kind.action != "c2pa.created"
    added = [_add_source(builder, source, f"source{place}", edits and not place) for place, source in enumerate(origin.sources)]
    parent = edits and bool(added) and added[0]
    if parent:
        builder.add_action({"action": "c2pa.opened", "parameters": {"ingredientIds": ["source0"]}})
    done = {
        "action": kind.action if parent else "c2pa.created",  # a history has to begin with one of the two
        "digitalSourceType": SOURCES + kind.source,
        "softwareAgent": agent,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "description": f"{origin.how} with {origin.model or 'limn'}",
    }
    builder.add_action(done)
    return builder


def _add_source(builder: c2pa.Builder, source: Path, label: str, parent: bool) -> bool:
    """Name a file that the picture was made from, with its own credentials where it has some; False where C2PA cannot read it."""
    mime = _mime(source)
    if mime is None:
        return False
    try:
        with source.open("rb") as file:
            relation = "parentOf" if parent else "inputTo"
            builder.add_ingredient({"title": source.name, "relationship": relation, "label": label}, mime, file)
    except c2pa.C2paError:
        return False
    return True


def _mime(path: Path) -> str | None:
    """Return what a file is by its first bytes; None for what carries no credentials."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        brands = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heic"}
        return brands.get(head[8:12], "video/quicktime" if head[8:12] == b"qt  " else "video/mp4")
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"AVI ": "video/avi"}.get(head[8:12])
    starts = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"II*\0": "image/tiff", b"MM\0*": "image/tiff"}
    return next((mime for start, mime in starts.items() if head.startswith(start)), None)


def _said(origin: Origin) -> dict[str, Any]:
    """Return limn's own record of an origin, as JSON holds it."""
    record: dict[str, Any] = {"how": origin.how, "model": origin.model, "model_sha256": origin.model_sha256}
    record["sources"] = [{"name": source.name, "sha256": _hash(source)} for source in origin.sources]
    if origin.settings:
        record["settings"] = json.loads(json.dumps(dict(origin.settings), default=str))
    if origin.consent:
        record["consent"] = origin.consent
    return record


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(origin: Origin, title: str) -> None:
    """Note in the user's data folder that a picture was written without marks."""
    line = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "file": title, "how": origin.how, "model": origin.model}
    file = home() / "unmarked.jsonl"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            log.write(json.dumps(line) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {title} without marks: that has to be recorded, and {file} cannot be written") from error


def _credentials(path: Path) -> Credentials | None:
    mime = _mime(path)
    if mime is None:
        return None
    try:
        with path.open("rb") as file, c2pa.Reader(mime, file, context=_context()) as reader:
            whole = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return Credentials(False, (str(error)[:200],), "", (), (), {}, "", False)
    return _read(whole)


def _read(whole: Mapping[str, Any]) -> Credentials:
    """Turn the validator's report into what a person wants to know."""
    active = whole.get("manifests", {}).get(whole.get("active_manifest"), {})
    assertions = {entry["label"]: entry["data"] for entry in active.get("assertions", [])}
    results = whole.get("validation_results", {}).get("activeManifest", {})
    failures = [entry for entry in results.get("failure", []) if entry["code"] != "signingCredential.untrusted"]
    agent = (active.get("claim_generator_info") or [{}])[0]
    signature = active.get("signature_info", {})
    own = str(x509.load_pem_x509_certificate(identity.signing()[0]).serial_number)
    return Credentials(
        valid=bool(active) and not failures,
        problems=tuple(f"{entry['code']}: {entry.get('explanation', '')}" for entry in failures),
        generator=f"{agent.get('name', '')} {agent.get('version', '')}".strip(),
        actions=tuple(_action(action) for action in assertions.get(ACTIONS, assertions.get("c2pa.actions", {})).get("actions", [])),
        ingredients=tuple(entry.get("title", "") for entry in active.get("ingredients", [])),
        origin=assertions.get(ORIGIN, {}),
        signer=", ".join(text for text in (signature.get("common_name"), signature.get("issuer")) if text),
        own=str(signature.get("cert_serial_number")) == own,
    )


def _action(action: Mapping[str, Any]) -> dict[str, str]:
    agent = action.get("softwareAgent", "")
    said = {
        "action": action.get("action", ""),
        "source_type": action.get("digitalSourceType", "").rsplit("/", 1)[-1],
        "agent": agent if isinstance(agent, str) else f"{agent.get('name', '')} {agent.get('version', '')}".strip(),
        "when": action.get("when", ""),
        "description": action.get("description", ""),
    }
    return {name: text for name, text in said.items() if text}


def _in_clip(path: Path, frames: int = 5) -> watermark.Found | None:
    """Look into the first frames of a clip; the first mark that can be read counts, else any."""
    from limn.media.video import read_video

    weak: watermark.Found | None = None
    for _, frame in islice(read_video(path), frames):
        found = watermark.detect(frame, cropped=False)
        if found is not None and found.payload is not None:
            return found
        weak = weak or found
    return weak


def _watermark(found: watermark.Found | None) -> Watermark | None:
    """Read a payload; one of another version says only that limn was there."""
    if found is None:
        return None
    names = {kind.code: name for name, kind in KINDS.items()}
    if found.payload is None or found.payload >> 28 != VERSION or found.payload >> 24 & 15 not in names:
        return Watermark("", "", round(found.score, 1), found.box)
    return Watermark(names[found.payload >> 24 & 15], f"{found.payload & 0xFFFFFF:06x}", round(found.score, 1), found.box)

"""The consent of the person whose face is used: asked for once per source, kept in the user's folder, written into what is made."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from limn.errors import InputError
from limn.home import home

if TYPE_CHECKING:
    from limn.media import Photo

QUESTION = "Whose face is this, and who allowed its use? (for example: my own; or: Ann Lee, by e-mail of 3 May) "
SHORTEST = 3  # characters of a statement


def consent_of(source: Photo, given: str | None = None) -> str:
    """Return the statement of consent for a source: the one given, else the one kept for this very picture, else by asking.

    InputError where there is none and nobody to ask, or where the answer says nothing.
    """
    key, name = key_of(source), str(source.path or "the source")
    known = kept(key)
    if given is None and known:
        return known
    statement = (_asked(name) if given is None else given).strip()
    if len(statement) < SHORTEST:
        raise InputError(f"{name}: a face is used with the consent of its person only: say with --consent whose it is and who allowed it")
    if statement != known:
        keep(key, name, statement)
    return statement


def key_of(source: Photo) -> str:
    """Return what a source is known by: the SHA-256 of its file, or of its pixels where it has none."""
    data = source.path.read_bytes() if source.path is not None else source.image.tobytes()
    return hashlib.sha256(data).hexdigest()


def _asked(name: str) -> str:
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(
            f"{name}: whose face is this, and who allowed its use? Say so once with --consent '...'; it is kept for this picture"
        )
    sys.stderr.write(f"{name}\n{QUESTION}")
    sys.stderr.flush()
    return sys.stdin.readline()


def kept(key: str) -> str:
    """Return the statement that was kept for a source, the last one; "" where there is none."""
    try:
        lines = place().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    found = (entry for entry in map(_read, lines) if entry.get("sha256") == key)
    return next((str(entry.get("statement", "")) for entry in reversed(list(found))), "")


def _read(line: str) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except ValueError:  # a line cut short by a full disk
        return {}
    return entry if isinstance(entry, dict) else {}


def keep(key: str, name: str, statement: str) -> None:
    """Keep a statement for a source."""
    entry = {"sha256": key, "name": Path(name).name, "statement": statement, "when": datetime.now(UTC).isoformat(timespec="seconds")}
    place().parent.mkdir(parents=True, exist_ok=True)
    with place().open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def place() -> Path:
    """Return the file of the statements."""
    return home() / "consent.jsonl"

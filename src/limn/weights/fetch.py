"""Download a published file: resumable, and believed only when size and SHA-256 are those of the catalogue."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from limn.errors import WeightsError
from limn.models.records import Entry

CHUNK = 1 << 20  # bytes
PATIENCE = 30  # seconds without a byte

Progress = Callable[[int, int], None]  # bytes so far, bytes in all


def download(entry: Entry, folder: Path, progress: Progress | None = None) -> Path:
    """Download a published file into a folder and return its path; a download that was cut off goes on where it stopped.

    Raises WeightsError in one line when the place cannot be reached or the file is not the one in the catalogue.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (Path(urlsplit(entry.url).path).name or entry.sha256)
    if target.exists() and _sha256(target) == entry.sha256:
        return target
    part = folder / f"{entry.sha256}.part"
    try:
        _receive(entry, part, progress)
    except urllib.error.HTTPError as error:
        raise WeightsError(
            f"{entry.url} answers {error.code} ({error.reason}): download it elsewhere and `limn models import FILE`"
        ) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{entry.url} cannot be fetched ({reason}): go online and try again, it goes on where it stopped, "
            "or download it elsewhere and `limn models import FILE`"
        ) from error
    _accept(entry, part)
    part.replace(target)
    return target


def _receive(entry: Entry, part: Path, progress: Progress | None) -> None:
    """Fetch what is missing of a file into `part`."""
    have = part.stat().st_size if part.exists() else 0
    if have >= entry.bytes:
        return
    parts = urlsplit(entry.url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1"):
        raise WeightsError(f"{entry.url} is not https: it is not fetched")
    request = urllib.request.Request(entry.url, headers={"User-Agent": "limn", **({"Range": f"bytes={have}-"} if have else {})})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        resumed = have > 0 and answer.status == 206
        with part.open("ab" if resumed else "wb") as file:
            _copy(answer, file, have if resumed else 0, entry.bytes, progress)


def _copy(source: IO[bytes], file: IO[bytes], done: int, total: int, progress: Progress | None) -> None:
    while chunk := source.read(CHUNK):
        done += len(chunk)
        if done > total:
            raise WeightsError(f"the server sends more than the {total:,} bytes of the catalogue: it is another file and was not kept")
        file.write(chunk)
        if progress is not None:
            progress(done, total)


def _accept(entry: Entry, part: Path) -> None:
    """Refuse a file that is not the one in the catalogue; one of the wrong content is removed, a short one is kept to go on with."""
    size = part.stat().st_size
    if size < entry.bytes:
        raise WeightsError(f"{entry.url} ended after {size:,} of {entry.bytes:,} bytes: try again, it goes on where it stopped")
    if size > entry.bytes or _sha256(part) != entry.sha256:
        part.unlink()
        raise WeightsError(f"{entry.url} is not the file of the catalogue (its SHA-256 differs): it was removed; try again or report it")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

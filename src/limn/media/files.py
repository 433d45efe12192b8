"""Writing without accidents: a file appears whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limn.errors import InputError

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "the file would be too large"}


def writable(path: str | Path) -> Path:
    """Return `path` with links resolved if a file can be put there; InputError says what is in the way. For use before long work."""
    given, target = Path(path), Path(path).expanduser().resolve()
    if target.is_dir():
        raise InputError(f"cannot write {given}: it is a folder; give the name of a file in it")
    if target.parent.exists() and not target.parent.is_dir():
        raise InputError(f"cannot write {given}: {given.parent} is a file, not a folder")
    if not target.parent.exists():
        raise InputError(f"cannot write {given}: the folder {given.parent} does not exist; create it or choose another")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {given}: the folder {given.parent} is not writable; choose another")
    return target


@contextmanager
def atomic(path: str | Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix); on success it is renamed to `path`, on any error or interruption removed.

    With `private` nobody but the user may read it. A full disk or a refused write becomes an InputError that names `path`.
    """
    target = writable(path)
    beside = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        beside.touch(0o600 if private else 0o666)
        usual = beside.stat().st_mode & 0o777  # some writers (safetensors) make their files private
        yield beside
        _settle(beside, target, usual)
    except OSError as error:
        reason = FULL.get(error.errno or 0)
        if reason is None and error.filename not in {str(beside), beside}:
            raise
        raise InputError(f"cannot write {path}: {reason or error.strerror}; choose another place") from error
    finally:
        beside.unlink(missing_ok=True)


def _settle(beside: Path, target: Path, usual: int) -> None:
    """Flush the finished file to the disk, give it the mode of the file it replaces (else the usual one), and put it in its place."""
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.chmod(target.stat().st_mode & 0o777 if target.exists() else usual)
    beside.replace(target)

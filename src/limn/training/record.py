"""run.json: what a run is made of, so that it can be repeated, and so that it is not continued as something else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import zipfile
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from limn.errors import TrainingError
from limn.media import atomic
from limn.training.checkpoint import states, sweep, writing

# What a run must keep from its first step to its last; `steps` may grow, and the configuration is taken from the record.
FIXED = ("system", "preset", "objective", "batch", "seed", "accumulate", "precision", "decay", "warmup", "reading", "beside", "ema_kimg")
VERSIONS = ("torch", "numpy", "pillow", "safetensors", "accelerate")
READ_WHOLE = 4 << 30  # bytes of a folder up to which contents are hashed, and not only names and sizes


def plain(value: Any) -> Any:
    """A value as JSON holds it: dataclasses become dicts, tuples lists, paths and everything else text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def previous(out: Path) -> dict[str, Any] | None:
    """Return the run.json of a run in `out` that has a checkpoint; None where there is none."""
    if not states(out):
        return None
    try:
        facts = json.loads((out / "run.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{out / 'run.json'}: cannot be read ({error}); remove it to continue the run without its record") from error
    return facts if isinstance(facts, dict) else {}


def refuse_changes(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise where what must not change has changed, naming it with both values."""
    # Two processes are one that accumulates two parts.
    same = {"accumulate"} if "parts" in now and before.get("parts") == now["parts"] else set()
    changed = [name for name in FIXED if name in before and name in now and before[name] != now[name] and name not in same]
    if not changed:
        return
    said = "; ".join(difference(name, before[name], now[name]) for name in changed)
    raise TrainingError(f"{out} holds another run: {said}; give these again to go on, or another --out to begin anew")


def difference(name: str, before: Any, now: Any) -> str:
    """Say what differs, for a dictionary by its keys."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        return "; ".join(f"{name} {key} was {before.get(key)}, is {now.get(key)}" for key in keys)
    return f"{name} was {before}, is {now}"


def prepare(out: Path, facts: Mapping[str, Any], before: Mapping[str, Any], step: int, processes: int, device: str) -> None:
    """Make the folder of a run and write run.json: the facts of the run, and one entry for every time it was started."""
    start = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "processes": processes,
        "device": device,
        "machine": platform.platform(),
    }
    held = {**facts, "starts": [*before.get("starts", []), start]}
    with writing(out / "run.json"):
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
        with atomic(out / "run.json") as beside:
            beside.write_text(json.dumps(held, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of limn, Python and the libraries that the numbers depend on."""
    from limn import __version__

    found = {"limn": __version__, "python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def data_hash(path: Path) -> str:
    """Identify a data set: names, sizes and CRC-32 of all its files, hashed; names and sizes alone above four gigabytes."""
    digest = hashlib.sha256()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                digest.update(f"{entry.filename}|{entry.file_size}|{entry.CRC}\n".encode())
        return f"sha256:{digest.hexdigest()}"
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    whole = sum(file.stat().st_size for file in files) < READ_WHOLE
    for file in files:
        content = zlib.crc32(file.read_bytes()) if whole else ""
        digest.update(f"{file.relative_to(path)}|{file.stat().st_size}|{content}\n".encode())
    return f"{'sha256' if whole else 'sha256 of names and sizes'}:{digest.hexdigest()}"

"""PyTorch files: the zip archives of 1.6 and later, the older stream of pickles, and NVIDIA's pickles with PyTorch data inside."""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from limn.errors import WeightsError
from limn.weights.allowed import STORAGES, Storage, globals_allowed
from limn.weights.machine import Global, Machine

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
ENTRIES = 200_000
LARGEST = 256 << 20  # bytes that a small archive may unpack to
RATIO = 20  # and how often its own size a large one may; weights hardly compress
DTYPES = {f"torch.{kind}Storage": dtype for kind, dtype in STORAGES.items()} | {
    f"torch.{name}": torch.uint8 for name in ("UntypedStorage", "storage.UntypedStorage")
}


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose declared sizes are plausible; the bytes read from an entry can never be more than it declares."""
    try:
        with zipfile.ZipFile(path) as zipped:
            entries, size = zipped.infolist(), path.stat().st_size
            packed, unpacked = sum(e.compress_size for e in entries), sum(e.file_size for e in entries)
            if len(entries) > ENTRIES or packed > size or unpacked > max(LARGEST, RATIO * size):
                raise WeightsError(
                    f"is a zip bomb, {size:,} bytes that claim to be {unpacked:,} in {len(entries):,} entries: it is refused"
                )
            yield zipped
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, ValueError, RuntimeError, struct.error) as error:
        raise WeightsError(f"is a damaged zip archive ({error}): download or copy it again") from error


def read_zip(zipped: zipfile.ZipFile) -> Any:
    """Read a PyTorch zip archive: the pickle data.pkl and the storages beside it."""
    names = zipped.namelist()
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1 or any(name.endswith("constants.pkl") for name in names):
        raise WeightsError(
            "is TorchScript, which holds a program: ask its author for the state dict, or save `model.state_dict()` yourself"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and zipped.read(f"{root}byteorder") != b"little":
        raise WeightsError("was written on a big-endian machine: save it again on a little-endian one")
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        kind, key, count, _ = _storage_id(identity)
        if key not in storages:
            storages[key] = _zip_storage(zipped, f"{root}data/{key}", kind, count)
        return storages[key]

    return Machine(io.BytesIO(zipped.read(pickles[0])), ALLOWED, persistent).load()


def read_pickle(path: Path) -> tuple[str, Any, dict[str, Any]]:
    """Read a file that starts as a pickle: PyTorch's older format, or one pickle such as NVIDIA's snapshots."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        stream = cast(BinaryIO, mapped)
        first = _first(stream)
        if first == MAGIC:
            return "a PyTorch file of the older format", _legacy(stream, len(mapped)), {}
        stream.seek(0)
        return "a pickle", Machine(stream, ALLOWED).load(), {}


def _first(stream: BinaryIO) -> Any:
    """Return the value of the first pickle if it is that of PyTorch's older format."""
    head = stream.read(32)
    stream.seek(0)
    return Machine(stream, {}).load() if MAGIC.to_bytes(10, "little") in head else None


def _legacy(stream: BinaryIO, size: int) -> Any:
    """Read the rest of the older format: protocol, system, the object, the keys of its storages, their bytes."""
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        kind, key, count, view = _storage_id(identity)
        if key not in storages:
            _enough(sum(s.values.nbytes for s in storages.values()) + count * DTYPES[kind.name].itemsize, size)
            storages[key] = Storage(torch.zeros(count, dtype=DTYPES[kind.name]))
        return _view(storages[key], view)

    protocol, system = Machine(stream, ALLOWED).load(), Machine(stream, ALLOWED).load()
    if protocol != PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is False:
        raise WeightsError(
            f"is a PyTorch file of protocol {str(protocol)[:20]} or byte order that is not read: save it again with PyTorch 1.6 or later"
        )
    value = Machine(stream, ALLOWED, persistent).load()
    keys = Machine(stream, ALLOWED).load()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise WeightsError("does not hold the storages that its tensors name: it is damaged")
    for key in keys:
        _fill(stream, storages[str(key)].values)
    return value


def _fill(stream: BinaryIO, values: torch.Tensor) -> None:
    header = stream.read(8)
    if len(header) != 8 or struct.unpack("<q", header)[0] != values.numel():
        raise WeightsError("is cut off or damaged: a storage is not as long as its tensors say; download or copy it again")
    data = stream.read(values.nbytes)
    _enough(values.nbytes, len(data))
    if data:
        values.view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def _zip_storage(zipped: zipfile.ZipFile, name: str, kind: Global, count: int) -> Storage:
    try:
        entry = zipped.getinfo(name)
    except KeyError as error:
        raise WeightsError(f"lacks the data {name!r} that its tensors name: download or copy it again") from error
    dtype = DTYPES[kind.name]
    _enough(count * dtype.itemsize, entry.file_size)
    data = bytearray(zipped.read(entry))
    return Storage(torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype))


def _storage_id(identity: Any) -> tuple[Global, str, int, Any]:
    """Check a persistent id ('storage', type, key, location, count[, view])."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] not in ("storage", b"storage"):
        raise WeightsError("refers to data that is no storage of tensors: it is refused")
    kind, key, count = identity[1], identity[2], identity[4]
    if not isinstance(kind, Global) or kind.name not in DTYPES or not isinstance(count, int) or not 0 <= count < math.inf:
        raise WeightsError(f"holds tensors of a type that is not read: {getattr(kind, 'name', kind)!s:.60}")
    return kind, str(key), count, identity[5] if len(identity) == 6 else None


def _view(storage: Storage, view: Any) -> Storage:
    """Narrow a storage to the (key, offset, count) of a view on it."""
    if view is None:
        return storage
    _, offset, count = view
    if not 0 <= offset <= offset + count <= storage.values.numel():
        raise WeightsError("holds a view beyond its storage: it is damaged or made to harm")
    return Storage(storage.values[offset : offset + count])


def _enough(wanted: int, there: int) -> None:
    if wanted > there:
        raise WeightsError(f"is cut off or damaged: {wanted:,} bytes are declared where {there:,} are; download or copy it again")


def _load_from_bytes(data: Any) -> Storage:
    """Read a storage that is embedded in a pickle as a whole PyTorch file of the older format."""
    if not isinstance(data, bytes | bytearray):
        raise WeightsError("embeds a storage that is not bytes: it is damaged")
    stream = io.BytesIO(data)
    value = _legacy(stream, len(data)) if _first(stream) == MAGIC else None
    if not isinstance(value, Storage):
        raise WeightsError("embeds something that is no storage of tensors: it is refused")
    return value


ALLOWED: Mapping[str, Global] = globals_allowed(_load_from_bytes)

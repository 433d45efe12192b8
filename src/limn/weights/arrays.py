"""safetensors and NumPy files, with every declared size checked before anything is allocated."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from limn.errors import WeightsError

LONGEST_HEADER = 100_000_000  # bytes: the limit of the safetensors format


def safetensors_metadata(path: Path) -> dict[str, str] | None:
    """Read the `__metadata__` of a safetensors file (empty where it has none); None for a file of any other kind."""
    header = _header_of(path)
    if header is None:
        return None
    metadata = header.get("__metadata__", {})
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def safetensors_shapes(path: Path) -> dict[str, int]:
    """Return the number of values of every tensor in a safetensors file, without reading one."""
    rows = (_header_of(path) or {}).items()
    return {name: math.prod(row["shape"]) for name, row in rows if name != "__metadata__"}


def _header_of(path: Path) -> dict[str, Any] | None:
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a weight file: name a file in it")
    try:
        with path.open("rb") as file:
            head = file.read(9)
            if len(head) < 9 or head[8:] != b"{":
                return None
            file.seek(8)
            return _header(file, struct.unpack("<Q", head[:8])[0], path.stat().st_size)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except WeightsError as error:
        raise WeightsError(f"{path.name} {error}") from error


def _header(file: BinaryIO, length: int, size: int) -> dict[str, Any]:
    if length > LONGEST_HEADER or length + 8 > size:
        raise WeightsError(f"declares a header of {length:,} bytes in a file of {size:,}: it is cut off, damaged or made to harm")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise WeightsError("has a damaged safetensors header: download or copy it again") from error
    if not isinstance(header, dict):
        raise WeightsError("has a damaged safetensors header: download or copy it again")
    return header


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        _header(file, length, path.stat().st_size)
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"is cut off or damaged ({error}): download or copy it again") from error


def read_npy(path: Path) -> Any:
    """Read a .npy file: a tensor for numbers, an array for text; pickled objects are refused."""
    with path.open("rb") as file:
        return _array(file, path.stat().st_size)


def read_npz(zipped: zipfile.ZipFile) -> dict[str, Any]:
    """Read a .npz archive: its arrays by name."""
    arrays = {}
    for entry in zipped.infolist():
        if not entry.filename.endswith(".npy"):
            raise WeightsError(f"is a zip archive of other files ({entry.filename!r}), not of weights: unpack it and name the file in it")
        arrays[entry.filename.removesuffix(".npy")] = _array(io.BytesIO(zipped.read(entry)), entry.file_size)
    return arrays


def _array(file: BinaryIO, size: int) -> Any:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, column_major, dtype = read(file, max_header_size=10_000)
    except (ValueError, TypeError, LookupError, SyntaxError, TokenError, EOFError, MemoryError, RecursionError) as error:
        raise WeightsError(
            f"has a damaged NumPy header ({(str(error).splitlines() or ['unreadable'])[0][:80]}): download or copy it again"
        ) from error
    if dtype.hasobject:
        raise WeightsError("holds pickled Python objects, not numbers: it is refused; save the array as numbers")
    wanted = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or wanted > size - file.tell():
        raise WeightsError(
            f"is cut off or damaged: {wanted:,} bytes are declared where {size - file.tell():,} are; download or copy it again"
        )
    array = np.frombuffer(file.read(wanted), dtype).reshape(shape, order="F" if column_major else "C")
    return tensor_from(array)


def tensor_from(array: np.ndarray) -> Any:
    """Return an array of numbers as a tensor of its own memory; text stays a NumPy array."""
    if array.dtype.kind not in "biufc" or array.dtype in (np.uint16, np.uint32, np.uint64, np.longdouble):
        return array
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True, subok=False)
    return torch.from_numpy(native)

"""Read a weight file of any known kind without running anything in it: tensors and plain containers come out, or one line why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from limn.errors import WeightsError
from limn.weights import arrays, onnx, torchfile
from limn.weights.allowed import Array
from limn.weights.arrays import safetensors_metadata
from limn.weights.machine import Record

__all__ = ["Contents", "read", "safetensors_metadata"]

DEPTH = 200  # containers within containers: a module takes three levels
MODULE = "module."  # what DataParallel puts before every name


@dataclass(frozen=True)
class Contents:
    """What a weight file holds."""

    path: Path
    kind: str  # in words: "a PyTorch file", "safetensors", ...
    tensors: Any  # as in the file: nested dicts, lists and tuples of tensors and plain values; a pickled object is a Record
    states: dict[str, dict[str, Tensor]]  # state dicts by the dotted path at which the file holds them; "" is the whole file
    loose: dict[str, Tensor]  # tensors at the top that belong to no state dict, such as latent_avg
    meta: dict[str, Any] = field(default_factory=dict)  # plain values beside the tensors; classes and constructor arguments of Records

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def summary(self) -> str:
        """Say in a few words what there is."""
        if isinstance(self.tensors, Tensor):
            return f"one tensor of shape {tuple(self.tensors.shape)}"
        held = [f"{len(state)} tensors{f' in {name}' if name else ''}" for name, state in self.states.items()]
        return (
            "; ".join(held + [f"{len(self.loose)} loose tensors"] * bool(self.loose)) or f"a {type(self.tensors).__name__} without tensors"
        )


def read(path: str | Path) -> Contents:
    """Read a weight file: safetensors, PyTorch (zip or legacy), NVIDIA's pickles, NumPy or ONNX.

    Nothing in the file is executed and no size it declares is believed; WeightsError says in one line what is wrong.
    """
    path = Path(path).expanduser()
    head = _head(path)
    try:
        kind, tensors, meta = _open(path, head)
        tensors = _plain(tensors, {})
        states = dict(_states(tensors, set()))
        loose = _loose(tensors, states)
    except WeightsError as error:
        raise WeightsError(f"{path.name} {error}") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    return Contents(path, kind, tensors, states, loose, meta | _meta(tensors))


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a weight file: name a file in it")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise WeightsError(f"{path.name} is empty: download or copy it again")
    return head


def _open(path: Path, head: bytes) -> tuple[str, Any, dict[str, Any]]:
    """Return kind, nested content and plain facts; the content decides, not the file's name."""
    if head.startswith(b"\x93NUMPY"):
        return "a NumPy array", arrays.read_npy(path), {}
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(path)
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return torchfile.read_pickle(path)
    if head[8:9] == b"{":
        return "safetensors", arrays.read_safetensors(path), {"header": safetensors_metadata(path)}
    if head[:1] == b"\x08" and path.suffix.lower() == ".onnx":
        tensors, meta = onnx.read_onnx(path)
        return "ONNX", tensors, meta
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError("is a Git LFS pointer, not the file itself: run `git lfs pull` or download it again")
    if head.lstrip()[:1] == b"<":
        raise WeightsError("is a web page, not a weight file: the download needs a login or a confirmation")
    raise WeightsError("is no weight file: expected safetensors, PyTorch (.pt, .pth, .ckpt, .pkl), NumPy (.npy, .npz) or ONNX")


def _open_zip(path: Path) -> tuple[str, Any, dict[str, Any]]:
    with torchfile.archive(path) as zipped:
        if any(name.endswith("data.pkl") for name in zipped.namelist()):
            return "a PyTorch file", torchfile.read_zip(zipped), {}
        return "NumPy arrays", arrays.read_npz(zipped), {}


def _plain(node: Any, seen: dict[int, Any], depth: int = 0) -> Any:
    """Copy nested containers with their NumPy arrays as tensors; each container once, however often it is named."""
    if isinstance(node, Array):
        return arrays.tensor_from(node.value)
    if isinstance(node, np.ndarray):
        return arrays.tensor_from(node)
    if not isinstance(node, dict | list | tuple | Record):
        return node
    if id(node) in seen:
        return seen[id(node)]
    if depth > DEPTH:
        raise WeightsError(f"nests containers more than {DEPTH} deep: it is damaged or made to harm")
    if isinstance(node, tuple):
        seen[id(node)] = tuple(_plain(value, seen, depth + 1) for value in node)
        return seen[id(node)]
    copy: Any = Record(node.kind) if isinstance(node, Record) else [] if isinstance(node, list) else {}
    seen[id(node)] = copy
    if isinstance(node, Record):
        copy.state.update({name: _plain(value, seen, depth + 1) for name, value in node.state.items()})
    elif isinstance(node, list):
        copy.extend(_plain(value, seen, depth + 1) for value in node)
    else:
        copy.update({name: _plain(value, seen, depth + 1) for name, value in node.items()})
    return copy


def _states(node: Any, seen: set[int], at: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Walk down to the mappings that hold tensors by name; Records count as the modules they were."""
    if not isinstance(node, Mapping | Record | list | tuple) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Record):
        state = node.tensors()
        if state:
            yield at, state
        return
    named = list(node.items() if isinstance(node, Mapping) else enumerate(node))
    own = {str(name): value for name, value in named if isinstance(value, Tensor)} if isinstance(node, Mapping) else {}
    below = [found for name, value in named for found in _states(value, seen, f"{at}.{name}" if at else str(name))]
    if own and (at or not below):
        yield at, _unwrapped(own)
    yield from below


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefix of DataParallel where every name has it."""
    while state and all(name.startswith(MODULE) for name in state):
        state = {name.removeprefix(MODULE): tensor for name, tensor in state.items()}
    return state


def _loose(tensors: Any, states: Mapping[str, Any]) -> dict[str, Tensor]:
    if "" in states or not isinstance(tensors, Mapping):
        return {}
    return {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}


def _meta(tensors: Any) -> dict[str, Any]:
    """Collect the plain values at the top, and class and arguments of every Record there."""
    if isinstance(tensors, Record):
        return {"": tensors.facts()}
    if not isinstance(tensors, Mapping):
        return {}
    facts: dict[str, Any] = {str(name): value.facts() for name, value in tensors.items() if isinstance(value, Record)}
    facts |= {str(name): value for name, value in tensors.items() if isinstance(value, str | int | float | bool | None)}
    return facts | ({"opts": _options(tensors["opts"])} if "opts" in tensors else {})


def _options(options: Any) -> dict[str, Any]:
    """Return the plain values of training options, a dictionary or what was a Namespace."""
    named = options.state if isinstance(options, Record) else options if isinstance(options, Mapping) else {}
    return {str(name): value for name, value in named.items() if isinstance(value, str | int | float | bool | None)}

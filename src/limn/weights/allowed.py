"""The globals that a weight file may name, and the plain values and tensors that stand for them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.errors import WeightsError
from limn.weights.machine import Global, Namespace, Record

EXPANDED = 1 << 20  # values that a tensor may have beyond those stored (broadcast axes)

STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16, "Long": torch.int64,
    "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128"]


@dataclass
class Storage:
    """Bytes of a file that tensors look at: one-dimensional, of one type."""

    values: Tensor


class Dtype:
    """A NumPy dtype under construction: pickle makes it, then sets its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode() if isinstance(code, bytes) else str(code)
        if not re.fullmatch(r"[<>=|]?[biufcSU?]\d{0,4}", text):
            raise WeightsError(f"holds a NumPy array of type {text[:40]!r}: only numbers and text are read")
        self.value = np.dtype(text)

    def pickled_state(self, state: Any) -> None:
        """Take the byte order out of (version, order, ...)."""
        if state[1] in (">", b">"):
            self.value = self.value.newbyteorder(">")


class Array:
    """A NumPy array under construction: pickle makes it empty, then sets shape, type and bytes."""

    value: np.ndarray = np.empty(0)

    def pickled_state(self, state: Any) -> None:
        """Take (version, shape, dtype, column-major, bytes); the bytes must be as many as the shape says."""
        shape, dtype, column_major, data = state[-4:]
        self.value = array_of(data, dtype, shape, "F" if column_major else "C")


def array_of(data: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """Build an array from bytes whose number must be that of the shape."""
    data = data.encode("latin-1") if isinstance(data, str) else data
    sizes = checked_sizes(shape)
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes | bytearray) or len(data) != math.prod(sizes) * dtype.value.itemsize:
        raise WeightsError("holds a NumPy array that is not numbers, or whose bytes are not as many as its shape says")
    return np.frombuffer(bytes(data), dtype.value).reshape(sizes, order="F" if order == "F" else "C")


def checked_sizes(shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of numbers that are not negative."""
    if not isinstance(shape, Sequence) or len(shape) > 32 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise WeightsError("holds an array whose shape is no shape: it is damaged or made to harm")
    return tuple(shape)


def tensor_of(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Look at a storage as a tensor; every value must lie inside it."""
    sizes, strides = checked_sizes(size), checked_sizes(stride)
    if not isinstance(storage, Storage) or not isinstance(offset, int) or offset < 0 or len(sizes) != len(strides):
        raise WeightsError("holds a tensor without its data: it is damaged")
    held, count = storage.values.numel(), math.prod(sizes)
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if count and (last >= held or count > held + EXPANDED):
        raise WeightsError(f"holds a tensor {sizes} that reaches beyond its {held} stored values: it is damaged or made to harm")
    return storage.values.as_strided(sizes, strides, offset) if count else storage.values.new_empty(sizes)


def typed_tensor_of(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any) -> Tensor:
    """Look at untyped bytes as a tensor of a named type."""
    if not isinstance(storage, Storage) or not isinstance(dtype, Global):
        raise WeightsError("holds a tensor without its data: it is damaged")
    return tensor_of(Storage(storage.values.view(getattr(torch, dtype.name.removeprefix("torch.")))), offset, size, stride)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise WeightsError("holds a parameter that is no tensor: it is damaged")
    return data


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return array_of(data, dtype, ()).item()


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return dict(pairs)


def _reconstructed(kind: Any, _base: Any = None, _state: Any = None) -> Any:
    return kind.make() if isinstance(kind, Global) and kind.make in (dict, Namespace, _ordered) else _refuse(kind)


def _refuse(kind: Any) -> Any:
    raise WeightsError(
        f"rebuilds {getattr(kind, 'name', type(kind).__name__)!r}, which is neither a tensor nor a plain value: it is refused"
    )


def _record(meta: Any) -> Record:
    """Keep what NVIDIA's persistence pickles: class name and state; the source text in it is not kept, let alone run."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise WeightsError("holds an NVIDIA module without its state: it is damaged")
    return Record(str(meta.get("class_name")), {str(name): value for name, value in meta["state"].items()})


def _text(data: Any, *_: Any) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)


def _path(*parts: Any) -> str:
    return "/".join(str(part) for part in parts)


def _empty_array(*_: Any) -> Array:
    return Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    return array_of(data, dtype, shape, order)


def globals_allowed(load_from_bytes: Callable[[Any], Storage]) -> dict[str, Global]:
    """Return the whole allow-list; `load_from_bytes` reads a storage that is embedded as a PyTorch file of its own."""
    makers: dict[str, Callable[..., Any] | None] = {
        "torch._utils._rebuild_tensor": tensor_of,
        "torch._utils._rebuild_tensor_v2": tensor_of,
        "torch._utils._rebuild_tensor_v3": typed_tensor_of,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": lambda make, _kind, arguments, _state: make.make(*arguments),
        "torch.storage._load_from_bytes": load_from_bytes,
        "torch.Size": lambda sizes=(): tuple(sizes),
        "torch.device": lambda *parts: ":".join(str(part) for part in parts),
        "torch.Tensor": None,
        "torch.nn.parameter.Parameter": None,
        "torch_utils.persistence._reconstruct_persistent_obj": _record,
        "_codecs.encode": _text,
    }
    for name in ("UntypedStorage", "storage.UntypedStorage", "storage.TypedStorage", *(f"{kind}Storage" for kind in STORAGES), *DTYPES):
        makers[f"torch.{name}"] = None
    for core in ("numpy.core", "numpy._core"):
        makers |= {f"{core}.multiarray._reconstruct": _empty_array, f"{core}.multiarray.scalar": _scalar}
        makers[f"{core}.numeric._frombuffer"] = _from_buffer
    makers |= {"numpy.ndarray": None, "numpy.dtype": Dtype}
    makers |= {"collections.OrderedDict": _ordered, "collections.defaultdict": lambda *_: {}, "argparse.Namespace": Namespace}
    makers |= {f"{module}.EasyDict": dict for module in ("dnnlib", "dnnlib.util", "dnnlib.tflib.util", "easydict")}
    makers |= {"yacs.config.CfgNode": dict, "pytorch_lightning.utilities.parsing.AttributeDict": dict}
    makers["pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"] = None  # keys a dictionary of callbacks
    makers |= {f"dnnlib.tflib.{module}Network": lambda *_: Record("Network") for module in ("", "network.")}
    makers |= {f"pathlib.{name}": _path for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")}
    for builtins in ("builtins", "__builtin__"):
        makers |= {f"{builtins}.{kind.__name__}": kind for kind in (set, frozenset, bytearray)}
        makers |= {f"{builtins}.{kind}": None for kind in ("dict", "list", "int", "float", "str", "object", "tuple", "bool")}
    makers |= {f"{module}._reconstructor": _reconstructed for module in ("copyreg", "copy_reg")}
    return {name: Global(name, make) for name, make in makers.items()}

"""ONNX: the initialisers of a graph, and its nodes as plain rows, read from the protobuf wire format without the onnx package."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from limn.errors import WeightsError
from limn.weights.arrays import tensor_from

# onnx.proto: TensorProto.DataType -> NumPy
DTYPES = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8", 12: "<u4", 13: "<u8"}
FLOATS, INT32S, INT64S, DOUBLES, UINT64S = 4, 5, 7, 10, 11  # TensorProto fields that hold values when raw_data does not

Field = tuple[int, int, Any]  # number, wire type, value (int, or a slice of the file)


def read_onnx(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the initialisers and constants by name, and `producer`, `opset` and `nodes`: (operator, inputs, outputs) in order."""
    try:
        return _model(memoryview(path.read_bytes()))
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"is a damaged ONNX file ({error}): download or copy it again") from error


def _model(view: memoryview) -> tuple[dict[str, Tensor], dict[str, Any]]:
    producer, opset, graph = "", 0, None
    for number, _, value in _fields(view):
        if number == 2:
            producer = bytes(value).decode()
        elif number == 7:
            graph = value
        elif number == 8:
            opset = max([opset, *(int(version) for field, _, version in _fields(value) if field == 2)])
    if graph is None:
        raise ValueError("it has no graph")
    tensors, nodes = _graph(graph)
    if not tensors:
        raise ValueError("its graph has no weights")
    return tensors, {"producer": producer, "opset": opset, "nodes": nodes}


def _graph(view: memoryview) -> tuple[dict[str, Tensor], list[tuple[str, tuple[str, ...], tuple[str, ...]]]]:
    tensors: dict[str, Tensor] = {}
    nodes = []
    for number, _, value in _fields(view):
        if number == 1:
            operator, inputs, outputs, constant = _node(value)
            nodes.append((operator, inputs, outputs))
            if operator == "Constant" and constant is not None and outputs:
                tensors[outputs[0]] = _tensor(constant)[1]
        elif number == 5:
            name, tensor = _tensor(value)
            tensors[name] = tensor
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}, nodes


def _node(view: memoryview) -> tuple[str, tuple[str, ...], tuple[str, ...], memoryview | None]:
    inputs, outputs, operator, constant = [], [], "", None
    for number, _, value in _fields(view):
        if number == 1:
            inputs.append(bytes(value).decode())
        elif number == 2:
            outputs.append(bytes(value).decode())
        elif number == 4:
            operator = bytes(value).decode()
        elif number == 5:
            constant = next((inner for field, _, inner in _fields(value) if field == 5), constant)
    return operator, tuple(inputs), tuple(outputs), constant


def _tensor(view: memoryview) -> tuple[str, Any]:
    name, kind, raw = "", 0, None
    dims: list[int] = []
    values: list[Field] = []
    for number, wire, value in _fields(view):
        if number == 1:
            dims += _varints(value) if wire == 2 else [value]
        elif number == 2:
            kind = value
        elif number == 8:
            name = bytes(value).decode()
        elif number == 9:
            raw = value
        elif number == 13 or (number == 14 and value):
            raise WeightsError("keeps its weights in files beside it, which is not read: save it as one file")
        elif number in (FLOATS, INT32S, INT64S, DOUBLES, UINT64S):
            values.append((number, wire, value))
    dtype = np.dtype(DTYPES[kind])
    array = np.frombuffer(bytes(raw), dtype) if raw is not None else _listed(values, dtype)
    if any(n < 0 or n > 1 << 40 for n in dims) or math.prod(dims) != array.size:
        raise ValueError(f"tensor {name[:60]!r} has {array.size} values for shape {tuple(dims)}")
    return name, tensor_from(array.reshape(dims))


def _listed(fields: list[Field], dtype: np.dtype) -> np.ndarray:
    """Collect values that are listed one by one or packed, not given as raw bytes."""
    parts = []
    for number, wire, value in fields:
        if number in (FLOATS, DOUBLES):
            parts.append(np.frombuffer(bytes(value), "<f4" if number == FLOATS else "<f8"))
        else:
            parts.append(np.array(_varints(value) if wire == 2 else [value], dtype=np.uint64).astype(np.int64))
    if not parts:
        return np.empty(0, dtype)
    whole = np.concatenate(parts)
    return whole.astype(np.uint16).view(np.float16) if dtype == np.float16 else whole.astype(dtype)


def _fields(view: memoryview) -> Iterator[Field]:
    """Walk the fields of one protobuf message; a length never reaches beyond the message."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(view, at)
            yield number, wire, value
            continue
        if wire == 2:
            length, at = _varint(view, at)
        else:
            length = {1: 8, 5: 4}[wire]
        if length > len(view) - at:
            raise ValueError(f"{length:,} bytes are declared where {len(view) - at:,} are")
        yield number, wire, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number without end")


def _varints(view: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(view):
        value, at = _varint(view, at)
        values.append(value)
    return values

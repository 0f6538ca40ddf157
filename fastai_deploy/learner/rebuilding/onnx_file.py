"""Writing and reading an ONNX file without ever holding all of it: the weights go one by one.

An ONNX file is a protobuf message; the order of the fields in it is free, so a graph without its
large weights can be written first, and each of them appended as one more initializer. Reading
leaves the numbers where they are, mapped. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx.helper import np_dtype_to_tensor_dtype, tensor_dtype_to_np_dtype

from fastai_deploy.files import file_errors, replacing

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[Any]]"

_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
_VARINT, _FIXED_64, _LENGTH_DELIMITED, _FIXED_32 = 0, 1, 2, 5


def write_onnx(path: Path, model: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
    """Write ``model`` with ``weights`` as initializers of its graph; the model is left as it is.

    The same model and weights give the same bytes. Raises FileError.
    """
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    outside.ClearField("graph")
    graph = model.graph.SerializeToString(deterministic=True)
    heads = {name: _head(name, weights[name]) for name in sorted(weights)}
    sizes = {name: len(head) + weights[name].nbytes for name, head in heads.items()}
    entries = {name: _field(_GRAPH_INITIALIZER, sizes[name]) for name in heads}
    total = len(graph) + sum(len(entries[name]) + sizes[name] for name in heads)
    with replacing(path) as file:
        file.write(outside.SerializeToString(deterministic=True))
        file.write(_field(_MODEL_GRAPH, total))
        file.write(graph)
        for name, head in heads.items():
            file.write(entries[name])
            file.write(head)
            file.write(np.ascontiguousarray(weights[name]).reshape(-1).data)


def read_onnx(path: Path) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The graph without its initializers, and those, by name.

    Their numbers stay in the file, which must not change: what is looked at is read. Raises
    FileError, and ValueError for a file that is no graph.
    """
    with file_errors(path), path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    outside, inside = bytearray(), bytearray()
    weights: dict[str, Array] = {}
    for field in _fields(mapped, 0, len(mapped)):
        if field.number != _MODEL_GRAPH:
            outside += mapped[field.start : field.end]
            continue
        for part in _fields(mapped, field.content, field.end):
            if part.number == _GRAPH_INITIALIZER:
                name, array = _tensor(mapped, part)
                weights[name] = array
            else:
                inside += mapped[part.start : part.end]
    model = onnx.ModelProto.FromString(bytes(outside))
    model.graph.ParseFromString(bytes(inside))
    return model, weights


def _head(name: str, weight: Array) -> bytes:
    """A tensor's message up to its numbers."""
    kind = np_dtype_to_tensor_dtype(weight.dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=list(weight.shape))
    return bytes(tensor.SerializeToString(deterministic=True)) + _field(
        _TENSOR_RAW_DATA, weight.nbytes
    )


def _tensor(mapped: mmap.mmap, field: _Field) -> tuple[str, Array]:
    """The name and the numbers of an initializer."""
    head, raw = bytearray(), None
    for part in _fields(mapped, field.content, field.end):
        if part.number == _TENSOR_RAW_DATA:
            raw = part
        else:
            head += mapped[part.start : part.end]
    tensor = onnx.TensorProto.FromString(bytes(head))
    if raw is None or raw.content == raw.end:
        return tensor.name, onnx.numpy_helper.to_array(tensor)
    dtype = tensor_dtype_to_np_dtype(tensor.data_type)
    count = (raw.end - raw.content) // dtype.itemsize
    flat = np.frombuffer(mapped, dtype, count, raw.content)
    return tensor.name, flat.reshape(tuple(tensor.dims))


@dataclass(frozen=True)
class _Field:
    """A field of a message: the tag is at ``start``, and what it holds ends at ``end``."""

    number: int
    start: int
    content: int
    end: int


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    while start < end:
        tag, content = _read_varint(data, start)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, content = _read_varint(data, content)
            stop = content + length
        elif kind == _VARINT:
            _, stop = _read_varint(data, content)
        elif kind in (_FIXED_64, _FIXED_32):
            stop = content + (8 if kind == _FIXED_64 else 4)
        else:
            raise ValueError(f"a field of kind {kind} at {start}")
        if stop > end:
            raise ValueError(f"the field at {start} goes on behind its message")
        yield _Field(tag >> 3, start, content, stop)
        start = stop


def _field(number: int, length: int) -> bytes:
    """The tag of a field that is so many bytes long, and that length, both as varints."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - the largest number of seven bits
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _read_varint(data: mmap.mmap, start: int) -> tuple[int, int]:
    """The number at ``start``, and where it ends."""
    number = shift = 0
    while start < len(data):
        byte = data[start]
        number |= (byte & 0x7F) << shift
        start += 1
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return number, start
        shift += 7
    raise ValueError("the file ends within a number")

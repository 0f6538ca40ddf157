"""Writing and reading an ONNX file without ever holding all of it: the weights go one by one.

An ONNX file is a protobuf message; the order of the fields in it is free, so a graph without its
large weights can be written first, and each of them appended as one more initializer. Reading
leaves the numbers where they are, mapped. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx.helper import np_dtype_to_tensor_dtype

from fastai_deploy.files import file_errors, replacing
from fastai_deploy.runtime.onnx_graph import read_weight
from fastai_deploy.runtime.protobuf import BYTES, fields

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[Any]]"

_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


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
    for field in fields(mapped):
        if field.number != _MODEL_GRAPH:
            outside += mapped[field.start : field.end]
            continue
        for part in fields(mapped, field.content, field.end):
            if part.number == _GRAPH_INITIALIZER:
                name, array = read_weight(mapped, part)
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


def _field(number: int, length: int) -> bytes:
    """The tag of a field that is so many bytes long, and that length, both as varints."""
    return _varint(number << 3 | BYTES) + _varint(length)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - the largest number of seven bits
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)

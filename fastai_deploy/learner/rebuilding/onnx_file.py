"""Writing an ONNX file without ever holding all of it: the weights go in one by one.

An ONNX file is a protobuf message; the order of the fields in it is free, so a graph without its
large weights can be written first, and each of them appended as one more initializer. Field
numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx.helper import np_dtype_to_tensor_dtype

from fastai_deploy.files import replacing

_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
_LENGTH_DELIMITED = 2


def write_onnx(path: Path, model: onnx.ModelProto, weights: Mapping[str, torch.Tensor]) -> None:
    """Write ``model`` with ``weights`` as initializers of its graph; the model is left as it is.

    The same model and weights give the same bytes. Raises FileError.
    """
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    outside.ClearField("graph")
    graph = model.graph.SerializeToString(deterministic=True)
    heads = {name: _head(name, weights[name]) for name in sorted(weights)}
    sizes = {name: len(head) + _size(weights[name]) for name, head in heads.items()}
    entries = {name: _field(_GRAPH_INITIALIZER, sizes[name]) for name in heads}
    total = len(graph) + sum(len(entries[name]) + sizes[name] for name in heads)
    with replacing(path) as file:
        file.write(outside.SerializeToString(deterministic=True))
        file.write(_field(_MODEL_GRAPH, total))
        file.write(graph)
        for name, head in heads.items():
            file.write(entries[name])
            file.write(head)
            file.write(weights[name].contiguous().flatten().numpy().data)


def _head(name: str, weight: torch.Tensor) -> bytes:
    """A tensor's message up to its numbers."""
    kind = np_dtype_to_tensor_dtype(weight.numpy().dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=list(weight.shape))
    return bytes(tensor.SerializeToString(deterministic=True)) + _field(
        _TENSOR_RAW_DATA, _size(weight)
    )


def _size(weight: torch.Tensor) -> int:
    return weight.numel() * weight.element_size()


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

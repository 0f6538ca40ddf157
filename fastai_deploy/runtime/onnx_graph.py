"""An ONNX graph as plain values, read without the onnx package; the weights stay in the file.

Field numbers and types are those of ``onnx.proto``.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

import numpy as np

from .protobuf import Data, Field, fields, varint

Array = Any
"""A numpy array of any shape and type."""

_GRAPH = 7  # of a model
_NODE, _WEIGHT, _OUTPUT = 1, 5, 12  # of a graph
_INPUTS, _OUTPUTS, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7  # of a node
_DIMENSIONS, _DATA_TYPE, _NAME, _RAW = 1, 2, 8, 9  # of a tensor
_TYPES = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
# The fields of a tensor for numbers that are not raw, and what one number is.
_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S = 4, 5, 7, 10, 11
_NUMBERS = {_FLOATS: "<f", _INT32S: "", _INT64S: "", _DOUBLES: "<d", _UINT64S: ""}


@dataclass(frozen=True)
class Node:
    """One operation; an input that is left out is an empty name."""

    operator: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in the order in which they can be computed; ``weights`` by name, as numpy arrays."""

    nodes: Tuple[Node, ...]
    weights: Mapping[str, Array]
    outputs: Tuple[str, ...]


def read_graph(path: Path) -> OnnxGraph:
    """The graph of a file, which must not change while the weights are used.

    Raises ValueError when there is none in it, or something that no graph of ours holds; OSError.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    nodes: List[Node] = []
    weights: Dict[str, Array] = {}
    outputs: List[str] = []
    for part in _within(data, _GRAPH):
        if part.number == _NODE:
            nodes.append(_node(data, part))
        elif part.number == _WEIGHT:
            name, array = read_weight(data, part)
            weights[name] = array
        elif part.number == _OUTPUT:
            outputs.extend(_text(data, each) for each in _parts(data, part) if each.number == 1)
    if not nodes:
        raise ValueError(f"{path.name} holds no graph")
    return OnnxGraph(tuple(nodes), weights, tuple(outputs))


def _within(data: Data, number: int) -> Iterator[Field]:
    for field in fields(data):
        if field.number == number:
            yield from _parts(data, field)


def _parts(data: Data, field: Field) -> Iterator[Field]:
    return fields(data, field.content, field.end)


def _node(data: Data, field: Field) -> Node:
    names: Dict[int, List[str]] = {_INPUTS: [], _OUTPUTS: [], _OPERATOR: [], _DOMAIN: []}
    attributes: Dict[str, Any] = {}
    for part in _parts(data, field):
        if part.number in names:
            names[part.number].append(_text(data, part))
        elif part.number == _ATTRIBUTE:
            name, value = _attribute(data, part)
            attributes[name] = value
    # Domains are no part of the name: no two that fdeploy writes have an operator alike.
    return Node(
        "".join(names[_OPERATOR]), tuple(names[_INPUTS]), tuple(names[_OUTPUTS]), attributes
    )


def _attribute(data: Data, field: Field) -> Tuple[str, Any]:
    """Its name, and a number, text, array, or list of numbers or texts."""
    read: Dict[int, Callable[[Data, Field], Any]] = {
        2: _float, 3: _integer, 4: _text, 5: lambda data, part: read_weight(data, part)[1],
    }  # fmt: skip
    lists: Dict[int, Callable[[Data, Field], List[Any]]] = {
        7: lambda data, part: _numbers(data, part, "<f"),
        8: lambda data, part: _numbers(data, part, ""),
        9: lambda data, part: [_text(data, part)],
    }
    name, value = "", None
    for part in _parts(data, field):
        if part.number == 1:
            name = _text(data, part)
        elif part.number in read:
            value = read[part.number](data, part)
        elif part.number in lists:
            value = [*(value or []), *lists[part.number](data, part)]
    return name, value


def read_weight(data: Data, field: Field) -> Tuple[str, Array]:
    """The name and the numbers of a tensor's field; raw ones stay where they are in ``data``.

    Raises ValueError for a type that numpy does not have.
    """
    name, shape, kind = "", [], 0
    numbers: List[Any] = []
    raw = None
    for part in _parts(data, field):
        if part.number == _NAME:
            name = _text(data, part)
        elif part.number == _DIMENSIONS:
            shape.extend(_numbers(data, part, ""))
        elif part.number == _DATA_TYPE:
            kind = _integer(data, part)
        elif part.number == _RAW:
            raw = part
        elif part.number in _NUMBERS:
            numbers.extend(_numbers(data, part, _NUMBERS[part.number]))
    if kind not in _TYPES:
        raise ValueError(f"the weight {name!r} is of a type that is not read here ({kind})")
    dtype = np.dtype(_TYPES[kind])
    if raw is None:
        if dtype == np.float16:  # whose bits are kept as integers
            return name, np.array(numbers, dtype=np.uint16).view(dtype).reshape(shape)
        return name, np.array(numbers, dtype=dtype).reshape(shape)
    count = (raw.end - raw.content) // dtype.itemsize
    return name, np.frombuffer(data, dtype, count, raw.content).reshape(shape)


def _text(data: Data, field: Field) -> str:
    return bytes(data[field.content : field.end]).decode("utf-8")


def _float(data: Data, field: Field) -> float:
    return float(_numbers(data, field, "<f")[0])


def _integer(data: Data, field: Field) -> int:
    return int(_numbers(data, field, "")[0])


def _numbers(data: Data, field: Field, layout: str) -> List[Any]:
    """The numbers of a field, one or packed; ``layout`` as of struct, empty for varints."""
    if layout:
        return [number for (number,) in struct.iter_unpack(layout, data[field.content : field.end])]
    found = []
    position = field.content
    while position < field.end:
        number, position = varint(data, position)
        found.append(number - (1 << 64) if number >> 63 else number)
    return found

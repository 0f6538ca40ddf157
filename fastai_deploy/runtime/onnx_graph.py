"""Reads ONNX graphs without the onnx package; the weights stay in their files.

Containers have neither onnx nor protobuf, because serving needs little of the format: the names of
the weight files, before ONNX Runtime opens them (``external_files``), and on GPUs the nodes and
weights (``read_graph``). So this module reads the wire format of protocol buffers itself.

Sources: "Encoding" in the protocol buffers documentation; "External Data" in the ONNX
documentation; the field numbers and types in ``onnx.proto``.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Union,
)

import numpy as np

from .bundle import Bundle, ModelError, weights_file

Array = Any
"""A numpy array of any shape and type."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_SIZES = {_FIXED_64: 8, _FIXED_32: 4}
_LARGEST_TAG = (1 << 32) - 1
_MOST_BITS = 63  # the shift of the last byte of a 64-bit varint

_GRAPH = 7  # of a model
_NODE, _WEIGHT, _OUTPUT = 1, 5, 12  # of a graph
_INPUTS, _OUTPUTS, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7  # of a node
_DIMENSIONS, _DATA_TYPE, _NAME, _RAW, _EXTERNAL = 1, 2, 8, 9, 13  # of a tensor
_KEY, _VALUE = 1, 2  # of an entry of external_data
_LOCATION, _OFFSET, _LENGTH = "location", "offset", "length"
# Where tensors can occur: for each message, its fields that hold messages, and their types.
_WITHIN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph",
                  22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}  # fmt: skip
_TYPES = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
# The fields of a tensor for numbers not stored as raw data, and the layout of one number.
_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S = 4, 5, 7, 10, 11
_NUMBERS = {_FLOATS: "<f", _INT32S: "", _INT64S: "", _DOUBLES: "<d", _UINT64S: ""}

Data = Union[bytes, mmap.mmap]


class Field(NamedTuple):
    """A field of a message; its content is the bytes from ``content`` to ``end``."""

    number: int
    kind: int
    content: int
    end: int


@dataclass(frozen=True)
class Node:
    """One operation; an omitted optional input has an empty name."""

    operator: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in topological order; ``weights`` are numpy arrays by name."""

    nodes: Tuple[Node, ...]
    weights: Mapping[str, Array]
    outputs: Tuple[str, ...]


def check_weights(bundle: Bundle) -> None:
    """Raise ModelError if a graph refers to any file but its own weights file, whose hash matched.

    Only later versions of ONNX Runtime refuse files outside the model's folder.
    """
    for form in bundle.forms:
        try:
            found = external_files(bundle.folder / form.file)
        except ValueError as error:
            raise ModelError(f"{form.file} cannot be loaded: {error}") from None
        foreign = sorted(found - {form.weights_file})
        if foreign:
            raise ModelError(
                f"{form.file} takes weights from {foreign[0]!r}, which does not belong to it"
            )


def external_files(path: Path) -> Set[str]:
    """The locations of all external data of a graph, as written in the file.

    ONNX Runtime opens these paths, in some versions anywhere on the disk. So every place that can
    hold a tensor is searched: nodes, graphs within nodes, functions. Raises ValueError if the file
    is not a graph, and OSError.
    """
    data = _mapped(path)
    try:
        return {
            each
            for tensor in _tensors(data, "model", fields(data))
            for key, each in _entries(data, tensor)
            if key == _LOCATION
        }
    except RecursionError:
        raise ValueError(f"{path.name} nests graphs too deeply") from None


def read_graph(path: Path) -> OnnxGraph:
    """Read the graph in a file, which must not change while the weights are in use.

    Weights may be in the file itself or in its weights file (``weights_file``). Raises ValueError
    if the file holds no graph, or something that fdeploy never writes, and OSError.
    """
    reader = _Reader(path)
    nodes: List[Node] = []
    weights: Dict[str, Array] = {}
    outputs: List[str] = []
    data = reader.data
    for graph in fields(data):
        for part in _parts(data, graph) if graph.number == _GRAPH else ():
            if part.number == _NODE:
                nodes.append(reader.node(part))
            elif part.number == _WEIGHT:
                name, array = reader.tensor(part)
                weights[name] = array
            elif part.number == _OUTPUT:
                outputs.extend(_text(data, each) for each in _parts(data, part) if each.number == 1)
    if not nodes:
        raise ValueError(f"{path.name} holds no graph")
    return OnnxGraph(tuple(nodes), weights, tuple(outputs))


class _Reader:
    """Reads nodes and tensors from one file and its weights file."""

    def __init__(self, path: Path) -> None:
        self.data = _mapped(path)
        self._outside = path.with_name(weights_file(path.name))
        self._weights: Optional[mmap.mmap] = None

    def node(self, field: Field) -> Node:
        """One operation."""
        names: Dict[int, List[str]] = {_INPUTS: [], _OUTPUTS: [], _OPERATOR: [], _DOMAIN: []}
        attributes: Dict[str, Any] = {}
        for part in _parts(self.data, field):
            if part.number in names:
                names[part.number].append(_text(self.data, part))
            elif part.number == _ATTRIBUTE:
                name, value = self._attribute(part)
                attributes[name] = value
        # The domain is not part of the name: fdeploy writes no operator name in two domains.
        return Node(
            "".join(names[_OPERATOR]), tuple(names[_INPUTS]), tuple(names[_OUTPUTS]), attributes
        )

    def tensor(self, field: Field) -> Tuple[str, Array]:
        """A tensor's name and numbers, a view of the file unless they are stored as fields.

        Raises ValueError for a type that numpy lacks, and for data in a file other than the graph's
        weights file.
        """
        data = self.data
        parts: Dict[int, List[Field]] = {}
        for part in _parts(data, field):
            parts.setdefault(part.number, []).append(part)
        name = "".join(_text(data, part) for part in parts.get(_NAME, ()))
        shape = [n for part in parts.get(_DIMENSIONS, ()) for n in _numbers(data, part, "")]
        kind = sum(_integer(data, part) for part in parts.get(_DATA_TYPE, ()))
        if kind not in _TYPES:
            raise ValueError(f"the weight {name!r} has a type that fdeploy does not read ({kind})")
        dtype = np.dtype(_TYPES[kind])
        outside = dict(_entries(data, field))
        if outside:
            return name, self._external(outside, dtype).reshape(shape)
        if _RAW in parts:
            raw = parts[_RAW][-1]
            count = (raw.end - raw.content) // dtype.itemsize
            return name, np.frombuffer(data, dtype, count, raw.content).reshape(shape)
        stored = np.uint16 if dtype == np.float16 else dtype  # stored as integers
        numbers = [
            number
            for key, layout in _NUMBERS.items()
            for part in parts.get(key, ())
            for number in _numbers(data, part, layout)
        ]
        return name, np.array(numbers, dtype=stored).view(dtype).reshape(shape)

    def _external(self, entries: Mapping[str, str], dtype: Any) -> Array:
        if entries.get(_LOCATION) != self._outside.name:
            raise ValueError(f"weights are in {entries.get(_LOCATION)!r}, not {self._outside.name}")
        if self._weights is None:
            self._weights = _mapped(self._outside)
        offset, length = (int(entries.get(key, -1)) for key in (_OFFSET, _LENGTH))
        if offset < 0 or length < 0:
            raise ValueError(f"{self._outside.name} is used without offset and length")
        return np.frombuffer(self._weights, dtype, length // dtype.itemsize, offset)

    def _attribute(self, field: Field) -> Tuple[str, Any]:
        """An attribute's name and value: a number, text, array, or list of numbers or texts."""
        read: Dict[int, Callable[[Field], Any]] = {
            2: lambda part: float(_numbers(self.data, part, "<f")[0]),
            3: lambda part: _integer(self.data, part),
            4: lambda part: _text(self.data, part),
            5: lambda part: self.tensor(part)[1],
        }
        lists: Dict[int, Callable[[Field], List[Any]]] = {
            7: lambda part: _numbers(self.data, part, "<f"),
            8: lambda part: _numbers(self.data, part, ""),
            9: lambda part: [_text(self.data, part)],
        }
        name, value = "", None
        for part in _parts(self.data, field):
            if part.number == 1:
                name = _text(self.data, part)
            elif part.number in read:
                value = read[part.number](part)
            elif part.number in lists:
                value = [*(value or []), *lists[part.number](part)]
        return name, value


def _tensors(data: Data, message: str, parts: Iterator[Field]) -> Iterator[Field]:
    """The tensors in a message, at any depth."""
    for part in parts:
        kind = _WITHIN[message].get(part.number) if part.kind == _BYTES else None
        if kind == "tensor":
            yield part
        elif kind is not None:
            yield from _tensors(data, kind, _parts(data, part))


def _entries(data: Data, tensor: Field) -> Iterator[Tuple[str, str]]:
    """The external data entries of a tensor: every key and value, duplicates included."""
    for part in _parts(data, tensor):
        if part.number == _EXTERNAL and part.kind == _BYTES:
            found: Dict[int, List[str]] = {_KEY: [], _VALUE: []}
            for each in _parts(data, part):
                found.setdefault(each.number, []).append(_text(data, each))
            for key in found[_KEY]:
                yield from ((key, value) for value in found[_VALUE])


def fields(data: Data, start: int = 0, end: Optional[int] = None) -> Iterator[Field]:
    """The fields of the message from ``start`` to ``end``. Raises ValueError if it is malformed."""
    end = len(data) if end is None else end
    while start < end:
        tag, content = _varint(data, start)
        if tag > _LARGEST_TAG:  # protobuf would use its lower bits
            raise ValueError("a field number is too large")
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, stop = _varint(data, content)
        elif kind == _BYTES:
            size, content = _varint(data, content)
            stop = content + size
        elif kind in _SIZES:
            stop = content + _SIZES[kind]
        else:
            raise ValueError("a field has an unknown wire type")
        if stop > end:
            raise ValueError("a field extends beyond its message")
        yield Field(number, kind, content, stop)
        start = stop


def _varint(data: Data, position: int) -> Tuple[int, int]:
    """A varint (seven bits per byte) and the position after it. Raises ValueError."""
    number = shift = 0
    while position < len(data) and shift <= _MOST_BITS:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follow
            return number, position
    raise ValueError("a varint is too long or incomplete")


def _parts(data: Data, field: Field) -> Iterator[Field]:
    return fields(data, field.content, field.end)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _text(data: Data, field: Field) -> str:
    return bytes(data[field.content : field.end]).decode("utf-8")


def _integer(data: Data, field: Field) -> int:
    return int(_numbers(data, field, "")[0])


def _numbers(data: Data, field: Field, layout: str) -> List[Any]:
    """The numbers of a field, single or packed; ``layout`` is a struct format, "" for varints."""
    if layout:
        return [number for (number,) in struct.iter_unpack(layout, data[field.content : field.end])]
    found = []
    position = field.content
    while position < field.end:
        number, position = _varint(data, position)
        found.append(number - (1 << 64) if number >> 63 else number)
    return found

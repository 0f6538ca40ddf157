"""The fields of a protobuf message, one after the other, without a schema and without a copy.

Source: "Encoding" in the protocol buffers documentation.
"""

from __future__ import annotations

import mmap
from typing import Iterator, NamedTuple, Optional, Tuple, Union

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
_SIZES = {FIXED_64: 8, FIXED_32: 4}
_MOST_BITS = 63  # by which the last seven bits of a number are moved

Data = Union[bytes, mmap.mmap]


class Field(NamedTuple):
    """A field: its tag is at ``start``; what it holds goes from ``content`` to ``end``."""

    number: int
    kind: int
    start: int
    content: int
    end: int


def fields(data: Data, start: int = 0, end: Optional[int] = None) -> Iterator[Field]:
    """The fields of the message from ``start`` to ``end``. Raises ValueError for what is none."""
    end = len(data) if end is None else end
    while start < end:
        tag, content = varint(data, start)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, stop = varint(data, content)
        elif kind == BYTES:
            size, content = varint(data, content)
            stop = content + size
        elif kind in _SIZES:
            stop = content + _SIZES[kind]
        else:
            raise ValueError("a field is of an unknown kind")
        if stop > end:
            raise ValueError("a field goes on behind its message")
        yield Field(number, kind, start, content, stop)
        start = stop


def varint(data: Data, position: int) -> Tuple[int, int]:
    """A number of seven bits a byte, and where it ends. Raises ValueError."""
    number = shift = 0
    while position < len(data) and shift <= _MOST_BITS:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follow
            return number, position
    raise ValueError("a number is too long, or has no end")

"""The table of opcodes, and reading the numbers that follow them in the stream.

The semantics are those of Python's ``pickletools``, for protocols 0 to 5. Numbers given to
``spend`` are bytes on 64-bit CPython, rounded up.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from fastai_deploy.learner.reading.state import PickleState

Handler = Callable[[PickleState], None]
Length = Callable[[PickleState], int]
HANDLERS: dict[int, Handler] = {}

_U16, _I32, _U32 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I")
_U64 = struct.Struct("<Q")


def opcode(code: bytes) -> Callable[[Handler], Handler]:
    """Register the handler of an opcode."""

    def register(handler: Handler) -> Handler:
        HANDLERS[code[0]] = handler
        return handler

    return register


def u8(state: PickleState) -> int:
    """An unsigned number of 1 byte."""
    return state.stream.byte()


def u16(state: PickleState) -> int:
    """An unsigned number of 2 bytes."""
    number: int = _U16.unpack(state.stream.read(2))[0]
    return number


def i32(state: PickleState) -> int:
    """A signed number of 4 bytes."""
    number: int = _I32.unpack(state.stream.read(4))[0]
    return number


def u32(state: PickleState) -> int:
    """An unsigned number of 4 bytes."""
    number: int = _U32.unpack(state.stream.read(4))[0]
    return number


def u64(state: PickleState) -> int:
    """An unsigned number of 8 bytes."""
    number: int = _U64.unpack(state.stream.read(8))[0]
    return number


def decimal(state: PickleState, *, suffix: bytes = b"") -> int:
    """A whole number in decimal digits, on a line of its own."""
    line = state.stream.line(state.limits.digits).removesuffix(suffix)
    state.spend(32 + len(line))
    try:
        return int(line)
    except ValueError:
        state.damaged("a number is expected")


def check_size(state: PickleState, size: int) -> None:
    """Refuse a value that claims more bytes than there are."""
    if size < 0 or size > state.stream.left:
        state.damaged(f"a value of {size} bytes, but the file holds fewer")

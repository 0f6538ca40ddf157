"""Opcodes that push one value: constants, numbers, text and bytes."""

from __future__ import annotations

import codecs
import struct
import sys

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.reading.registry import (
    Length,
    check_size,
    decimal,
    i32,
    opcode,
    u8,
    u16,
    u32,
    u64,
)
from fastai_deploy.learner.reading.state import PickleState
from fastai_deploy.learner.reading.values import Blob

BLOB_FROM = 1 << 16  # bytes; shorter ones are held, longer ones are left in the file
_FLOAT = struct.Struct(">d")


def _constant(code: bytes, value: object) -> None:
    opcode(code)(lambda state: state.stack.append(value))


_constant(b"N", None)
_constant(b"\x88", True)  # noqa: FBT003 - the value that the opcode pushes
_constant(b"\x89", False)  # noqa: FBT003 - the value that the opcode pushes
_constant(b")", ())


def _number(code: bytes, read: Length) -> None:
    def push(state: PickleState) -> None:
        state.spend(32)
        state.stack.append(read(state))

    opcode(code)(push)


_number(b"K", u8)
_number(b"M", u16)
_number(b"J", i32)


@opcode(b"G")
def _binfloat(state: PickleState) -> None:
    state.spend(24)
    state.stack.append(_FLOAT.unpack(state.stream.read(8))[0])


def _long(code: bytes, length: Length) -> None:
    def push(state: PickleState) -> None:
        size = length(state)
        if not 0 <= size <= state.limits.digits:
            state.damaged(f"a whole number of {size} bytes")
        state.spend(32 + 2 * size)
        state.stack.append(int.from_bytes(state.stream.read(size), "little", signed=True))

    opcode(code)(push)


_long(b"\x8a", u8)
_long(b"\x8b", i32)


@opcode(b"I")
def _int(state: PickleState) -> None:
    before = state.stream.offset
    value = decimal(state)
    is_flag = state.stream.offset - before == 3 and value in (0, 1)  # noqa: PLR2004 - "00\n", "01\n"
    state.stack.append(bool(value) if is_flag else value)


@opcode(b"L")
def _text_long(state: PickleState) -> None:
    state.stack.append(decimal(state, suffix=b"L"))


@opcode(b"F")
def _text_float(state: PickleState) -> None:
    state.spend(24)
    try:
        state.stack.append(float(state.stream.line(state.limits.digits)))
    except ValueError:
        state.damaged("a number is expected")


def _push_text(state: PickleState, data: bytes, encoding: str, errors: str = "strict") -> None:
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError:
        state.damaged("text that is not Unicode")
    state.spend(sys.getsizeof(text))
    state.stack.append(text)


def _text(code: bytes, length: Length) -> None:
    def push(state: PickleState) -> None:
        size = length(state)
        check_size(state, size)
        state.spend(size)
        _push_text(state, state.stream.read(size), "utf-8", "surrogatepass")

    opcode(code)(push)


_text(b"\x8c", u8)
_text(b"X", u32)
_text(b"\x8d", u64)


def _bytes(code: bytes, length: Length) -> None:
    def push(state: PickleState) -> None:
        size = length(state)
        check_size(state, size)
        if size >= BLOB_FROM:
            state.spend(120)
            state.stack.append(Blob(state.stream.source, state.stream.offset, size))
            state.stream.skip(size)
        else:
            state.spend(40 + size)
            state.stack.append(state.stream.read(size))

    opcode(code)(push)


_bytes(b"C", u8)
_bytes(b"B", u32)
_bytes(b"\x8e", u64)
_bytes(b"\x96", u64)  # BYTEARRAY8


def _python2_text(code: bytes, length: Length) -> None:
    def push(state: PickleState) -> None:
        size = length(state)
        check_size(state, size)
        state.spend(size)
        _push_text(state, state.stream.read(size), "latin-1")

    opcode(code)(push)


_python2_text(b"U", u8)
_python2_text(b"T", i32)


@opcode(b"S")
def _string(state: PickleState) -> None:
    line = state.stream.line(state.limits.line).strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"\"'":  # noqa: PLR2004 - two quotes
        state.damaged("a text without quotes")
    try:
        data = codecs.escape_decode(line[1:-1])[0]
    except ValueError:
        state.damaged("a text with a wrong escape")
    _push_text(state, data, "latin-1")


@opcode(b"V")
def _unicode(state: PickleState) -> None:
    _push_text(state, state.stream.line(state.limits.line), "raw-unicode-escape")


@opcode(b"\x97")
def _next_buffer(_state: PickleState) -> None:
    raise UnsupportedLearner(
        "the pickle keeps its data in buffers outside the file",
        hint="call learn.export() again, without a pickle module of your own",
    )


@opcode(b"\x98")
def _readonly_buffer(state: PickleState) -> None:
    state.top()

"""Read one pickle, opcode by opcode, into a graph. Nothing is imported and nothing is called.

``pickletools`` lists the opcodes and decodes their arguments. This module adds what each opcode
does to the stack, and the bounds, because ``pickletools`` has none: a size is compared with the
rest of the file before memory is allocated, lines have a maximum length, and ``Limits`` bounds the
number of opcodes and the memory of the graph. Nothing recurses, so any depth of nesting is fine.
"""

from __future__ import annotations

import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from types import MappingProxyType
from typing import Any, NoReturn

from fastai_deploy.errors import DangerousLearner, LearnerTooComplex, UnsupportedLearner
from fastai_deploy.learner.reading.graph import (
    Blob,
    Call,
    Global,
    Mapping,
    Pairs,
    Persistent,
    Sequence,
)
from fastai_deploy.learner.reading.sources import Stream, truncated

HIGHEST_PROTOCOL = 5
FIRST_PYTHON3_PROTOCOL = 3
MAX_NAME = 1_024  # bytes of the name of a module or class
MAX_LINE = 1 << 20  # bytes of a string in protocol 0, which ends at a newline
MAX_DIGITS = 300  # of an integer; no number in a learner has more than 20
BLOB_FROM = 1 << 16  # bytes; shorter ones are read into memory, longer ones stay in the file

PersistentLoad = Callable[[object], object]


@dataclass(frozen=True)
class Limits:
    """Limits that no real learner reaches.

    ``steps`` counts opcodes: a RoBERTa learner with its slow tokenizer has about 700,000, and a v2
    learner adds two for each row of its training table. ``memory`` is an upper estimate of the size
    of the graph in bytes, updated while it is built; the size of the pickle is added.
    """

    steps: int = 20_000_000
    memory: int = 512 << 20


def limits_of(size: int) -> Limits:
    """The limits for a file of ``size`` bytes: reading takes at most a second per megabyte.

    The learners in the tests have up to 0.14 steps and 13 bytes of graph per byte; learners with
    weights of normal size have a hundredth of that. The constant parts allow for small compressed
    files, where a pickle shrinks to a tenth.
    """
    most = Limits()
    return replace(
        most,
        steps=min(most.steps, 250_000 + 7 * size // 20),
        memory=min(most.memory, (64 << 20) + 16 * size),
    )


@dataclass(frozen=True, eq=False, repr=False)
class Pickled:
    """One pickle, read.

    ``root`` is what loading would return. ``globals`` counts each name that loading would import,
    ``calls`` lists each call that it would make, in order, even if its result is discarded, and
    ``patched`` lists the imported names on which it would set attributes. ``start`` and ``end`` are
    offsets in the source.
    """

    root: object
    globals: dict[Global, int]
    calls: list[Call]
    patched: list[Global]
    protocol: int
    start: int
    end: int


def read_pickle(
    stream: Stream,
    *,
    persistent_load: PersistentLoad = Persistent,
    limits: Limits | None = None,
) -> Pickled:
    """Read the pickle at the stream's position, and leave the stream after it.

    ``persistent_load`` returns the value of a persistent id.
    Raises LearnerTruncated, LearnerTooComplex, DangerousLearner or UnsupportedLearner.
    """
    limits = limits or Limits()
    start = stream.offset
    machine = PickleMachine(stream, persistent_load, limits)
    next_byte, opcodes = stream.next_byte, dict(OPCODES)
    for _ in range(limits.steps):
        code = next_byte(1)
        opcode = opcodes.get(code)
        if opcode is None:
            break
        step, read_argument = opcode
        if read_argument is None:
            step(machine)
            continue
        try:
            argument = read_argument(stream)
        except (ValueError, Warning):  # a wrong escape in a string is a DeprecationWarning
            machine.damaged(f"what follows opcode 0x{code.hex()} cannot be read")
        step(machine, argument)
    else:
        raise LearnerTooComplex(
            f"the pickle has more than {limits.steps:,} steps, more than any learner needs",
            hint="the file is damaged or malicious; export the learner again",
        )
    if not code:
        raise truncated("the file ends in the middle of the pickle")
    if code != STOP:
        machine.damaged(f"opcode 0x{code.hex()} does not exist")
    return Pickled(
        root=machine.pop(),
        globals=machine.globals,
        calls=machine.calls,
        patched=machine.patched,
        protocol=machine.protocol,
        start=start,
        end=stream.offset,
    )


class PickleMachine:
    """The stack, marks and memo of one pickle, and what it would import and call.

    Picklers number memo entries from 0; ``far`` holds those that a file numbers otherwise. Sizes
    passed to ``spend`` and ``push`` are bytes in 64-bit CPython, rounded up.
    """

    __slots__ = (
        "_left",
        "calls",
        "far",
        "globals",
        "marks",
        "memo",
        "patched",
        "persistent_load",
        "protocol",
        "stack",
        "stream",
    )

    def __init__(self, stream: Stream, persistent_load: PersistentLoad, limits: Limits) -> None:
        self.stream = stream
        self.persistent_load = persistent_load
        self.protocol = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: list[object] = []
        self.far: dict[int, object] = {}
        self.globals: dict[Global, int] = {}
        self.calls: list[Call] = []
        self.patched: list[Global] = []
        self._left = limits.memory + stream.source.size

    def spend(self, size: int) -> None:
        """Count ``size`` bytes of memory. Raises LearnerTooComplex."""
        self._left -= size
        if self._left < 0:
            raise LearnerTooComplex(
                "reading the file would take more memory than any learner needs",
                hint="the file is damaged or malicious; export the learner again",
            )

    def damaged(self, what: str) -> NoReturn:
        """Raise LearnerTruncated for a stream that no pickler writes."""
        raise truncated(f"the pickle is damaged near byte {self.stream.offset}: {what}")

    def push(self, value: object, size: int) -> None:
        """Push a value of ``size`` bytes."""
        self.spend(size)
        self.stack.append(value)

    def pop(self) -> object:
        """Pop the top of the stack."""
        stack = self.stack
        if len(stack) <= (self.marks[-1] if self.marks else 0):
            self.damaged("a value is missing")
        return stack.pop()

    def pop_tuple(self) -> tuple[object, ...]:
        """Pop the top of the stack, which must be a tuple."""
        value = self.pop()
        if not isinstance(value, tuple):
            self.damaged("the arguments of a call are not a tuple")
        return value

    def pop_mark(self) -> list[object]:
        """Pop everything above the last mark, and the mark."""
        if not self.marks:
            self.damaged("a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self) -> object:
        """The top of the stack, without popping it."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.damaged("a value is missing")
        return self.stack[-1]

    def push_global(self, names: tuple[str, str]) -> None:
        """Push and record a global that would be imported: its module and name.

        Protocols below 3 use the names of Python 2; they are mapped to today's, as in Python's
        unpickler.
        """
        module, name = names
        if self.protocol < FIRST_PYTHON3_PROTOCOL:
            module, name = NAME_MAPPING.get(names, (IMPORT_MAPPING.get(module, module), name))
        found = Global(module, name)
        self.globals[found] = self.globals.get(found, 0) + 1
        self.push(found, 320)

    def push_call(
        self, func: object, args: tuple[object, ...], kwargs: object = None, *, new: bool = False
    ) -> None:
        """Push and record a call that would be made."""
        self.spend(400)  # the record and its three lists
        call = Call(func, args, kwargs, new=new)
        self.calls.append(call)
        self.stack.append(call)

    def add_items(self, items: list[object]) -> None:
        """Append to the list or set on top of the stack, or an instance of a subclass."""
        target = self.top()
        if not isinstance(target, (Sequence, Call)):
            self.damaged("items are added to something that is not a list or set")
        self.spend(10 * len(items))
        target.items.extend(items)

    def set_items(self, items: list[object]) -> None:
        """Set keys of the dict on top of the stack, or an instance of a subclass."""
        target = self.top()
        if not isinstance(target, (Mapping, Call)) or len(items) % 2:
            self.damaged("a key has no value")
        self.spend(42 * len(items))
        pairs: Pairs = list(zip(items[::2], items[1::2], strict=True))  # without over-allocation
        target.pairs.extend(pairs)

    def remember(self, index: int) -> None:
        """Store the top of the stack in the memo."""
        self.spend(130)
        memo, value = self.memo, self.top()
        if index == len(memo):
            memo.append(value)
            self.far.pop(index, None)
        elif 0 <= index < len(memo):
            memo[index] = value
        else:
            self.far[index] = value

    def recall(self, index: int) -> None:
        """Push a value from the memo."""
        if 0 <= index < len(self.memo):
            self.stack.append(self.memo[index])
        elif index in self.far:
            self.stack.append(self.far[index])
        else:
            self.damaged(f"memo entry {index} does not exist")


# What the opcodes do; those with an argument receive it. Short ones are in ``_STEPS`` itself.

Step = Callable[..., object]


def _constant(value: object) -> Step:
    return lambda machine: machine.stack.append(value)


def _push_value(machine: PickleMachine, value: object) -> None:
    machine.push(value, sys.getsizeof(value))


def _push_bytes(machine: PickleMachine, value: bytes | Blob) -> None:
    machine.push(value, 120 if isinstance(value, Blob) else 40 + len(value))


def _mark(machine: PickleMachine) -> None:
    machine.spend(40)
    machine.marks.append(len(machine.stack))


def _pop(machine: PickleMachine) -> None:
    if len(machine.stack) > (machine.marks[-1] if machine.marks else 0):
        machine.stack.pop()
    else:
        machine.pop_mark()


def _tuple(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    machine.push(tuple(items), 56 + 8 * len(items))


def _tuple2(machine: PickleMachine) -> None:
    second, first = machine.pop(), machine.pop()
    machine.push((first, second), 64)


def _tuple3(machine: PickleMachine) -> None:
    third, second, first = machine.pop(), machine.pop(), machine.pop()
    machine.push((first, second, third), 72)


def _list(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    machine.push(Sequence("list", items), 140 + 8 * len(items))


def _frozenset(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    machine.push(Sequence("frozenset", items), 140 + 8 * len(items))


def _dict(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    machine.push(Mapping([]), 140)
    machine.set_items(items)


def _setitem(machine: PickleMachine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _stack_global(machine: PickleMachine) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        machine.damaged("a name is not text")
    if len(name) + len(module) > MAX_NAME:
        machine.damaged("a name is too long")
    machine.push_global((module, name))


def _reduce(machine: PickleMachine) -> None:
    args, func = machine.pop_tuple(), machine.pop()
    machine.push_call(func, args)


def _newobj(machine: PickleMachine) -> None:
    args, cls = machine.pop_tuple(), machine.pop()
    machine.push_call(cls, args, new=True)


def _newobj_ex(machine: PickleMachine) -> None:
    kwargs, args, cls = machine.pop(), machine.pop_tuple(), machine.pop()
    machine.push_call(cls, args, kwargs, new=True)


def _inst(machine: PickleMachine, name: tuple[str, str]) -> None:
    args = tuple(machine.pop_mark())
    machine.push_global(name)
    machine.push_call(machine.pop(), args)


def _obj(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    if not items:
        machine.damaged("a class is missing")
    machine.push_call(items[0], tuple(items[1:]))


def _build(machine: PickleMachine) -> None:
    value, target = machine.pop(), machine.top()
    machine.spend(16)
    if isinstance(target, Global):
        machine.patched.append(target)
    elif isinstance(target, Call):
        target.states.append(value)
    else:
        machine.damaged("attributes are set on something that is not an object")


def _persistent(machine: PickleMachine, pid: object) -> None:
    machine.push(machine.persistent_load(pid), 120)


def _extension(machine: PickleMachine) -> None:
    raise DangerousLearner(
        "the pickle asks for an extension of the running program "
        f"(byte {machine.stream.offset}), which no learner does; fdeploy ran nothing",
        hint="do not load this file; find out where it comes from",
    )


def _next_buffer(_machine: PickleMachine) -> None:
    raise UnsupportedLearner(
        "the pickle stores its data in buffers outside the file",
        hint="call learn.export() again, without a custom pickle_module",
    )


def _proto(machine: PickleMachine, protocol: int) -> None:
    if protocol > HIGHEST_PROTOCOL:
        machine.damaged(f"pickle protocol {protocol} does not exist")
    machine.protocol = protocol


_STEPS: dict[str, Step] = {
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2"), _push_value),
    **dict.fromkeys(("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _push_value),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _push_value),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push_value),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push_bytes),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),  # noqa: FBT003 - the value that the opcode pushes
    "NEWFALSE": _constant(False),  # noqa: FBT003 - the value that the opcode pushes
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": PickleMachine.pop_mark,
    "DUP": lambda machine: machine.push(machine.top(), 9),
    "EMPTY_TUPLE": _constant(()),
    "TUPLE": _tuple,
    "TUPLE1": lambda machine: machine.push((machine.pop(),), 56),
    "TUPLE2": _tuple2,
    "TUPLE3": _tuple3,
    "EMPTY_LIST": lambda machine: machine.push(Sequence("list", []), 140),
    "LIST": _list,
    "APPEND": lambda machine: machine.add_items([machine.pop()]),
    "APPENDS": lambda machine: machine.add_items(machine.pop_mark()),
    "EMPTY_SET": lambda machine: machine.push(Sequence("set", []), 140),
    "ADDITEMS": lambda machine: machine.add_items(machine.pop_mark()),
    "FROZENSET": _frozenset,
    "EMPTY_DICT": lambda machine: machine.push(Mapping([]), 140),
    "DICT": _dict,
    "SETITEM": _setitem,
    "SETITEMS": lambda machine: machine.set_items(machine.pop_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleMachine.remember),
    "MEMOIZE": lambda machine: machine.remember(len(machine.memo) + len(machine.far)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleMachine.recall),
    "GLOBAL": PickleMachine.push_global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _newobj,
    "NEWOBJ_EX": _newobj_ex,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": _build,
    "PERSID": _persistent,
    "BINPERSID": lambda machine: _persistent(machine, machine.pop()),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    "NEXT_BUFFER": _next_buffer,
    "READONLY_BUFFER": PickleMachine.top,
    "PROTO": _proto,
    "FRAME": lambda machine, size: machine.stream.check_left(size),
}


# How arguments are read. ``pickletools`` decodes lines that are cut out here, and everything else
# from a stream that bounds what it asks for. The exceptions are read here: names, which older
# Pythons decode as ASCII with escapes, so the name shown would not be the one that is imported;
# whole numbers (LONG4), which could have any size; and long bytes, which can stay in the file.

ReadArgument = Callable[[Any], Any]


def _name(stream: Stream) -> str:
    return stream.line(MAX_NAME)[:-1].decode("utf-8")


def _two_names(stream: Stream) -> tuple[str, str]:
    return _name(stream), _name(stream)


def _long4(stream: Stream) -> int:
    size = int.from_bytes(stream.read(4), "little", signed=True)
    if not 0 <= size <= MAX_DIGITS:
        raise ValueError(size)
    return int.from_bytes(stream.read(size), "little", signed=True)


def _long_bytes(read_size: ReadArgument) -> ReadArgument:
    def read(stream: Stream) -> bytes | Blob:
        size = read_size(stream)
        if size < BLOB_FROM:
            return stream.read(size)
        return Blob(stream.source, stream.skip(size).start, size)

    return read


def _of_line(read: ReadArgument, limit: int) -> ReadArgument:
    return lambda stream: read(BytesIO(stream.line(limit)))


_READERS: dict[str, ReadArgument | None] = {
    **dict.fromkeys(("GLOBAL", "INST"), _two_names),
    "PERSID": _name,
    "LONG4": _long4,
    "BINBYTES": _long_bytes(pickletools.read_uint4),
    **dict.fromkeys(("BINBYTES8", "BYTEARRAY8"), _long_bytes(pickletools.read_uint8)),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), None),  # refused before it is read
}


def _argument_reader(opcode: pickletools.OpcodeInfo) -> ReadArgument | None:
    """The function that reads an opcode's argument; None if it has none."""
    if opcode.name in _READERS or opcode.arg is None:
        return _READERS.get(opcode.name)
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        is_text = opcode.name in {"STRING", "UNICODE"}
        return _of_line(opcode.arg.reader, MAX_LINE if is_text else MAX_DIGITS)
    return opcode.arg.reader


STOP = b"."
# By opcode byte: what it does, and what reads its argument.
OPCODES = MappingProxyType(
    {
        opcode.code.encode("latin-1"): (_STEPS[opcode.name], _argument_reader(opcode))
        for opcode in pickletools.opcodes
        if opcode.name in _STEPS
    }
)

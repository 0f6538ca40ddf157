"""Code objects of a pickle, and their bytecode as instructions.

Python's own ``dis`` reads only the bytecode of the Python that runs it. This module reads that of
Python 3.8 to 3.14, whichever Python runs fdeploy.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fastai_deploy.learner.code.opcodes import OPCODES, VERSIONS
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import data

Version = tuple[int, int]

MAX_CODE: Final = 1 << 16  # bytes of bytecode; the longest forward() of a learner has a few hundred
MAX_NAMES: Final = 1_000  # constants, names and variables of a function, each
MAX_NAME: Final = 255  # characters of a name
_ARGUMENTS_38: Final = 16  # of CodeType, from Python 3.8 to 3.10
_ARGUMENTS_311: Final = 18  # from Python 3.11 on
_RESUME: Final = {0x97: ((3, 11), (3, 12)), 0x95: ((3, 13),), 0x80: ((3, 14),)}
_FIRST_WITH_CACHES: Final = (3, 11)
_CACHES_OF_LOAD_ATTR: Final = 9
_BEFORE_RESUME: Final = frozenset({"COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP"})
_PATH: Final = re.compile(r"python(3)\.(\d{1,2})\b")


class InvalidBytecode(Exception):
    """The bytes are not what this version of Python would run."""


@dataclass(frozen=True, eq=False, repr=False)
class CodeObject:
    """The parts of a code object; ``code``, ``lines`` and ``exceptions`` are CPython's own tables.

    ``constants`` are the values of the pickle's graph, or Python's own for compiled source.
    """

    name: str
    file: str
    positional: int
    positional_only: int
    keyword_only: int
    flags: int
    code: bytes
    constants: tuple[object, ...]
    names: tuple[str, ...]
    variables: tuple[str, ...]
    cells: tuple[str, ...]
    free: tuple[str, ...]
    first_line: int
    exceptions: bytes
    new_form: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, ``*args`` and ``**kwargs`` left out."""
        return self.variables[: self.positional + self.keyword_only]

    @property
    def fast(self) -> tuple[str, ...]:
        """Variables, cells and free variables in the order of Python 3.11's frame."""
        more = tuple(name for name in self.cells if name not in self.variables)
        return (*self.variables, *more, *self.free)


@dataclass(frozen=True)
class Instruction:
    """An instruction at ``offset``; the one behind it begins at ``following`` (both in bytes)."""

    offset: int
    name: str
    argument: int
    following: int


def code_object(value: object) -> CodeObject | None:
    """The code object in a pickle's graph, or one that Python compiled; None for anything else."""
    if isinstance(value, types.CodeType):
        return _compiled(value)
    counts = (_ARGUMENTS_38, _ARGUMENTS_311)
    return _pickled(value.args) if isinstance(value, Call) and len(value.args) in counts else None


def _pickled(args: tuple[object, ...]) -> CodeObject | None:
    new_form = len(args) == _ARGUMENTS_311
    match args[:12]:
        case (
            int(positional), int(only), int(keywords), int(), int(), int(flags), raw,
            tuple(constants), tuple(names), tuple(variables), str(file), str(name),
        ):  # fmt: skip
            rest = args[12:]
        case _:
            return None
    if new_form:
        _, first_line, _, exceptions, free, cells = rest
    else:
        first_line, _, free, cells = rest
        exceptions = b""
    code, table = _bytes(raw), _bytes(exceptions)
    named, local, outer, inner = (_texts(part) for part in (names, variables, free, cells))
    if code is None or table is None or len(constants) > MAX_NAMES:
        return None
    if named is None or local is None or outer is None or inner is None:
        return None
    counts = (positional, only, keywords)
    if not isinstance(first_line, int) or min(counts) < 0 or positional + keywords > len(local):
        return None
    return CodeObject(
        name, file, positional, only, keywords, flags, code, constants, named, local, inner, outer,
        first_line, table, new_form,
    )  # fmt: skip


def _compiled(code: types.CodeType) -> CodeObject:
    return CodeObject(
        code.co_name, code.co_filename, code.co_argcount, code.co_posonlyargcount,
        code.co_kwonlyargcount, code.co_flags, code.co_code, code.co_consts, code.co_names,
        code.co_varnames, code.co_cellvars, code.co_freevars, code.co_firstlineno,
        getattr(code, "co_exceptiontable", b""), hasattr(code, "co_exceptiontable"),
    )  # fmt: skip


def _bytes(value: object) -> bytes | None:
    if isinstance(value, Call) and value.func != Global("_codecs", "encode"):
        return b"" if value.func == Global("builtins", "bytes") and not value.args else None
    if isinstance(value, Call) and len(str(value.args[:1])) > 8 * MAX_CODE:
        return None
    found = data(value) if isinstance(value, (bytes, Call)) else None
    return found if found is not None and len(found) <= MAX_CODE else None


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, tuple) or len(value) > MAX_NAMES:
        return None
    return value if all(isinstance(e, str) and len(e) <= MAX_NAME for e in value) else None


def versions_of(codes: Iterable[CodeObject]) -> tuple[Version, ...]:
    """The Pythons that may have written these functions, which are all of one file.

    A path such as ``lib/python3.11/`` in one of them settles it. Otherwise their instructions leave
    one version, a few that do not differ in them, or none.
    """
    candidates = set(VERSIONS)
    for code in codes:
        named = _PATH.search(code.file[:MAX_NAMES])
        if named is not None:
            return ((int(named[1]), int(named[2])),)
        candidates &= set(_possible(code))
    return tuple(sorted(candidates))


def _possible(code: CodeObject) -> Iterator[Version]:
    for version in VERSIONS:
        if (version >= _FIRST_WITH_CACHES) != code.new_form:
            continue
        try:
            instructions = decode(code, version)
        except InvalidBytecode:
            continue
        names = {each.name for each in instructions}
        if version == (3, 11) and "CALL" in names and "PRECALL" not in names:
            continue
        if version >= _FIRST_WITH_CACHES and not (
            _resumes(code.code, version) and _has_caches(instructions, version)
        ):
            continue
        yield version


def _has_caches(instructions: Sequence[Instruction], version: Version) -> bool:
    """Whether LOAD_ATTR has room for its caches: 9 since Python 3.12, and 4 in Python 3.11.

    Source: ``opcode._inline_cache_entries``.
    """
    attributes = [each for each in instructions if each.name == "LOAD_ATTR"]
    long = [each.following - each.offset > 2 * _CACHES_OF_LOAD_ATTR for each in attributes]
    return all(long) if version > _FIRST_WITH_CACHES else not any(long)


def _resumes(code: bytes, version: Version) -> bool:
    table = OPCODES[version]
    for number in code[::2]:
        name = table.get(number)
        if name in _BEFORE_RESUME:
            continue
        return version in _RESUME.get(number, ())
    return False


def decode(code: CodeObject, version: Version) -> tuple[Instruction, ...]:
    """The instructions, as ``version`` would run them. Raises InvalidBytecode."""
    table = OPCODES.get(version)
    if table is None or len(code.code) % 2:
        raise InvalidBytecode(f"no bytecode of Python {version}")
    found: list[Instruction] = []
    extended, begin = 0, None
    raw = code.code
    offset = 0
    while offset < len(raw):
        name = table.get(raw[offset])
        if name is None:
            raise InvalidBytecode(f"opcode {raw[offset]} of Python {version}")
        begin = offset if begin is None else begin
        argument = extended << 8 | raw[offset + 1]
        offset += 2
        if name == "EXTENDED_ARG":
            extended = argument
            continue
        if version >= _FIRST_WITH_CACHES:
            while offset < len(raw) and table.get(raw[offset]) == "CACHE":
                offset += 2
        found.append(Instruction(begin, name, argument, offset))
        extended, begin = 0, None
    return tuple(found)


def jump_target(instruction: Instruction, version: Version) -> int:
    """The offset in bytes that a jump leads to."""
    absolute = version < _FIRST_WITH_CACHES and instruction.name != "JUMP_FORWARD"
    unit = 1 if version < (3, 10) else 2
    base = 0 if absolute else instruction.following
    distance = unit * instruction.argument
    return base - distance if "BACKWARD" in instruction.name else base + distance


def handlers(code: CodeObject) -> tuple[int, ...]:
    """The offsets in bytes of the exception handlers of Python 3.11 and later.

    Raises InvalidBytecode for a damaged table. Source: Objects/exception_handling_notes.txt.
    """
    found: list[int] = []
    values = _varints(code.exceptions)
    while True:
        try:
            next(values)
        except StopIteration:
            return tuple(found)
        try:
            _length, target, _depth = next(values), next(values), next(values)
        except StopIteration as error:
            raise InvalidBytecode("exception table") from error
        found.append(target * 2)


def _varints(table: Sequence[int]) -> Iterator[int]:
    position = 0
    while position < len(table):
        value = table[position] & 63
        while table[position] & 64:
            position += 1
            if position >= len(table):
                raise InvalidBytecode("exception table")
            value = value << 6 | table[position] & 63
        position += 1
        yield value

"""Code that a pickle carries: functions and classes that cloudpickle stored by value.

Only its tables are looked at (constants, names, file); the bytecode is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import attribute, data, named_entries

# What is looked at; real learners stay far below, and a hostile file may share one large tuple.
MAX_FUNCTIONS = 10_000
MAX_NAMES = 1_000  # constants, names and variables of one function, each
MAX_CODE = 1 << 16  # bytes of bytecode
MOST_WITHIN = 50  # functions within one, which a method of a callback has few of
MAKERS = ("_make_function", "_make_skel_func")
_MOST_ARGUMENTS = 20
_ARGUMENTS_311 = 18  # of CodeType, from Python 3.11 on; 16 before
_RESUME = {0x97: "3.11 or 3.12", 0x95: "3.13", 0x80: "3.14"}  # the first opcode of a function
_COMPARE = {"3.13": 0x3A, "3.14": 0x38}  # COMPARE_OP; before 3.13 it is 0x6B
_COMPARE_BEFORE = 0x6B
_COPY_FREE_VARS, _MAKE_CELL = 0x95, 0x87  # may come before RESUME in 3.11 and 3.12


@dataclass(frozen=True)
class Code:
    """The tables of one function: the texts and numbers in its constants, and the names it uses.

    ``operations`` are the numbers of its instructions in order, without the places that Python 3.11
    and later leave between them.
    """

    name: str
    arguments: tuple[str, ...]
    texts: frozenset[str]
    numbers: tuple[int, ...]
    keywords: frozenset[str]
    names: frozenset[str]
    compares: bool
    python: str
    operations: bytes = b""


def functions(calls: Iterable[Call]) -> Iterator[Code]:
    """Every function stored by value."""
    made = (call for call in calls if isinstance(call.func, Global) and call.func.name in MAKERS)
    for call in islice(made, MAX_FUNCTIONS):
        code = read_code(call)
        if code is not None:
            yield code


def class_bodies(calls: Iterable[Call]) -> dict[int, dict[str, object]]:
    """Attributes of the classes stored by value, by the identity of the node of the class."""
    bodies: dict[int, dict[str, object]] = {}
    for call in calls:
        match call:
            case Call(func=Global(name="_class_setstate"), args=(cls, (body, *_))):
                bodies[id(cls)] = named_entries(body)
            case Call(func=Global(name="_rehydrate_skeleton_class"), args=(cls, body)):
                bodies[id(cls)] = named_entries(body)
    return bodies


def read_code(value: object) -> Code | None:
    """The code of a function that is stored by value; None for anything else."""
    inner = attribute(value, "_f")  # a function of several signatures (plum) wraps the first
    if inner is not None:
        value = inner
    match value:
        case Call(func=Global(name=name), args=(Call() as code, *_)) if name in MAKERS:
            return _tables(code.args[:_MOST_ARGUMENTS])
    return None


def _tables(args: tuple[object, ...]) -> Code | None:
    raw = next((held for item in args if (held := _bytecode(item)) is not None), None)
    tuples = [item for item in args if isinstance(item, tuple)]
    strings = [item for item in args if isinstance(item, str)]
    if raw is None or len(tuples) < 3 or len(strings) < 2 or not isinstance(args[0], int):  # noqa: PLR2004 - constants, names, variables; file, name
        return None
    constants, names, variables = (found[:MAX_NAMES] for found in tuples[:3])
    python = _python(len(args), raw, strings[0])
    compare = _COMPARE.get(python, _COMPARE_BEFORE)
    return Code(
        name=strings[1],
        arguments=tuple(str(name) for name in variables[: args[0]] if isinstance(name, str)),
        texts=frozenset(_texts(constants)),
        numbers=tuple(item for item in constants if type(item) is int),
        keywords=frozenset(
            text
            for item in constants
            if isinstance(item, tuple)
            for text in item[:MAX_NAMES]
            if isinstance(text, str)
        ),
        names=frozenset(name for name in (*names, *variables) if isinstance(name, str)),
        compares=compare in raw[::2],
        python=python,
        operations=bytes(operation for operation in raw[::2] if operation),
    )


def names_within(function: object) -> frozenset[str]:
    """Names and texts of the functions, classes and comprehensions in a function stored by value.

    No more than ``MOST_WITHIN`` are looked at, so that this stays quick for any file; where there
    are more, ``setattr`` is among the names, because it could be.
    """
    found: set[str] = set()
    waiting = [function]
    for _ in range(MOST_WITHIN):
        if not waiting:
            break
        each = waiting.pop()
        for item in each.args[:_MOST_ARGUMENTS] if isinstance(each, Call) else ():
            if isinstance(item, Call):
                waiting.append(item)
            elif isinstance(item, tuple):
                held = item[:MAX_NAMES]
                waiting.extend(inner for inner in held if isinstance(inner, Call))
                found.update(name for name in held if isinstance(name, str))
    return frozenset(found | {"setattr"} if waiting else found)


def _bytecode(value: object) -> bytes | None:
    """Bytes that are short enough to be a function's."""
    match value:
        case bytes() if len(value) <= MAX_CODE:
            return value
        case Call(func=Global(name="encode"), args=(str(text), *_)) if len(text) <= MAX_CODE:
            return data(value)
    return None


def _texts(constants: tuple[object, ...]) -> Iterator[str]:
    for item in constants:
        for inner in item[:MAX_NAMES] if isinstance(item, tuple) else (item,):
            if isinstance(inner, str):
                yield inner


def _python(arguments: int, raw: bytes, file: str) -> str:
    """The version of Python that can run the bytecode."""
    named = re.search(r"python(3\.\d+)", file[:MAX_NAMES])
    if named:
        return named.group(1)
    if arguments < _ARGUMENTS_311:
        return "3.8 to 3.10"
    first = next((op for op in raw[:16:2] if op in (0x97, 0x80)), raw[0] if raw else 0)
    return _RESUME.get(first, "3.11 or newer")


def python_needed(codes: Iterable[Code]) -> str | None:
    """The version of Python that loading the file needs; None when any will do.

    A path in one function names the version exactly; bytecode alone leaves a choice.
    """
    found = {code.python for code in codes}
    if not found:
        return None
    return min(found, key=len)

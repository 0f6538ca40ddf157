"""What a pickle describes, as a graph of plain records, with functions to inspect it.

Atoms (``None``, booleans, numbers, text, short bytes) and tuples are themselves. Anything that
loading the file would build is one of the records below. The graph may share nodes and contain
cycles, so the records compare by identity and are never printed, hashed or compared in depth.

The functions after the records return an object's class and attributes, a dict's entries, plain
data. Each accepts any value and returns nothing for a value of another kind; none recurses over the
graph, whose shape the file decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fastai_deploy.errors import LearnerTooComplex
from fastai_deploy.learner.reading.sources import Source

Pairs = list[tuple[object, object]]
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

MAX_PLAIN = 200_000  # values in one piece of plain data; a configuration has hundreds
MAX_PLAIN_DEPTH = 32  # levels of nesting; configurations have 4
MAX_PLAIN_TEXT = 1_000  # characters of a string
# A file can let a million objects share one dict of a million entries and still be small. A value
# with more entries than the first number may be looked through only as often as the second says.
LARGE = 200
MOST_LOOKS = 100

MAKE_CLASS = frozenset({"_make_skeleton_class", "_rehydrate_skeleton_class"})
MAX_DATA = 64 << 20  # bytes; the largest tokenizers are 20 MB
MAX_LAYERS = 5  # wrappers around a list
_TUPLE_STATE = 2  # a state of two parts has the attributes and the slots


@dataclass(frozen=True, slots=True)
class Global:
    """A name that loading the file would import, such as ``fastai.learner`` ``Learner``."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


# What protocols 0 and 1 call instead of NEWOBJ: the class is the first argument.
RECONSTRUCTORS = frozenset(
    {
        Global("copyreg", "_reconstructor"),
        Global("copyreg", "__newobj__"),
        Global("copyreg", "__newobj_ex__"),
    }
)


class Sequence:
    """A list, a set or a frozenset; ``items`` are in file order."""

    __slots__ = ("items", "kind", "looks")

    def __init__(self, kind: Literal["list", "set", "frozenset"], items: list[object]) -> None:
        self.kind = kind
        self.items = items
        self.looks = 0


class Mapping:
    """A dict; ``pairs`` are in file order, and of equal keys the last one wins."""

    __slots__ = ("looks", "pairs")

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.looks = 0


class Call:
    """An object that loading the file would create by calling ``func`` with ``args``.

    ``new`` is true if the file asks for ``cls.__new__(cls, ...)``, so ``func`` is a class.
    ``states`` are what BUILD would set on it; ``items`` and ``pairs`` are what would be appended or
    set by key (subclasses of list and dict).
    """

    __slots__ = ("args", "func", "items", "kwargs", "looks", "new", "pairs", "states")

    def __init__(
        self, func: object, args: tuple[object, ...], kwargs: object = None, *, new: bool = False
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.new = new
        self.states: list[object] = []
        self.items: list[object] = []
        self.pairs: Pairs = []
        self.looks = 0


class Persistent:
    """An object that lives outside the pickle stream, named by ``pid``."""

    __slots__ = ("pid",)

    def __init__(self, pid: object) -> None:
        self.pid = pid


class Blob:
    """Bytes too long to keep in memory: a location in the file, read on demand."""

    __slots__ = ("offset", "size", "source")

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self.source = source
        self.offset = offset
        self.size = size

    def read(self) -> bytes:
        """All of it. Raises LearnerTruncated if the file no longer has that much."""
        return self.source.read(self.offset, self.size)


def class_of(value: object) -> Global | None:
    """The class of an object that the file would create; None for plain data.

    A class that cloudpickle stored by value keeps the name it had where it was written.
    """
    if not isinstance(value, Call):
        return None
    if value.func in RECONSTRUCTORS if isinstance(value.func, Global) else False:
        return class_name(value.args[0]) if value.args else None
    return class_name(value.func)


def class_name(value: object) -> Global | None:
    """The name of a class, imported or stored by value."""
    if isinstance(value, Global):
        return value
    if isinstance(value, Call) and isinstance(value.func, Global) and value.func.name in MAKE_CLASS:
        match value.args:
            case (_, str(name), _, body, *_):
                module = lookup(body, "__module__")
                return Global(module if isinstance(module, str) else "__main__", name)
    return None


def attributes(value: object) -> dict[str, object]:
    """The attributes that BUILD would set on an object; the last one of a name wins."""
    found: dict[str, object] = {}
    if isinstance(value, Call):
        for state in value.states:
            parts = state if isinstance(state, tuple) and len(state) == _TUPLE_STATE else (state,)
            for part in parts:
                if isinstance(part, Mapping):
                    _look(part, part.pairs)
                    found.update((key, item) for key, item in part.pairs if isinstance(key, str))
    return found


def attribute(value: object, *path: str) -> object:
    """The attribute at a path of attributes; None if there is none."""
    for name in path:
        value = attributes(value).get(name)
    return value


def entries(value: object) -> list[tuple[object, object]]:
    """The entries of a dict or of an instance of a dict subclass, in order."""
    if isinstance(value, Mapping):
        _look(value, value.pairs)
        return value.pairs
    if isinstance(value, Call):
        _look(value, value.pairs)
        return [*_listed_pairs(value), *value.pairs]
    return []


def _look(node: Mapping | Sequence | Call, within: list[Any]) -> None:
    """Count one look through ``within``. Raises LearnerTooComplex if there are too many."""
    if len(within) > LARGE:
        node.looks += 1
        if node.looks > MOST_LOOKS:
            raise LearnerTooComplex(
                "many objects in the file share one large part, which no learner does",
                hint="the file is damaged or malicious; export the learner again",
            )


def _listed_pairs(value: Call) -> Iterator[tuple[object, object]]:
    """Entries passed to a constructor as ``[[key, value], ...]``, as Python 2 and jit do."""
    match value.args:
        case (Sequence(items=items) as listed,):
            _look(listed, items)
            for item in items:
                pair = elements(item)
                if len(pair) == 2:  # noqa: PLR2004 - key and value
                    yield pair[0], pair[1]
        case (Mapping(pairs=pairs) as given,):
            _look(given, pairs)
            yield from pairs


def named_entries(value: object) -> dict[str, object]:
    """The entries whose keys are strings."""
    return {key: item for key, item in entries(value) if isinstance(key, str)}


def lookup(value: object, key: str) -> object:
    """The entry of a dict called ``key``; None if there is none."""
    return named_entries(value).get(key)


def elements(value: object) -> list[object]:
    """The elements of a list, tuple or set, of an instance of a subclass, or of a fastcore L.

    fastai wraps lists in several layers (a ``CategoryMap`` of an ``L`` of a list).
    """
    for _ in range(MAX_LAYERS):
        if isinstance(value, Sequence):
            _look(value, value.items)
            return value.items
        if isinstance(value, tuple):
            return list(value)
        if not isinstance(value, Call):
            break
        if value.items:
            _look(value, value.items)
            return value.items
        inner = attributes(value).get("items")
        if inner is None and len(value.args) == 1:
            inner = value.args[0]
        value = inner
    return []


def data(value: object) -> bytes | None:
    """Bytes, however the pickle's protocol spelled them; None for anything else.

    Bytes stored as one piece of more than ``MAX_DATA`` are weights, and not read here.
    """
    match value:
        case bytes():
            return value
        case Blob():
            return value.read() if value.size <= MAX_DATA else None
        case Call(func=Global("_codecs", "encode"), args=(str(text), "latin1" | "latin-1")):
            return _latin1(text)
        case Call(func=Global("builtins", "bytes" | "bytearray"), args=()):
            return b""
        case Call(func=Global("builtins", "bytes" | "bytearray"), args=(inner, *_)):
            # In nested calls only the innermost can hold the bytes.
            return data(inner) if not isinstance(inner, Call) or inner.func != value.func else None
    return None


def _latin1(text: str) -> bytes | None:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return None


def walk(root: object) -> Iterator[object]:
    """Every value that can be reached from ``root``, each node once, in no particular order."""
    seen: set[int] = set()
    waiting: list[object] = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (Call, Mapping, Sequence, tuple)):
            if id(value) in seen:
                continue
            seen.add(id(value))
            waiting.extend(_children(value))
        yield value


def _children(value: Call | Mapping | Sequence | tuple[object, ...]) -> Iterator[object]:
    if isinstance(value, tuple):
        yield from value
    elif isinstance(value, Sequence):
        yield from value.items
    else:
        if isinstance(value, Call):
            yield value.func
            yield value.args
            yield value.kwargs
            yield from value.states
            yield from value.items
        for key, item in value.pairs:
            yield key
            yield item


def plain(value: object, budget: list[int] | None = None, depth: int = 0) -> Plain:
    """A value as JSON data; an object becomes its class's name.

    Raises LearnerTooComplex for more than ``MAX_PLAIN`` values or ``MAX_PLAIN_DEPTH`` levels,
    because the graph may contain itself.
    """
    budget = budget if budget is not None else [MAX_PLAIN]
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_PLAIN_DEPTH:
        raise LearnerTooComplex(
            "a configuration in the file is larger or deeper than any learner's",
            hint="the file is damaged or malicious; export the learner again",
        )
    if isinstance(value, str):
        return value[:MAX_PLAIN_TEXT]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping) or (isinstance(value, Call) and value.pairs):
        return {
            str(plain(k, budget, depth + 1)): plain(v, budget, depth + 1) for k, v in entries(value)
        }
    if isinstance(value, (Sequence, tuple)):
        return [plain(item, budget, depth + 1) for item in elements(value)]
    return str(class_of(value) or value) if isinstance(value, (Call, Global)) else None

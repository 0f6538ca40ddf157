"""The values of variables in the user's code while it is followed.

Two values are equal if they mean the same. ``text`` is the value as source code; only messages show
it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Literal

from typing_extensions import Self

from fastai_deploy.learner.user_code.bytecode import CodeObject

MAX_TEXT: Final = 120  # characters of a value's source text
MAX_WEIGHT: Final = 1 << 12  # of a followed value: about 2,000 items, or 12 levels
# Reasons that the code compares with.
COUNTED: Final = "it counts across answers"
REMEMBERED: Final = "it reads state left by an earlier answer"
PROPERTY: Final = "it reads a property of a tensor"

_MAX_BITS: Final = 64  # of an integer that is written in full


class _Short(reprlib.Repr):
    """Representations of bounded length: a tuple in a pickle may hold another many times."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxtuple = self.maxlist = self.maxset = self.maxfrozenset = self.maxdict = 20
        self.maxstring = self.maxother = MAX_TEXT

    def repr_int(self, x: int, level: int) -> str:
        """Python itself refuses to format a number with many thousands of digits."""
        return super().repr_int(x, level) if x.bit_length() <= _MAX_BITS else "<a long number>"

    def repr_ellipsis(self, _x: object, _level: int) -> str:
        """``...``, as in an index."""
        return "..."


_SHORT: Final = _Short()


@dataclass(frozen=True, kw_only=True)
class Value:
    """Anything that code can hold.

    ``weight`` bounds the work of comparing two values: the contents of a container count double at
    each level, because a value can be nested in itself many times.
    """

    text: str = field(default="...", compare=False)
    weight: int = field(default=1, compare=False)

    def spelled(self, text: str) -> Self:
        """The same value with another source text."""
        return replace(self, text=text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…")


@dataclass(frozen=True)
class Const(Value):
    """A number, a string, None, or another plain constant; ``kind`` tells True from 1 and 1.0."""

    value: object
    kind: type


ItemsKind = Literal["tuple", "list", "set"]
_BRACKETS: Final[dict[ItemsKind, str]] = {"tuple": "({})", "list": "[{}]", "set": "{{{}}}"}


@dataclass(frozen=True)
class Items(Value):
    """A tuple, list or set that the code builds, with every item known."""

    kind: ItemsKind
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Pairs(Value):
    """A dict that the code builds; of two equal keys the later one wins."""

    pairs: tuple[tuple[Value, Value], ...]


@dataclass(frozen=True)
class Iterator(Value):
    """The remaining items of a loop over known items."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Slice(Value):
    """``start:stop:step``."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Library(Value):
    """Something in a library, by its full name, such as ``torch.nn.functional.softmax``."""

    name: str


@dataclass(frozen=True, eq=False)
class Held(Value):
    """An object in the pickle; ``node``, its place in the graph, identifies it."""

    node: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.node is self.node

    def __hash__(self) -> int:
        return id(self.node)


@dataclass(frozen=True, eq=False)
class Function(Value):
    """A user's function with its globals and closure; ``owner`` is its ``self``."""

    code: CodeObject
    globals: dict[str, object]
    closure: tuple[object, ...] = ()
    defaults: tuple[object, ...] = ()
    keyword_defaults: dict[str, object] = field(default_factory=dict)
    owner: Value | None = None


@dataclass(frozen=True)
class Method(Value):
    """A method that is about to be called: ``owner.name``."""

    owner: Value
    name: str


@dataclass(frozen=True)
class Context(Value):
    """A context manager that has no effect on an answer, such as ``no_grad()``."""


@dataclass(frozen=True)
class Null(Value):
    """The empty slot next to a callable on the stack of Python 3.11 and later."""


@dataclass(frozen=True)
class Unknown(Value):
    """The result of a harmless step that is not understood; ``reason`` says what the step was.

    Code may print or drop it. An answer computed from it is not understood.
    """

    reason: str


@dataclass(frozen=True)
class Term(Value):
    """A value between a text and its scores, such as the ids or an attention mask.

    ``role`` says which; ``data`` distinguishes two values with the same role.
    """

    role: str
    data: object = None


def weight_of(parts: Iterable[Value]) -> int:
    """The weight of a value that holds these."""
    return 1 + 2 * sum(each.weight for each in parts)


def called(name: str) -> Unknown:
    """The result of a harmless function, which is not followed into."""
    return Unknown(f"it calls {name}()")


def applied(operator: str) -> Unknown:
    """The result of an operator on something other than plain numbers."""
    return Unknown(f"it applies {operator} to a value")


def taken(key: Value) -> Unknown:
    """An item, or a slice, of something whose items are not known."""
    if isinstance(key, Slice):
        return Unknown("it takes a slice")
    return Unknown(f"it indexes a value with [{index_text(key)}]")


def const(value: object) -> Const:
    """A constant, with its text as Python writes it."""
    return Const(value, type(value), text=_SHORT.repr(value)[:MAX_TEXT], weight=_weight(value))


def _weight(value: object) -> int:
    """The weight of a constant, or any number above MAX_WEIGHT."""
    weight = 0
    waiting = [(value, 1)]
    while waiting and weight <= MAX_WEIGHT:
        each, weighs = waiting.pop()
        weight += weighs
        if isinstance(each, (tuple, frozenset)):
            waiting.extend((part, 2 * weighs) for part in islice(each, MAX_WEIGHT))
    return weight


NONE: Final = const(None)
NULL: Final = Null()


def is_none(value: Value) -> bool:
    """Whether it is None."""
    return isinstance(value, Const) and value.value is None


def bare(text: str) -> str:
    """An expression without parentheses around the whole of it."""
    head = "return " if text.startswith("return ") else ""
    inner = text[len(head) :]
    if not (inner.startswith("(") and inner.endswith(")") and len(inner) > len("()")):
        return text
    depth = 0
    for char in inner[:-1]:
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return text
    return head + inner[1:-1]


def items_of(kind: ItemsKind, items: Iterable[Value]) -> Items:
    """A container that the code builds; its text comes from its items."""
    held = tuple(items)
    text = ", ".join(argument_text(each) for each in held[:MAX_TEXT])
    if kind == "tuple" and len(held) == 1:
        text += ","
    return Items(kind, held, weight=weight_of(held)).spelled(_BRACKETS[kind].format(text))


def argument_text(value: Value) -> str:
    """A value's text for a place that needs no parentheses, such as between commas."""
    return value.text if _is_tuple(value) else bare(value.text)


def index_text(key: Value) -> str:
    """A key's text within ``[...]``, where a tuple has no parentheses either."""
    return bare(key.text)


def _is_tuple(value: Value) -> bool:
    return (isinstance(value, Items) and value.kind == "tuple") or (
        isinstance(value, Const) and value.kind is tuple
    )

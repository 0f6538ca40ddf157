"""What a variable of the user's code stands for while the code is followed.

Two values are equal when they mean the same. ``text`` is how the source would spell a value; only
messages show it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Literal

from typing_extensions import Self

from fastai_deploy.learner.user_code.bytecode import CodeObject

MAX_TEXT: Final = 120  # characters of a spelling
MAX_WEIGHT: Final = 1 << 12  # of a value that is followed: about 2,000 items, or 12 levels
# Reasons that code which follows values looks at.
COUNTED: Final = "it counts from answer to answer"
REMEMBERED: Final = "it reads what an earlier answer left"
PROPERTY: Final = "it reads a property of a tensor"

_MAX_BITS: Final = 64  # of an integer that is spelled out


class _Short(reprlib.Repr):
    """Spellings of bounded length: a tuple of a pickle may hold another many times over."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxtuple = self.maxlist = self.maxset = self.maxfrozenset = self.maxdict = 20
        self.maxstring = self.maxother = MAX_TEXT

    def repr_int(self, x: int, level: int) -> str:
        """Python itself refuses to spell a number of many thousand digits."""
        return super().repr_int(x, level) if x.bit_length() <= _MAX_BITS else "<a long number>"

    def repr_ellipsis(self, _x: object, _level: int) -> str:
        """``...``, as in an index."""
        return "..."


_SHORT: Final = _Short()


@dataclass(frozen=True, kw_only=True)
class Value:
    """Anything that code can hold.

    ``weight`` bounds the work of comparing two values: what a container holds counts double, level
    by level, since a value can be nested in itself many times over.
    """

    text: str = field(default="...", compare=False)
    weight: int = field(default=1, compare=False)

    def spelled(self, text: str) -> Self:
        """The same value with another spelling."""
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
    """A tuple, list or set that the code builds, of which every item is known."""

    kind: ItemsKind
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Pairs(Value):
    """A dict that the code builds; of two equal keys the later one counts."""

    pairs: tuple[tuple[Value, Value], ...]


@dataclass(frozen=True)
class Iterator(Value):
    """What a loop over known items has left."""

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
    """An object in the pickle; ``node`` is its place in the graph, and identifies it."""

    node: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.node is self.node

    def __hash__(self) -> int:
        return id(self.node)


@dataclass(frozen=True, eq=False)
class Function(Value):
    """A function of the user's, with what it finds around it; ``owner`` is its ``self``."""

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
    """The empty place beside a callable on the stack of Python 3.11 and later."""


@dataclass(frozen=True)
class Unknown(Value):
    """The result of a harmless step that is not understood; ``reason`` says what the step was.

    Code may print it or drop it. An answer made from it is not understood.
    """

    reason: str


@dataclass(frozen=True)
class Term(Value):
    """A value on the way from a text to its scores, such as the ids or an attention mask.

    ``role`` says which; ``data`` tells two of the same role apart.
    """

    role: str
    data: object = None


def weight_of(parts: Iterable[Value]) -> int:
    """The weight of a value that holds these."""
    return 1 + 2 * sum(each.weight for each in parts)


def called(name: str) -> Unknown:
    """The result of a harmless function, which is not followed further."""
    return Unknown(f"it calls {name}()")


def applied(operator: str) -> Unknown:
    """The result of an operator on something other than plain numbers."""
    return Unknown(f"it applies {operator} to a value")


def taken(key: Value) -> Unknown:
    """An item, or a slice, of something of which the items are not known."""
    if isinstance(key, Slice):
        return Unknown("it takes a slice")
    return Unknown(f"it takes [{index_text(key)}]")


def const(value: object) -> Const:
    """A constant, spelled as Python writes it."""
    return Const(value, type(value), text=_SHORT.repr(value)[:MAX_TEXT], weight=_weight(value))


def _weight(value: object) -> int:
    """The weight of a constant, or a number above MAX_WEIGHT."""
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
    """An expression without the parentheses around the whole of it."""
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
    """A container that the code builds, spelled by what is in it."""
    held = tuple(items)
    text = ", ".join(argument_text(each) for each in held[:MAX_TEXT])
    if kind == "tuple" and len(held) == 1:
        text += ","
    return Items(kind, held, weight=weight_of(held)).spelled(_BRACKETS[kind].format(text))


def argument_text(value: Value) -> str:
    """How a value is spelled where no parentheses are needed, as between commas."""
    return value.text if _is_tuple(value) else bare(value.text)


def index_text(key: Value) -> str:
    """How a key is spelled within ``[...]``, where a tuple has no parentheses either."""
    return bare(key.text)


def _is_tuple(value: Value) -> bool:
    return (isinstance(value, Items) and value.kind == "tuple") or (
        isinstance(value, Const) and value.kind is tuple
    )

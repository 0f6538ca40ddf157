"""What a variable of the user's code stands for while the code is followed.

Values compare by what they mean; ``text`` is how the source would spell them, for messages alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from typing_extensions import Self

from fastai_deploy.learner.code.bytecode import CodeObject

V = TypeVar("V", bound="Value")
MAX_TEXT = 120  # characters of a spelling
# Why the number of a counter is not known: each answer changes it.
COUNTED = "it counts from answer to answer"


@dataclass(frozen=True, kw_only=True)
class Value:
    """Anything that code can hold."""

    text: str = field(default="...", compare=False)

    def spelled(self, text: str) -> Self:
        """The same value, spelled so."""
        return replace(self, text=text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…")


@dataclass(frozen=True)
class Const(Value):
    """A number, a text, None, or another plain constant; ``kind`` tells True from 1 and 1.0."""

    value: object
    kind: type = type(None)


@dataclass(frozen=True)
class Items(Value):
    """A tuple, list, set or dict that the code builds; of a dict the items are pairs."""

    kind: Literal["tuple", "list", "set", "dict"]
    items: tuple[object, ...]


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
    """Something of a library, by its full name, such as ``torch.nn.functional.softmax``."""

    name: str


@dataclass(frozen=True, eq=False)
class Held(Value):
    """An object in the pickle; ``node`` is its place in the graph, and says which it is."""

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
    """What a ``with`` statement enters without any effect on an answer, such as ``no_grad()``."""


@dataclass(frozen=True)
class Null(Value):
    """The empty place beside a callable on the stack of Python 3.11 and later."""


@dataclass(frozen=True)
class Unknown(Value):
    """The result of something harmless to do, but not understood; ``reason`` says what was done.

    It may be printed or forgotten. An answer made from it is not understood.
    """

    reason: str


@dataclass(frozen=True)
class Term(Value):
    """A value on the way from a text to its scores, such as the ids or an attention mask.

    ``role`` says which; ``data`` tells two of a role apart.
    """

    role: str
    data: object = None


def bare(text: str) -> str:
    """An expression without the parentheses around the whole of it."""
    head = "return " if text.startswith("return ") else ""
    inner = text[len(head) :]
    depth = 0
    for place, char in enumerate(inner):
        depth += (char == "(") - (char == ")")
        if depth == 0 and place < len(inner) - 1:
            return text
    return head + inner[1:-1] if inner.startswith("(") and inner.endswith(")") else text


def const(value: object) -> Const:
    """A constant, spelled as Python writes it."""
    return Const(value, type(value), text=repr(value)[:MAX_TEXT])


NONE = const(None)
NULL = Null()


def is_none(value: Value) -> bool:
    """Whether it is None."""
    return isinstance(value, Const) and value.value is None

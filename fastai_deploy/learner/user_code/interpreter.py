"""Follow the user's code without running it.

    Interpreter.call -> bind the arguments -> follow every path (paths.py) -> one value

The ``Semantics`` define what values mean and what may be done with them. Anything they do not know
raises NotUnderstood, which names the expression; so do endless loops, ``try`` and anything that
costs more than the ``Budget``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from fastai_deploy.learner.user_code.bytecode import InvalidBytecode, Version
from fastai_deploy.learner.user_code.values import (
    Context,
    Function,
    Pairs,
    Unknown,
    Value,
    const,
    items_of,
    weight_of,
)

T = TypeVar("T")

MAX_STEPS: Final = 60_000  # instructions, and items of containers, for a whole learner
MAX_PATHS: Final = 256  # conditions followed both ways, for a whole learner
DECODED_A_STEP: Final = 100  # bytes of code that cost as much to decode as one step
MAX_CALLS: Final = 12  # nested calls of the user's functions
_ASYNCHRONOUS: Final = 0x80 | 0x200  # flags of a code object: a coroutine, an async generator
_VARARGS, _VARKEYWORDS = 0x04, 0x08  # it has *args, it has **kwargs


class NotUnderstood(Exception):
    """The code does something unknown.

    ``reason`` is a clause about the code, such as "it has a loop". ``code`` is the expression as
    source; ``subject`` says whose code it is, if not the code that was being followed.
    """

    def __init__(self, reason: str, code: str = "", subject: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.subject = subject


class Semantics(Protocol):
    """What values mean: the closed vocabulary that code may use.

    Each method returns a value, or ``Unknown`` for a step that is harmless but not understood, and
    raises NotUnderstood for a step that may have an effect.
    """

    def value(self, held: object) -> Value:
        """The value of an object in the pickle."""

    def builtin(self, name: str) -> Value:
        """The value of a global name that the file does not hold."""

    def attribute(self, owner: Value, name: str) -> Value:
        """``owner.name``."""

    def store(self, owner: Value, name: str, value: Value, *, own: bool) -> None:
        """``owner.name = value``; ``own``: a method of ``owner`` sets it, as ``self.name``."""

    def store_item(self, owner: Value, key: Value, value: Value) -> None:
        """``owner[key] = value``."""

    def call(self, func: Value, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """``func(*args, **keywords)``, for anything except a user's function."""

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        """``left operator right``, including comparisons."""

    def unary(self, operator: str, value: Value) -> Value:
        """``operator value``."""

    def subscript(self, owner: Value, key: Value) -> Value:
        """``owner[key]``."""

    def unpack(self, value: Value, count: int) -> tuple[Value, ...]:
        """The first ``count`` items."""

    def truth(self, value: Value) -> bool | None:
        """Whether it is true; None if that is not known."""


@dataclass
class Budget:
    """What following a learner's code may still cost, over all paths and functions."""

    steps: int = MAX_STEPS
    paths: int = MAX_PATHS

    def step(self, count: int = 1) -> None:
        """Count more instructions, or items that they look at. Raises NotUnderstood."""
        self.steps -= count
        if self.steps < 0:
            raise NotUnderstood("it is too long to follow")

    def fork(self) -> None:
        """Count one more condition that is not known. Raises NotUnderstood."""
        self.paths -= 1
        if self.paths < 0:
            raise NotUnderstood("it has too many conditions to follow")


class Interpreter:
    """Follows functions compiled by one version of Python.

    ``follow`` finds what a function returns for given parameters; it calls back into the
    interpreter for the functions that the code itself calls.
    """

    def __init__(
        self,
        semantics: Semantics,
        version: Version,
        follow: Callable[[Interpreter, Function, dict[str, Value]], Value],
        budget: Budget,
    ) -> None:
        self.semantics = semantics
        self.version = version
        self.budget = budget
        self._follow = follow
        self._depth = 0

    def call(
        self, function: Function, args: Sequence[Value], keywords: dict[str, Value] | None = None
    ) -> Value:
        """What a user's function returns for these arguments.

        Raises NotUnderstood, and InvalidBytecode for code that this version cannot have compiled.
        """
        if function.code.flags & _ASYNCHRONOUS:
            raise NotUnderstood("it is asynchronous", function.code.name)
        self.budget.step(1 + len(function.code.code) // DECODED_A_STEP)
        self._depth += 1
        if self._depth > MAX_CALLS:
            raise NotUnderstood("it nests calls of its own functions too deeply", function.text)
        own = () if function.owner is None else (function.owner,)
        found = self._follow(self, function, self._bind(function, (*own, *args), keywords or {}))
        self._depth -= 1
        return found

    def value(self, held: object) -> Value:
        """The value in a default or a closure: one of this run, or one of the pickle."""
        return held if isinstance(held, Value) else self.semantics.value(held)

    def apply(self, func: Value, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """A call that the code makes, of a user's function or of the vocabulary."""
        if isinstance(func, Function):
            return self.call(func, args, keywords)
        if isinstance(func, Context):
            return Unknown("it enters or leaves a context manager", text=func.text)
        return self.semantics.call(func, args, keywords)

    def _bind(
        self, function: Function, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> dict[str, Value]:
        """The parameters with their arguments, bound as Python binds them."""
        code = function.code
        names = code.variables[: code.positional]
        bound = dict(zip(names, args, strict=False))
        rest = args[len(names) :]
        extra: list[tuple[Value, Value]] = []
        for name, value in keywords.items():
            if name in code.parameters[code.positional_only :] and name not in bound:
                bound[name] = value
            elif code.flags & _VARKEYWORDS and name not in bound:
                extra.append((const(name), value))
            else:
                raise NotUnderstood(f"it calls {code.name}() with {name}=", function.text)
        offset = code.positional - len(function.defaults)
        for index, default in enumerate(function.defaults):
            if offset + index >= 0:
                bound.setdefault(names[offset + index], self.value(default))
        for name, default in function.keyword_defaults.items():
            bound.setdefault(name, self.value(default))
        missing = any(name not in bound for name in code.parameters)
        if missing or (rest and not code.flags & _VARARGS):
            raise NotUnderstood(
                f"it calls {code.name}() with too few or too many arguments", function.text
            )
        bound.update(self._collected(function, rest, extra))
        return {name: value.spelled(name) for name, value in bound.items()}

    def _collected(
        self, function: Function, rest: tuple[Value, ...], extra: list[tuple[Value, Value]]
    ) -> dict[str, Value]:
        """``*args`` and ``**kwargs``, if the function has them: they follow its parameters."""
        code = function.code
        found: list[Value] = []
        if code.flags & _VARARGS:
            found.append(items_of("tuple", rest))
        if code.flags & _VARKEYWORDS:
            found.append(Pairs(tuple(extra), weight=weight_of(value for _, value in extra)))
        names = code.variables[len(code.parameters) :]
        if len(names) < len(found):
            raise InvalidBytecode("variables")
        return dict(zip(names, found, strict=False))


def settled(versions: Sequence[Version], follow: Callable[[Version], T]) -> T:
    """What ``follow`` finds; it must be the same for each Python that may have compiled the code.

    Raises NotUnderstood, also if two versions differ or none can have compiled the code.
    """
    found = [each for version in versions for each in _tried(version, follow)]
    if not found:
        raise NotUnderstood("it is bytecode of an unknown Python version")
    if any(other != found[0] for other in found[1:]):
        raise NotUnderstood("its meaning depends on which Python version compiled it")
    return found[0]


def _tried(version: Version, follow: Callable[[Version], T]) -> tuple[T, ...]:
    """What ``follow`` finds, as a 1-tuple; empty if this Python cannot have compiled the code."""
    try:
        return (follow(version),)
    except InvalidBytecode:
        return ()

"""Following the user's code without running it: one instruction after the other, over values that
say what they stand for.

    code object -> instructions -> every path through them -> one value, or NotUnderstood

Loops, ``try``, generators and whatever the ``Semantics`` do not know end with NotUnderstood, which
names the expression. Where a condition cannot be known, both ways are followed, and must give the
same value.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from fastai_deploy.learner.code.bytecode import (
    CodeObject,
    Instruction,
    InvalidBytecode,
    Version,
    code_object,
    decode,
    handlers,
    jump_target,
)
from fastai_deploy.learner.code.values import (
    COUNTED,
    NONE,
    NULL,
    Const,
    Context,
    Function,
    Items,
    Iterator,
    Library,
    Method,
    Null,
    Slice,
    Unknown,
    Value,
    bare,
    const,
    is_none,
)
from fastai_deploy.learner.reading.values import Call

MAX_STEPS: Final = 20_000  # instructions that are followed, all paths and functions together
MAX_PATHS: Final = 64
MAX_CALLS: Final = 12  # functions of the user's within one another
_GENERATOR, _ASYNCHRONOUS = 0x20, 0x80 | 0x200  # flags of a code object
_VARARGS, _VARKEYWORDS = 0x04, 0x08

_BINARY: Final = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//",
    "MODULO": "%", "POWER": "**", "MATRIX_MULTIPLY": "@", "AND": "&", "OR": "|", "XOR": "^",
    "LSHIFT": "<<", "RSHIFT": ">>",
}  # fmt: skip
# The arguments of BINARY_OP, and 13 more for the same in place; 26 is a subscript (Python 3.14).
_BINARY_OPS: Final = ("+", "&", "//", "<<", "@", "*", "%", "|", "**", ">>", "-", "/", "^")
_SUBSCRIPT: Final = 26
_COMPARE: Final = ("<", "<=", "==", "!=", ">", ">=")
_COMPARE_38: Final = (*_COMPARE, "in", "not in", "is", "is not")
_UNARY: Final = {"NEGATIVE": "-", "INVERT": "~", "POSITIVE": "+"}
_SKIPPED: Final = frozenset(
    {"NOP", "RESUME", "PRECALL", "COPY_FREE_VARS", "MAKE_CELL", "POP_BLOCK", "NOT_TAKEN",
     "BEGIN_FINALLY", "WITH_CLEANUP_FINISH", "END_FINALLY", "POP_FINALLY", "TO_BOOL", "CACHE"}
)  # fmt: skip


# What a handler does that only puts variables back and raises again.
_CLEANING: Final = frozenset(
    {"COPY", "POP_EXCEPT", "SWAP", "POP_TOP", "STORE_FAST", "CALL_INTRINSIC_1",
     "STORE_FAST_STORE_FAST"}
)  # fmt: skip


class NotUnderstood(Exception):
    """The code does something that is not known.

    ``code`` is the expression, as source; ``subject`` says whose code it is, where that is clear.
    """

    def __init__(self, reason: str, code: str = "", subject: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.subject = subject


class Semantics(Protocol):
    """What values mean: the closed vocabulary that code may use.

    Each method returns a value, ``Unknown`` for what is harmless but not known, and raises
    NotUnderstood for what may have an effect.
    """

    def value(self, held: object) -> Value:
        """What a value of the pickle stands for."""

    def builtin(self, name: str) -> Value:
        """What a global name stands for that the file does not hold."""

    def attribute(self, owner: Value, name: str) -> Value:
        """``owner.name``."""

    def store(self, owner: Value, name: str, value: Value) -> None:
        """``owner.name = value``."""

    def store_item(self, owner: Value, key: Value, value: Value) -> None:
        """``owner[key] = value``."""

    def call(self, func: Value, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """``func(*args, **keywords)``, for whatever is no function of the user's."""

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        """``left operator right``, comparisons included."""

    def unary(self, operator: str, value: Value) -> Value:
        """``operator value``."""

    def subscript(self, owner: Value, key: Value) -> Value:
        """``owner[key]``."""

    def unpack(self, value: Value, count: int) -> tuple[Value, ...]:
        """The first ``count`` items."""

    def truth(self, value: Value) -> bool | None:
        """Whether it counts as true; None where that is not known."""


@dataclass
class _Budget:
    """What following may still cost, over all paths and functions."""

    steps: int = MAX_STEPS
    paths: int = MAX_PATHS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise NotUnderstood("it is longer than what is followed here")

    def fork(self) -> None:
        self.paths -= 1
        if self.paths < 0:
            raise NotUnderstood("it has more conditions than what is followed here")


@dataclass
class _State:
    """One path: where it is, its stack, and its variables."""

    position: int
    stack: list[Value]
    variables: dict[str, Value]
    keyword_names: tuple[str, ...] = ()
    yielded: list[Value] = field(default_factory=list)

    def copy(self) -> _State:
        return replace(
            self,
            stack=list(self.stack),
            variables=dict(self.variables),
            yielded=list(self.yielded),
        )

    def pop(self) -> Value:
        if not self.stack:
            raise InvalidBytecode("stack")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Value]:
        if count > len(self.stack) or count < 0:
            raise InvalidBytecode("stack")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def at(self, depth: int) -> int:
        if not 1 <= depth <= len(self.stack):
            raise InvalidBytecode("stack")
        return len(self.stack) - depth


class Interpreter:
    """Follows functions written by one version of Python."""

    def __init__(self, semantics: Semantics, version: Version) -> None:
        self._semantics = semantics
        self._version = version
        self._budget = _Budget()
        self._depth = 0

    def call(
        self, function: Function, args: Sequence[Value], keywords: dict[str, Value] | None = None
    ) -> Value:
        """What a function of the user's returns for these arguments.

        Raises NotUnderstood, and InvalidBytecode for code that this version cannot have written.
        """
        self._depth += 1
        if self._depth > MAX_CALLS:
            raise NotUnderstood("its functions call one another too deep", function.text)
        code = function.code
        if code.flags & _ASYNCHRONOUS:
            raise NotUnderstood("it is asynchronous", code.name)
        own = () if function.owner is None else (function.owner,)
        variables = self._bind(function, (*own, *args), keywords or {})
        paths = _Paths(self, function, variables)
        found = paths.yielded() if code.flags & _GENERATOR else paths.outcome()
        self._depth -= 1
        return found

    @property
    def version(self) -> Version:
        """The Python that wrote the functions."""
        return self._version

    @property
    def semantics(self) -> Semantics:
        """What values mean."""
        return self._semantics

    @property
    def budget(self) -> _Budget:
        """What following may still cost."""
        return self._budget

    def value(self, held: object) -> Value:
        """What a default or a closure holds: a value of this run, or one of the pickle."""
        return held if isinstance(held, Value) else self._semantics.value(held)

    def apply(self, func: Value, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """A call that the code makes: into a function of the user's, or by the vocabulary."""
        if isinstance(func, Function):
            return self.call(func, args, keywords)
        if isinstance(func, Context):
            return Unknown("it enters or leaves a context", text=func.text)
        return self._semantics.call(func, args, keywords)

    def _bind(
        self, function: Function, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> dict[str, Value]:
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
                raise NotUnderstood(f"{code.name}() has no parameter {name}", function.text)
        offset = code.positional - len(function.defaults)
        for index, default in enumerate(function.defaults):
            if offset + index >= 0:
                bound.setdefault(names[offset + index], self.value(default))
        for name, default in function.keyword_defaults.items():
            bound.setdefault(name, self.value(default))
        missing = [name for name in code.parameters if name not in bound]
        if missing or (rest and not code.flags & _VARARGS):
            raise NotUnderstood(f"{code.name}() is called with other arguments", function.text)
        place = code.positional + code.keyword_only
        if code.flags & _VARARGS:
            bound[code.variables[place]] = Items("tuple", rest)
            place += 1
        if code.flags & _VARKEYWORDS:
            bound[code.variables[place]] = Items("dict", tuple(extra))
        return {name: value.spelled(name) for name, value in bound.items()}


class _Paths:
    """Every path through one function."""

    def __init__(
        self, interpreter: Interpreter, function: Function, variables: dict[str, Value]
    ) -> None:
        self._interpreter = interpreter
        self._semantics = interpreter.semantics
        self._version = interpreter.version
        self._function = function
        self._code: CodeObject = function.code
        self._instructions = decode(function.code, interpreter.version)
        self._places = {each.offset: i for i, each in enumerate(self._instructions)}
        self._variables = variables
        self._check_handlers()

    def outcome(self) -> Value:
        """The value that every path returns. Paths that raise return nothing, and do not count."""
        waiting = [_State(0, [], dict(self._variables))]
        found: list[Value] = []
        while waiting:
            result, forked = self._follow(waiting.pop())
            waiting.extend(forked)
            if result is not None:
                found.append(result)
        if not found:
            raise NotUnderstood("it returns nothing", self._code.name)
        for other in found[1:]:
            if other != found[0]:
                unknown = next((each for each in found if isinstance(each, Unknown)), other)
                reason = "what it returns depends on a condition"
                raise NotUnderstood(reason, f"return {unknown.text}")
        return found[0]

    def yielded(self) -> Value:
        """All that a generator yields, at once: what is followed here has no other effect."""
        waiting = [_State(0, [], dict(self._variables))]
        result, forked = self._follow(waiting[0])
        if forked or result is None:
            raise NotUnderstood("what it yields depends on a condition", self._code.name)
        return Items("list", tuple(waiting[0].yielded), text=self._code.name)

    def _check_handlers(self) -> None:
        """Accept the exception handlers of ``with``, of generators and of comprehensions alone."""
        for offset in handlers(self._code):
            place = self._places.get(offset)
            if place is None:
                raise InvalidBytecode("exception table")
            names = [each.name for each in self._instructions[place:]]
            ends = names.index("RERAISE") if "RERAISE" in names else len(names)
            with_block = names[:2] == ["PUSH_EXC_INFO", "WITH_EXCEPT_START"]
            if not with_block and not set(names[:ends]) <= _CLEANING:
                raise NotUnderstood("it has a try statement", self._code.name)

    def _follow(self, state: _State) -> tuple[Value | None, list[_State]]:
        """Follow one path to its return, or to a condition that is not known."""
        while True:
            self._interpreter.budget.step()
            if not 0 <= state.position < len(self._instructions):
                raise InvalidBytecode("end of code")
            instruction = self._instructions[state.position]
            state.position += 1
            name = instruction.name
            if name == "RETURN_VALUE":
                return state.pop(), []
            if name == "RETURN_CONST":
                return self._constant(instruction.argument), []
            if name == "RAISE_VARARGS":
                return None, []
            if name == "FOR_ITER":
                self._iterate(state, instruction)
            elif "JUMP" in name:
                forked = self._jump(state, instruction)
                if forked:
                    return None, forked
            else:
                self._step(state, instruction)

    def _jump(self, state: _State, instruction: Instruction) -> list[_State]:
        name = instruction.name
        target = self._places.get(jump_target(instruction, self._version))
        if target is None:
            raise InvalidBytecode("jump")
        if name in ("JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD"):
            state.position = target
            return []
        value = state.pop()
        keeps = name.endswith("_OR_POP")
        if "NONE" in name:
            known = self._none(value)
            jumps_on = "NOT_NONE" not in name
        else:
            known = self._semantics.truth(value)
            jumps_on = "TRUE" in name
        ways = []
        for outcome in (True, False) if known is None else (known,):
            way = state if known is not None else state.copy()
            if outcome == jumps_on:
                way.position = target
                if keeps:
                    way.stack.append(value)
            ways.append(way)
        if known is not None:
            return []
        self._interpreter.budget.fork()
        return ways

    def _iterate(self, state: _State, instruction: Instruction) -> None:
        """One more turn of a loop over a known number of items, or its end."""
        target = self._places.get(jump_target(instruction, self._version))
        iterator = state.stack[state.at(1)]
        if target is None or not isinstance(iterator, Iterator):
            raise InvalidBytecode("loop")
        if iterator.items:
            state.stack[-1] = replace(iterator, items=iterator.items[1:])
            state.stack.append(iterator.items[0])
            return
        # The end is behind END_FOR, which finds the iterator gone; 3.14 takes it off by POP_ITER.
        skipped = {(3, 12): 1, (3, 13): 2, (3, 14): 1}.get(self._version, 0)
        if self._version < (3, 14):
            state.pop()
        state.position = target + skipped

    def get_iter(self, state: _State, _argument: int) -> None:
        """Loops are followed over values of which each item is known."""
        value = state.pop()
        if isinstance(value, Iterator):
            state.stack.append(value)
        elif isinstance(value, Items) and value.kind in ("tuple", "list"):
            state.stack.append(Iterator(value.items, text=value.text))  # type: ignore[arg-type]
        else:
            raise NotUnderstood("it has a loop", f"for ... in {value.text}")

    def yield_value(self, state: _State, _argument: int) -> None:
        state.yielded.append(state.pop())
        state.stack.append(NONE)

    def push_none(self, state: _State, _argument: int) -> None:
        state.stack.append(NONE)

    def append(self, state: _State, argument: int) -> None:
        """An item of a comprehension."""
        value = state.pop()
        place = state.at(argument)
        held = state.stack[place]
        if not isinstance(held, Items):
            raise InvalidBytecode("comprehension")
        state.stack[place] = replace(held, items=(*held.items, value))

    def load_fast_and_clear(self, state: _State, argument: int) -> None:
        state.stack.append(state.variables.pop(self._fast_name(argument), NULL))

    def _none(self, value: Value) -> bool | None:
        if isinstance(value, Const):
            return value.value is None
        return None if isinstance(value, (Method, Unknown)) else False

    def _step(self, state: _State, instruction: Instruction) -> None:
        name = instruction.name
        if name in _SKIPPED:
            return
        step = _STEPS.get(name)
        if step is not None:
            step(self, state, instruction.argument)
        elif name.startswith(("BINARY_", "INPLACE_")):
            family, _, operator = name.partition("_")
            right, left = state.pop(), state.pop()
            state.stack.append(self._binary(_BINARY[operator], left, right, family == "INPLACE"))
        elif name.startswith("UNARY_"):
            value = state.pop()
            state.stack.append(self._unary(_UNARY[name.partition("_")[2]], value))
        else:
            raise NotUnderstood(f"it has a part that is not followed here ({name.lower()})",
                                self._code.name)  # fmt: skip

    # Constants, names and variables

    def _constant(self, index: int) -> Value:
        if index >= len(self._code.constants):
            raise InvalidBytecode("constant")
        value = self._code.constants[index]
        if isinstance(value, types.CodeType) or (
            isinstance(value, Call) and code_object(value) is not None
        ):
            return Const(value, type(value), text="lambda")
        return self._semantics.value(value) if isinstance(value, Call) else _literal(value)

    def _name(self, index: int) -> str:
        if index >= len(self._code.names):
            raise InvalidBytecode("name")
        return self._code.names[index]

    def _fast_name(self, index: int) -> str:
        names = self._code.fast if self._code.new_form else self._code.variables
        if index >= len(names):
            raise InvalidBytecode("variable")
        return names[index]

    def _cell_name(self, index: int) -> str:
        if self._code.new_form:
            return self._fast_name(index)
        names = (*self._code.cells, *self._code.free)
        if index >= len(names):
            raise InvalidBytecode("cell")
        return names[index]

    def _load(self, state: _State, name: str) -> Value:
        value = state.variables.get(name)
        if value is not None:
            return value
        if name in self._code.free:
            place = self._code.free.index(name)
            if place < len(self._function.closure):
                return self._interpreter.value(self._function.closure[place]).spelled(name)
        raise NotUnderstood(f"the variable {name} has no value there", name)

    def load_fast(self, state: _State, argument: int) -> None:
        state.stack.append(self._load(state, self._fast_name(argument)))

    def load_pair(self, state: _State, argument: int) -> None:
        self.load_fast(state, argument >> 4)
        self.load_fast(state, argument & 15)

    def store_fast(self, state: _State, argument: int) -> None:
        name = self._fast_name(argument)
        value = state.pop()
        if isinstance(value, Null):
            state.variables.pop(name, None)
            return
        plain = isinstance(value, (Unknown, Const))
        state.variables[name] = value if plain else value.spelled(name)

    def store_load(self, state: _State, argument: int) -> None:
        self.store_fast(state, argument >> 4)
        self.load_fast(state, argument & 15)

    def store_pair(self, state: _State, argument: int) -> None:
        self.store_fast(state, argument >> 4)
        self.store_fast(state, argument & 15)

    def delete_fast(self, state: _State, argument: int) -> None:
        state.variables.pop(self._fast_name(argument), None)

    def load_deref(self, state: _State, argument: int) -> None:
        state.stack.append(self._load(state, self._cell_name(argument)))

    def store_deref(self, state: _State, argument: int) -> None:
        name = self._cell_name(argument)
        if name in self._code.free:
            raise NotUnderstood("it changes a variable outside of itself", name)
        state.variables[name] = state.pop()

    def load_closure(self, state: _State, argument: int) -> None:
        name = self._cell_name(argument)
        state.stack.append(Const(("cell", name), tuple, text=name))

    def load_const(self, state: _State, argument: int) -> None:
        state.stack.append(self._constant(argument))

    def load_small_int(self, state: _State, argument: int) -> None:
        state.stack.append(const(argument))

    def load_global(self, state: _State, argument: int) -> None:
        if self._version >= (3, 11):
            null, argument = argument & 1, argument >> 1
            if null and self._version < (3, 13):
                state.stack.append(NULL)
        else:
            null = 0
        name = self._name(argument)
        held = self._function.globals
        found = self._semantics.value(held[name]) if name in held else self._semantics.builtin(name)
        state.stack.append(found.spelled(name))
        if null and self._version >= (3, 13):
            state.stack.append(NULL)

    def load_attr(self, state: _State, argument: int) -> None:
        method = False
        if self._version >= (3, 12):
            method, argument = bool(argument & 1), argument >> 1
        self._attribute(state, argument, method=method)

    def load_method(self, state: _State, argument: int) -> None:
        self._attribute(state, argument, method=self._version >= (3, 11))

    def _attribute(self, state: _State, index: int, *, method: bool) -> None:
        """An attribute; with ``method`` an empty place stands beside it, as beside any callable."""
        owner = state.pop()
        name = self._name(index)
        text = f"{owner.text}.{name}"
        found = self._semantics.attribute(owner, name).spelled(text)
        if method and self._version < (3, 13):
            state.stack.append(NULL)
        state.stack.append(found)
        if method and self._version >= (3, 13):
            state.stack.append(NULL)

    def store_attr(self, state: _State, argument: int) -> None:
        owner, value = state.pop(), state.pop()
        self._semantics.store(owner, self._name(argument), value)

    def import_name(self, state: _State, argument: int) -> None:
        names, _level = state.pop(), state.pop()
        module = self._name(argument)
        whole = module if not is_none(names) else module.partition(".")[0]
        state.stack.append(Library(whole, text=whole))

    def import_from(self, state: _State, argument: int) -> None:
        module = state.stack[state.at(1)]
        name = self._name(argument)
        if not isinstance(module, Library):
            raise InvalidBytecode("import")
        state.stack.append(Library(f"{module.name}.{name}", text=name))

    # The stack

    def pop_top(self, state: _State, _argument: int) -> None:
        state.pop()

    def push_null(self, state: _State, _argument: int) -> None:
        state.stack.append(NULL)

    def copy(self, state: _State, argument: int) -> None:
        state.stack.append(state.stack[state.at(argument)])

    def dup_top(self, state: _State, _argument: int) -> None:
        self.copy(state, 1)

    def dup_top_two(self, state: _State, _argument: int) -> None:
        self.copy(state, 2)
        self.copy(state, 2)

    def swap(self, state: _State, argument: int) -> None:
        top, other = state.at(1), state.at(argument)
        state.stack[top], state.stack[other] = state.stack[other], state.stack[top]

    def rotate(self, state: _State, argument: int) -> None:
        state.stack.insert(state.at(argument), state.pop())

    # Containers

    def build(self, state: _State, argument: int, kind: str) -> None:
        items = state.pop_many(argument)
        text = ", ".join(each.text for each in items)
        marks = {"tuple": "({})", "list": "[{}]", "set": "{{{}}}"}[kind]
        state.stack.append(Items(kind, tuple(items), text=marks.format(text)))  # type: ignore[arg-type]

    def build_map(self, state: _State, argument: int) -> None:
        flat = state.pop_many(2 * argument)
        pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
        state.stack.append(Items("dict", pairs, text="{...}"))

    def build_const_key_map(self, state: _State, argument: int) -> None:
        keys = state.pop()
        values = state.pop_many(argument)
        if not isinstance(keys, Const) or not isinstance(keys.value, tuple):
            raise InvalidBytecode("keys")
        if len(keys.value) != argument:
            raise InvalidBytecode("keys")
        pairs = tuple((const(key), value) for key, value in zip(keys.value, values, strict=True))
        state.stack.append(Items("dict", pairs, text="{...}"))

    def build_slice(self, state: _State, argument: int) -> None:
        parts = state.pop_many(argument)
        state.stack.append(_slice(parts))

    def build_string(self, state: _State, argument: int) -> None:
        parts = state.pop_many(argument)
        state.stack.append(_formatted(parts))

    def format_value(self, state: _State, argument: int) -> None:
        parts = state.pop_many(2 if argument & 4 else 1)
        state.stack.append(_formatted(parts))

    def format_simple(self, state: _State, _argument: int) -> None:
        state.stack.append(_formatted([state.pop()]))

    def format_with_spec(self, state: _State, _argument: int) -> None:
        state.stack.append(_formatted(state.pop_many(2)))

    def extend(self, state: _State, argument: int) -> None:
        more = state.pop()
        place = state.at(argument)
        held = state.stack[place]
        items = more.value if isinstance(more, Const) and isinstance(more.value, tuple) else None
        added: tuple[object, ...] | None = None
        if items is not None:
            added = tuple(const(each) for each in items)
        elif isinstance(more, Items) and more.kind != "dict":
            added = more.items
        if not isinstance(held, Items) or added is None:
            state.stack[place] = Unknown("it unpacks a sequence", text=f"*{more.text}")
        else:
            state.stack[place] = replace(held, items=(*held.items, *added), text="(...)")

    def merge(self, state: _State, argument: int) -> None:
        more = state.pop()
        place = state.at(argument)
        held = state.stack[place]
        if isinstance(held, Items) and isinstance(more, Items) and more.kind == "dict":
            state.stack[place] = replace(held, items=(*held.items, *more.items))
        else:
            state.stack[place] = Unknown("it unpacks keyword arguments", text=f"**{more.text}")

    def to_tuple(self, state: _State, _argument: int) -> None:
        value = state.pop()
        state.stack.append(replace(value, kind="tuple") if isinstance(value, Items) else value)

    def intrinsic(self, state: _State, argument: int) -> None:
        positive, list_to_tuple = 5, 6
        if argument == list_to_tuple:
            self.to_tuple(state, 0)
        elif argument == positive:
            state.stack.append(self._unary("+", state.pop()))
        else:
            raise NotUnderstood("it has a part that is not followed here", self._code.name)

    def build_unpacked(self, state: _State, argument: int, kind: str) -> None:
        parts = state.pop_many(argument)
        state.stack.append(Items("dict" if kind == "dict" else kind, ()))  # type: ignore[arg-type]
        for part in parts:
            state.stack.append(part)
            (self.merge if kind == "dict" else self.extend)(state, 1)

    def unpack_sequence(self, state: _State, argument: int) -> None:
        value = state.pop()
        for each in reversed(self._unpacked(value, argument)):
            state.stack.append(each)

    def unpack_ex(self, state: _State, argument: int) -> None:
        value = state.pop()
        before, after = argument & 255, argument >> 8
        rest = Unknown("it takes the rest of a sequence", text=f"*{value.text}")
        first = self._unpacked(value, before)
        last = tuple(Unknown("it takes the last items", text=value.text) for _ in range(after))
        for each in reversed((*first, rest, *last)):
            state.stack.append(each)

    def _unpacked(self, value: Value, count: int) -> tuple[Value, ...]:
        if count > MAX_PATHS:
            raise NotUnderstood("it unpacks a long sequence", value.text)
        if isinstance(value, Unknown):
            return tuple(replace(value, text=f"{value.text}[{i}]") for i in range(count))
        return self._semantics.unpack(value, count)

    # Operators

    def _binary(self, operator: str, left: Value, right: Value, in_place: bool) -> Value:  # noqa: FBT001
        text = f"({left.text} {operator} {right.text})"
        if in_place and not _immutable(left):
            raise NotUnderstood(
                "it changes a value in place", f"{left.text} {operator}= {right.text}"
            )
        for side in (left, right):
            if isinstance(side, Unknown):
                return replace(side, text=text)
        return self._semantics.binary(operator, left, right).spelled(text)

    def _unary(self, operator: str, value: Value) -> Value:
        text = f"{operator}{value.text}"
        if isinstance(value, Unknown):
            return replace(value, text=text)
        return self._semantics.unary(operator, value).spelled(text)

    def binary_op(self, state: _State, argument: int) -> None:
        right, left = state.pop(), state.pop()
        if argument == _SUBSCRIPT and self._version >= (3, 14):
            state.stack.append(self._subscript(left, right))
            return
        count = len(_BINARY_OPS)
        if argument >= 2 * count:
            raise InvalidBytecode("operator")
        operator = _BINARY_OPS[argument % count]
        state.stack.append(self._binary(operator, left, right, argument >= count))

    def unary_not(self, state: _State, _argument: int) -> None:
        value = state.pop()
        known = self._semantics.truth(value)
        text = f"not {value.text}"
        state.stack.append(
            Unknown("it tests a condition", text=text) if known is None else const(not known)
        )

    def compare(self, state: _State, argument: int) -> None:
        table = _COMPARE_38 if self._version == (3, 8) else _COMPARE
        if self._version >= (3, 13):
            argument >>= 5
        elif self._version >= (3, 12):
            argument >>= 4
        if argument >= len(table):
            raise InvalidBytecode("comparison")
        self._compare(state, table[argument])

    def _compare(self, state: _State, operator: str) -> None:
        right, left = state.pop(), state.pop()
        text = f"({left.text} {operator} {right.text})"
        if operator in ("is", "is not") and is_none(right):
            known = self._none(left)
            if known is not None:
                state.stack.append(const(known == (operator == "is")))
                return
        for side in (left, right):
            if isinstance(side, Unknown):
                state.stack.append(replace(side, text=text))
                return
        state.stack.append(self._semantics.binary(operator, left, right).spelled(text))

    def is_op(self, state: _State, argument: int) -> None:
        self._compare(state, "is not" if argument else "is")

    def contains(self, state: _State, argument: int) -> None:
        self._compare(state, "not in" if argument else "in")

    def _subscript(self, owner: Value, key: Value) -> Value:
        text = f"{owner.text}[{bare(key.text) if isinstance(key, Items) else key.text}]"
        for side in (owner, key):
            if isinstance(side, Unknown):
                return replace(side, text=text)
        return self._semantics.subscript(owner, key).spelled(text)

    def subscript(self, state: _State, _argument: int) -> None:
        key, owner = state.pop(), state.pop()
        state.stack.append(self._subscript(owner, key))

    def binary_slice(self, state: _State, _argument: int) -> None:
        owner, *parts = state.pop_many(3)
        state.stack.append(self._subscript(owner, _slice(parts)))

    def store_subscript(self, state: _State, _argument: int) -> None:
        key, owner, value = state.pop(), state.pop(), state.pop()
        self._semantics.store_item(owner, key, value)

    # Calls

    def call_function(self, state: _State, argument: int) -> None:
        args = state.pop_many(argument)
        self._push_call(state, state.pop(), args, ())

    def call_function_kw(self, state: _State, argument: int) -> None:
        names = self._keyword_names(state.pop())
        args = state.pop_many(argument)
        self._push_call(state, state.pop(), args, names)

    def kw_names(self, state: _State, argument: int) -> None:
        if argument >= len(self._code.constants):
            raise InvalidBytecode("constant")
        state.keyword_names = self._keyword_names(const(self._code.constants[argument]))

    def call(self, state: _State, argument: int) -> None:
        names, state.keyword_names = state.keyword_names, ()
        args = state.pop_many(argument)
        self._push_placed(state, args, names)

    def call_kw(self, state: _State, argument: int) -> None:
        names = self._keyword_names(state.pop())
        args = state.pop_many(argument)
        self._push_placed(state, args, names)

    def _push_placed(self, state: _State, args: list[Value], names: tuple[str, ...]) -> None:
        """A call of Python 3.11 and later: two places below the arguments, one perhaps empty."""
        lower, upper = state.pop_many(2)
        if isinstance(lower, Null):
            self._push_call(state, upper, args, names)
        elif isinstance(upper, Null):
            self._push_call(state, lower, args, names)
        else:
            self._push_call(state, lower, [upper, *args], names)

    def call_ex(self, state: _State, argument: int) -> None:
        # Python 3.14 always has the place of the keyword arguments.
        keywords = state.pop() if argument & 1 or self._version >= (3, 14) else NULL
        args = state.pop()
        if self._version >= (3, 13):
            func, _null = state.pop_many(2)
        else:
            func = state.pop()
            if self._version >= (3, 11):
                state.pop()
        text = f"{func.text}(*{args.text})"
        if isinstance(args, Const) and isinstance(args.value, tuple):
            args = Items("tuple", tuple(const(each) for each in args.value))
        named: list[tuple[str, Value]] = []
        if isinstance(keywords, Items):
            for pair in keywords.items:
                match pair:
                    case (Const(value=str(key)), Value() as value):
                        named.append((key, value))
                    case _:
                        raise NotUnderstood("it passes on arguments that are not known", text)
        elif not isinstance(keywords, Null):
            raise NotUnderstood("it passes on arguments that are not known", text)
        if not isinstance(args, Items) or args.kind == "dict":
            raise NotUnderstood("it passes on arguments that are not known", text)
        given = [each for each in args.items if isinstance(each, Value)]
        self._push_call(
            state, func, [*given, *(value for _, value in named)], tuple(key for key, _ in named)
        )

    def _keyword_names(self, value: Value) -> tuple[str, ...]:
        if isinstance(value, Const) and isinstance(value.value, tuple):
            names = tuple(each for each in value.value if isinstance(each, str))
            if len(names) == len(value.value):
                return names
        raise InvalidBytecode("keyword names")

    def _push_call(
        self, state: _State, func: Value, args: list[Value], names: tuple[str, ...]
    ) -> None:
        if len(names) > len(args):
            raise InvalidBytecode("keyword names")
        split = len(args) - len(names)
        positional, keywords = tuple(args[:split]), dict(zip(names, args[split:], strict=True))
        shown = [each.text for each in positional]
        shown += [f"{name}={value.text}" for name, value in keywords.items()]
        text = f"{func.text}({', '.join(shown)})"
        if isinstance(func, Unknown):
            raise NotUnderstood("it calls something that is not known", text)
        try:
            found = self._interpreter.apply(func, positional, keywords)
        except NotUnderstood as error:
            raise (
                error if error.code or error.subject else NotUnderstood(error.reason, text)
            ) from error
        state.stack.append(found.spelled(text))

    # Functions and contexts

    def make_function(self, state: _State, argument: int) -> None:
        if self._version < (3, 11):
            state.pop()  # the qualified name
        code = state.pop()
        made = code_object(code.value) if isinstance(code, Const) else None
        if made is None:
            raise InvalidBytecode("function")
        function: Value = Function(made, self._function.globals, text=made.name)
        for flag in (8, 4, 2, 1) if self._version < (3, 13) else ():
            if argument & flag:
                function = self._with_part(function, flag, state.pop(), state)
        state.stack.append(function)

    def set_function_attribute(self, state: _State, argument: int) -> None:
        function, part = state.pop(), state.pop()
        state.stack.append(self._with_part(function, argument, part, state))

    def _with_part(self, function: Value, flag: int, part: Value, state: _State) -> Value:
        """A function with its closure (8), defaults (1) or those of keywords (2); 4: annotations."""
        if not isinstance(function, Function):
            raise InvalidBytecode("function")
        if flag == 8 and isinstance(part, Items):  # noqa: PLR2004
            cells = tuple(self._cell(each, state) for each in part.items)
            return replace(function, closure=cells)
        if flag == 1 and isinstance(part, Const) and isinstance(part.value, tuple):
            return replace(function, defaults=tuple(const(each) for each in part.value))
        if flag == 1 and isinstance(part, Items):
            return replace(function, defaults=part.items)
        if flag == 2 and isinstance(part, Items):  # noqa: PLR2004
            named = {pair[0].value: pair[1] for pair in part.items}  # type: ignore[index]
            return replace(function, keyword_defaults=named)
        if flag in (4, 16):
            return function
        raise NotUnderstood("it makes a function with values of its own", function.text)

    def _cell(self, cell: object, state: _State) -> Value:
        """What a function within this one finds in a variable, which must have one value only."""
        match cell:
            case Const(value=("cell", str(name))):
                changes = sum(
                    each.name in ("STORE_DEREF", "STORE_FAST") and name in self._stored_name(each)
                    for each in self._instructions
                )
                if changes <= (0 if name in self._code.parameters else 1):
                    return self._load(state, name)
                raise NotUnderstood("a function within it uses a variable that changes", name)
            case Value():
                # Since Python 3.13 a cell is loaded like any variable.
                return cell
        raise InvalidBytecode("closure")

    def _stored_name(self, instruction: Instruction) -> tuple[str, ...]:
        cell = instruction.name == "STORE_DEREF"
        return ((self._cell_name if cell else self._fast_name)(instruction.argument),)

    def before_with(self, state: _State, _argument: int) -> None:
        context = state.pop()
        if not isinstance(context, Context):
            raise NotUnderstood("it enters a context that is not known", f"with {context.text}")
        state.stack += [context, Unknown("it enters a context", text=context.text)]

    def load_special(self, state: _State, _argument: int) -> None:
        context = state.pop()
        if not isinstance(context, Context):
            raise NotUnderstood("it enters a context that is not known", f"with {context.text}")
        state.stack += [context, NULL]

    def load_assertion_error(self, state: _State, _argument: int) -> None:
        state.stack.append(Library("builtins.AssertionError", text="AssertionError"))


Step = Callable[[_Paths, _State, int], None]


def _built(kind: str) -> Step:
    return lambda paths, state, argument: paths.build(state, argument, kind)


def _unpacking(kind: str) -> Step:
    return lambda paths, state, argument: paths.build_unpacked(state, argument, kind)


def _rotation(count: int) -> Step:
    return lambda paths, state, _argument: paths.rotate(state, count)


_STEPS: Final[dict[str, Step]] = {
    "LOAD_FAST": _Paths.load_fast,
    "LOAD_FAST_CHECK": _Paths.load_fast,
    "LOAD_FAST_BORROW": _Paths.load_fast,
    "LOAD_FAST_LOAD_FAST": _Paths.load_pair,
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": _Paths.load_pair,
    "STORE_FAST": _Paths.store_fast,
    "STORE_FAST_LOAD_FAST": _Paths.store_load,
    "STORE_FAST_STORE_FAST": _Paths.store_pair,
    "DELETE_FAST": _Paths.delete_fast,
    "LOAD_DEREF": _Paths.load_deref,
    "STORE_DEREF": _Paths.store_deref,
    "LOAD_CLOSURE": _Paths.load_closure,
    "LOAD_CONST": _Paths.load_const,
    "LOAD_FAST_AND_CLEAR": _Paths.load_fast_and_clear,
    "GET_ITER": _Paths.get_iter,
    "YIELD_VALUE": _Paths.yield_value,
    "RETURN_GENERATOR": _Paths.push_none,
    "GEN_START": _Paths.pop_top,
    "POP_ITER": _Paths.pop_top,
    "LIST_APPEND": _Paths.append,
    "SET_ADD": _Paths.append,
    "LOAD_SMALL_INT": _Paths.load_small_int,
    "LOAD_GLOBAL": _Paths.load_global,
    "LOAD_ATTR": _Paths.load_attr,
    "LOAD_METHOD": _Paths.load_method,
    "STORE_ATTR": _Paths.store_attr,
    "IMPORT_NAME": _Paths.import_name,
    "IMPORT_FROM": _Paths.import_from,
    "LOAD_ASSERTION_ERROR": _Paths.load_assertion_error,
    "LOAD_COMMON_CONSTANT": _Paths.load_assertion_error,
    "POP_TOP": _Paths.pop_top,
    "PUSH_NULL": _Paths.push_null,
    "COPY": _Paths.copy,
    "DUP_TOP": _Paths.dup_top,
    "DUP_TOP_TWO": _Paths.dup_top_two,
    "SWAP": _Paths.swap,
    "ROT_TWO": _rotation(2),
    "ROT_THREE": _rotation(3),
    "ROT_FOUR": _rotation(4),
    "ROT_N": _Paths.rotate,
    "BUILD_TUPLE": _built("tuple"),
    "BUILD_LIST": _built("list"),
    "BUILD_SET": _built("set"),
    "BUILD_MAP": _Paths.build_map,
    "BUILD_CONST_KEY_MAP": _Paths.build_const_key_map,
    "BUILD_SLICE": _Paths.build_slice,
    "BUILD_STRING": _Paths.build_string,
    "FORMAT_VALUE": _Paths.format_value,
    "FORMAT_SIMPLE": _Paths.format_simple,
    "FORMAT_WITH_SPEC": _Paths.format_with_spec,
    "CONVERT_VALUE": _Paths.format_simple,
    "LIST_EXTEND": _Paths.extend,
    "SET_UPDATE": _Paths.extend,
    "DICT_UPDATE": _Paths.merge,
    "DICT_MERGE": _Paths.merge,
    "LIST_TO_TUPLE": _Paths.to_tuple,
    "CALL_INTRINSIC_1": _Paths.intrinsic,
    "BUILD_TUPLE_UNPACK": _unpacking("tuple"),
    "BUILD_TUPLE_UNPACK_WITH_CALL": _unpacking("tuple"),
    "BUILD_LIST_UNPACK": _unpacking("list"),
    "BUILD_SET_UNPACK": _unpacking("set"),
    "BUILD_MAP_UNPACK": _unpacking("dict"),
    "BUILD_MAP_UNPACK_WITH_CALL": _unpacking("dict"),
    "UNPACK_SEQUENCE": _Paths.unpack_sequence,
    "UNPACK_EX": _Paths.unpack_ex,
    "BINARY_OP": _Paths.binary_op,
    "BINARY_SUBSCR": _Paths.subscript,
    "BINARY_SLICE": _Paths.binary_slice,
    "STORE_SUBSCR": _Paths.store_subscript,
    "UNARY_NOT": _Paths.unary_not,
    "COMPARE_OP": _Paths.compare,
    "IS_OP": _Paths.is_op,
    "CONTAINS_OP": _Paths.contains,
    "CALL_FUNCTION": _Paths.call_function,
    "CALL_METHOD": _Paths.call_function,
    "CALL_FUNCTION_KW": _Paths.call_function_kw,
    "CALL_FUNCTION_EX": _Paths.call_ex,
    "KW_NAMES": _Paths.kw_names,
    "CALL": _Paths.call,
    "CALL_KW": _Paths.call_kw,
    "MAKE_FUNCTION": _Paths.make_function,
    "SET_FUNCTION_ATTRIBUTE": _Paths.set_function_attribute,
    "BEFORE_WITH": _Paths.before_with,
    "SETUP_WITH": _Paths.before_with,
    "LOAD_SPECIAL": _Paths.load_special,
    "WITH_CLEANUP_START": _Paths.pop_top,
}


def _immutable(value: Value) -> bool:
    """Whether an operation in place can only make a new value of it."""
    if isinstance(value, Unknown):
        return value.reason == COUNTED
    return isinstance(value, Const) or (isinstance(value, Items) and value.kind == "tuple")


def _literal(value: object) -> Value:
    """A constant in the code; a tuple of constants stays one."""
    return const(value)


def _slice(parts: Sequence[Value]) -> Slice:
    text = ":".join("" if is_none(part) else part.text for part in parts)
    return Slice(tuple(parts), text=text)


def _formatted(parts: Sequence[Value]) -> Value:
    return Unknown("it formats a text", text="".join(part.text for part in parts))

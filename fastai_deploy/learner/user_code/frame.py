"""What an instruction works on: the function it belongs to, and the path that reached it."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fastai_deploy.learner.reading.graph import Call
from fastai_deploy.learner.user_code.bytecode import (
    CodeObject,
    Instruction,
    InvalidBytecode,
    Version,
    code_object,
    decode,
)
from fastai_deploy.learner.user_code.interpreter import Interpreter, NotUnderstood, Semantics
from fastai_deploy.learner.user_code.values import MAX_WEIGHT, Const, Function, Value, const


@dataclass
class Path:
    """One path through a function: its position, its stack, and its variables."""

    position: int
    stack: list[Value]
    variables: dict[str, Value]
    keyword_names: tuple[str, ...] = ()
    yielded: list[Value] = field(default_factory=list)

    def copy(self) -> Path:
        """A copy, to be followed in another direction."""
        return replace(
            self,
            stack=list(self.stack),
            variables=dict(self.variables),
            yielded=list(self.yielded),
        )

    def push(self, *values: Value) -> None:
        """Push values, the last one on top. Raises NotUnderstood for enormous ones."""
        if any(each.weight > MAX_WEIGHT for each in values):
            raise NotUnderstood("it creates a value too large to follow")
        self.stack += values

    def exchange(self, depth: int, change: Callable[[Value], Value]) -> None:
        """Change the value at ``depth``. Raises what ``push`` and ``at`` raise."""
        place = self.at(depth)
        self.push(change(self.stack[place]))
        self.stack[place] = self.stack.pop()

    def pop(self) -> Value:
        """Take the top of the stack. Raises InvalidBytecode."""
        if not self.stack:
            raise InvalidBytecode("stack")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Value]:
        """Pop the top ``count`` values, the top one last. Raises InvalidBytecode."""
        if not 0 <= count <= len(self.stack):
            raise InvalidBytecode("stack")
        rest = len(self.stack) - count
        taken = self.stack[rest:]
        del self.stack[rest:]
        return taken

    def at(self, depth: int) -> int:
        """The index of the value at ``depth``, 1 for the top. Raises InvalidBytecode."""
        if not 1 <= depth <= len(self.stack):
            raise InvalidBytecode("stack")
        return len(self.stack) - depth


class Frame:
    """A function that is being followed: its instructions, constants and names.

    Raises InvalidBytecode if ``interpreter.version`` cannot have compiled the function.
    """

    def __init__(self, interpreter: Interpreter, function: Function) -> None:
        self.interpreter = interpreter
        self.semantics: Semantics = interpreter.semantics
        self.version: Version = interpreter.version
        self.function = function
        self.code: CodeObject = function.code
        self.instructions = decode(function.code, interpreter.version)

    def constant(self, index: int) -> Value:
        """A constant of the code. Raises InvalidBytecode."""
        if not index < len(self.code.constants):
            raise InvalidBytecode("constant")
        value = self.code.constants[index]
        if isinstance(value, (types.CodeType, Call)) and code_object(value) is not None:
            return Const(value, type(value), text="lambda")
        return self.semantics.value(value) if isinstance(value, Call) else const(value)

    def name(self, index: int) -> str:
        """A global name or an attribute's name. Raises InvalidBytecode."""
        if not index < len(self.code.names):
            raise InvalidBytecode("name")
        return self.code.names[index]

    def variable(self, index: int) -> str:
        """The name of a local variable. Raises InvalidBytecode."""
        names = self.code.fast if self.code.new_form else self.code.variables
        if not index < len(names):
            raise InvalidBytecode("variable")
        return names[index]

    def cell(self, index: int) -> str:
        """The name of a variable shared with a nested function. Raises InvalidBytecode."""
        if self.code.new_form:
            return self.variable(index)
        names = (*self.code.cells, *self.code.free)
        if not index < len(names):
            raise InvalidBytecode("cell")
        return names[index]

    def load(self, path: Path, name: str) -> Value:
        """The value of a variable of this function or an enclosing one.

        Raises NotUnderstood if nothing has been stored in it.
        """
        value = path.variables.get(name)
        if value is not None:
            return value
        if name in self.code.free:
            place = self.code.free.index(name)
            if place < len(self.function.closure):
                return self.interpreter.value(self.function.closure[place]).spelled(name)
        raise NotUnderstood(f"it reads the variable {name} before it has a value", name)

    def stores(self, instruction: Instruction, name: str) -> bool:
        """Whether an instruction stores a value in this variable. Raises InvalidBytecode."""
        if instruction.name == "STORE_DEREF":
            return self.cell(instruction.argument) == name
        return instruction.name == "STORE_FAST" and self.variable(instruction.argument) == name


Step = Callable[[Frame, Path, int], None]
"""What an instruction does to a path, given its argument."""

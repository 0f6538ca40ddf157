"""Every path through one function, instruction by instruction.

    start -> steps (data_instructions, compute_instructions) -> jump -> ... -> return

If a condition is not known, both branches are followed, and must return the same value. Loops run
over containers whose every item is known. Exceptions are not followed: a path that raises returns
nothing, and code that catches exceptions is not understood.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastai_deploy.learner.user_code import compute_instructions, data_instructions
from fastai_deploy.learner.user_code.bytecode import (
    Instruction,
    InvalidBytecode,
    handlers,
    jump_target,
)
from fastai_deploy.learner.user_code.compute_instructions import is_known_none
from fastai_deploy.learner.user_code.frame import Frame, Path, Step
from fastai_deploy.learner.user_code.interpreter import Interpreter, NotUnderstood
from fastai_deploy.learner.user_code.values import Function, Iterator, Unknown, Value, items_of

_GENERATOR: Final = 0x20  # a flag of a code object
_STEPS: Final[dict[str, Step]] = {**data_instructions.STEPS, **compute_instructions.STEPS}
# Instructions without effect on the stack or a variable.
_SKIPPED: Final = frozenset(
    {"NOP", "RESUME", "PRECALL", "COPY_FREE_VARS", "MAKE_CELL", "POP_BLOCK", "NOT_TAKEN",
     "BEGIN_FINALLY", "WITH_CLEANUP_FINISH", "END_FINALLY", "POP_FINALLY", "TO_BOOL", "CACHE"}
)  # fmt: skip
# The instructions of a handler that only restores variables and raises again.
_CLEANING: Final = frozenset(
    {"COPY", "POP_EXCEPT", "SWAP", "POP_TOP", "STORE_FAST", "CALL_INTRINSIC_1",
     "STORE_FAST_STORE_FAST"}
)  # fmt: skip
_UNCONDITIONAL: Final = frozenset(
    {"JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"}
)
# The instructions after a loop that clean up its iterator: END_FOR and those that go with it.
_LOOP_ENDS: Final = {(3, 12): 1, (3, 13): 2, (3, 14): 1}


def follow_function(
    interpreter: Interpreter, function: Function, variables: dict[str, Value]
) -> Value:
    """What a function returns, or a generator yields, for these values of its parameters.

    Raises NotUnderstood, and InvalidBytecode for code that this Python cannot have compiled.
    """
    paths = _Paths(Frame(interpreter, function), variables)
    return paths.yielded() if function.code.flags & _GENERATOR else paths.returned()


class _Paths:
    """Every path through one function."""

    def __init__(self, frame: Frame, variables: dict[str, Value]) -> None:
        self._frame = frame
        self._places = {each.offset: i for i, each in enumerate(frame.instructions)}
        self._variables = variables
        self._check_handlers()

    def returned(self) -> Value:
        """The value that every path returns."""
        waiting = [self._start()]
        found: list[Value] = []
        while waiting:
            result, ways = self._follow(waiting.pop())
            waiting.extend(ways)
            if result is not None:
                found.append(result)
        if not found:
            raise NotUnderstood("it returns nothing", self._frame.code.name)
        for other in found[1:]:
            if other != found[0]:
                unknown = next((each for each in found if isinstance(each, Unknown)), other)
                raise NotUnderstood(
                    "it returns one value or another, depending on a condition",
                    f"return {unknown.text}",
                )
        return found[0]

    def yielded(self) -> Value:
        """All that a generator yields, at once, because code followed here has no other effect."""
        path = self._start()
        result, _ways = self._follow(path)
        if result is None:
            raise NotUnderstood(
                "it yields values that depend on a condition", self._frame.code.name
            )
        return items_of("list", path.yielded).spelled(self._frame.code.name)

    def _start(self) -> Path:
        return Path(0, [], dict(self._variables))

    def _check_handlers(self) -> None:
        """Accept only the exception handlers of ``with``, generators and comprehensions.

        Until Python 3.10 ``try`` has its own instruction, which no step knows.
        """
        instructions = self._frame.instructions
        for offset in handlers(self._frame.code):
            place = self._places.get(offset)
            if place is None:
                raise InvalidBytecode("exception table")
            names = [each.name for each in instructions[place:]]
            ends = names.index("RERAISE") if "RERAISE" in names else len(names)
            with_block = names[:2] == ["PUSH_EXC_INFO", "WITH_EXCEPT_START"]
            if not with_block and not set(names[:ends]) <= _CLEANING:
                raise NotUnderstood("it has a try statement", self._frame.code.name)

    def _follow(self, path: Path) -> tuple[Value | None, list[Path]]:
        """Follow a path to its return value or to where it branches; to neither if it raises."""
        instructions = self._frame.instructions
        while True:
            self._frame.interpreter.budget.step()
            if not 0 <= path.position < len(instructions):
                raise InvalidBytecode("end of code")
            instruction = instructions[path.position]
            path.position += 1
            name = instruction.name
            if name == "RETURN_VALUE":
                return path.pop(), []
            if name == "RETURN_CONST":
                return self._frame.constant(instruction.argument), []
            if name == "RAISE_VARARGS":
                return None, []
            if name == "FOR_ITER":
                self._iterate(path, instruction)
            elif "JUMP" in name:
                ways = self._jump(path, instruction)
                if ways:
                    return None, ways
            elif name not in _SKIPPED:
                self._step(path, instruction)

    def _step(self, path: Path, instruction: Instruction) -> None:
        step = _STEPS.get(instruction.name)
        if step is None:
            raise NotUnderstood(
                f"it uses an instruction that fdeploy does not follow ({instruction.name.lower()})",
                self._frame.code.name,
            )
        step(self._frame, path, instruction.argument)

    def _target(self, instruction: Instruction) -> int:
        place = self._places.get(jump_target(instruction, self._frame.version))
        if place is None:
            raise InvalidBytecode("jump")
        return place

    def _jump(self, path: Path, instruction: Instruction) -> list[Path]:
        """Take a jump, or return both branches if its condition is not known."""
        name, target = instruction.name, self._target(instruction)
        if name in _UNCONDITIONAL:
            path.position = target
            return []
        value = path.pop()
        if "NONE" in name:
            known, jumps_on = is_known_none(value), "NOT_NONE" not in name
        else:
            known, jumps_on = self._frame.semantics.truth(value), "TRUE" in name
        kept = value if name.endswith("_OR_POP") else None
        if known is not None:
            if known == jumps_on:
                _go(path, target, kept)
            return []
        self._frame.interpreter.budget.fork()
        other = path.copy()
        _go(other, target, kept)
        return [other, path]

    def _iterate(self, path: Path, instruction: Instruction) -> None:
        """The next iteration of a loop, or its end."""
        target = self._target(instruction)
        iterator = path.stack[path.at(1)]
        if not isinstance(iterator, Iterator):
            raise InvalidBytecode("loop")
        if iterator.items:
            path.stack[-1] = replace(iterator, items=iterator.items[1:])
            path.push(iterator.items[0])
            return
        if self._frame.version < (3, 14):  # since then POP_ITER removes the iterator
            path.pop()
        path.position = target + _LOOP_ENDS.get(self._frame.version, 0)


def _go(path: Path, target: int, kept: Value | None) -> None:
    """Take a jump; ``kept`` is the condition, if it stays on the stack."""
    path.position = target
    if kept is not None:
        path.push(kept)

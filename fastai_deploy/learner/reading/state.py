"""The state of the symbolic pickle machine, and the limits that keep a hostile file harmless."""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from fastai_deploy.errors import LearnerTooComplex
from fastai_deploy.learner.reading.sources import truncated
from fastai_deploy.learner.reading.stream import Stream
from fastai_deploy.learner.reading.values import Call, Global

FIRST_PYTHON3_PROTOCOL = 3

PersistentLoad = Callable[[object], object]


@dataclass(frozen=True)
class Limits:
    """What a real learner never needs more of.

    ``steps``: opcodes. A RoBERTa learner with its slow tokenizer has about 700,000, a v2 learner
    two more for each row of its training table. ``memory``: bytes that the graph may take, counted
    from above while it is built, beside the size of the pickle. ``line``: bytes of a text opcode.
    ``digits``: of a whole number; nothing that is pickled by a learner has more than 20.
    """

    steps: int = 20_000_000
    memory: int = 512 << 20
    line: int = 1 << 20
    digits: int = 300


def limits_of(size: int) -> Limits:
    """The limits for a file of ``size`` bytes, so that reading takes a second a megabyte at most.

    The learners of the tests have up to 0.14 steps a byte and 13 bytes of graph; where weights are
    more than a toy's, a hundredth of that. The first numbers are for small files that someone
    compressed: a pickle shrinks to a tenth.
    """
    most = Limits()
    return replace(
        most,
        steps=min(most.steps, 250_000 + 7 * size // 20),
        memory=min(most.memory, (64 << 20) + 16 * size),
    )


class PickleState:
    """Stack, marks and memo of one pickle, and what it would import and call."""

    __slots__ = (
        "_left",
        "calls",
        "globals",
        "limits",
        "marks",
        "memo",
        "patched",
        "persistent_load",
        "protocol",
        "stack",
        "start",
        "stream",
    )

    def __init__(self, stream: Stream, persistent_load: PersistentLoad, limits: Limits) -> None:
        self.stream = stream
        self.start = stream.offset
        self.persistent_load = persistent_load
        self.limits = limits
        self.protocol = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.globals: dict[Global, int] = {}
        self.calls: list[Call] = []
        self.patched: list[Global] = []
        self._left = limits.memory + stream.source.size

    def spend(self, size: int) -> None:
        """Count ``size`` bytes of memory before they are taken. Raises LearnerTooComplex."""
        self._left -= size
        if self._left < 0:
            raise LearnerTooComplex(
                "reading the file would take more memory than any learner needs",
                hint="the file is damaged or was made to do harm; export the learner again",
            )

    def damaged(self, what: str) -> NoReturn:
        """Raise LearnerTruncated for a stream that no pickler writes."""
        raise truncated(f"the pickle is damaged near byte {self.stream.offset}: {what}")

    def pop(self) -> object:
        """Take the top of the stack."""
        stack = self.stack
        if len(stack) <= (self.marks[-1] if self.marks else 0):
            self.damaged("a value is missing")
        return stack.pop()

    def top(self) -> object:
        """The top of the stack, left where it is."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.damaged("a value is missing")
        return self.stack[-1]

    def pop_mark(self) -> list[object]:
        """Take everything above the last mark, and the mark."""
        if not self.marks:
            self.damaged("a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_tuple(self) -> tuple[object, ...]:
        """Take the top of the stack, which must be a tuple."""
        value = self.pop()
        if not isinstance(value, tuple):
            self.damaged("the arguments of a call are no tuple")
        return value

    def push_global(self, module: str, name: str) -> None:
        """Push a name that would be imported, and take note of it.

        Below protocol 3 names are spelt as in Python 2; they are given their present names, as
        Python's own unpickler does.
        """
        if self.protocol < FIRST_PYTHON3_PROTOCOL:
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        found = Global(module, name)
        self.globals[found] = self.globals.get(found, 0) + 1
        self.spend(320)
        self.stack.append(found)

    def push_call(
        self, func: object, args: tuple[object, ...], kwargs: object = None, *, new: bool = False
    ) -> None:
        """Push the result of a call that would be made, and take note of it."""
        self.spend(400)  # the record and its three lists
        call = Call(func, args, kwargs, new=new)
        self.calls.append(call)
        self.stack.append(call)

    def remember(self, index: int) -> None:
        """Store the top of the stack in the memo; any index costs the same."""
        self.spend(130)
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        """Push what the memo holds at ``index``."""
        if index not in self.memo:
            self.damaged(f"memo entry {index} does not exist")
        self.stack.append(self.memo[index])

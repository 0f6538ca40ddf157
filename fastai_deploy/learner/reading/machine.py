"""Reading one pickle: opcode after opcode, into a graph; nothing is imported, nothing is called.

Time grows with the number of opcodes, memory with what ``Limits`` allows, and no step depends on
how deep the file nests its values.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastai_deploy.errors import LearnerTooComplex
from fastai_deploy.learner.reading.opcodes import OPCODES
from fastai_deploy.learner.reading.state import Limits, PersistentLoad, PickleState
from fastai_deploy.learner.reading.stream import Stream
from fastai_deploy.learner.reading.values import Call, Global, Persistent

STOP = ord(".")


@dataclass(frozen=True, eq=False, repr=False)
class Pickled:
    """One pickle, read.

    ``root`` is what loading would return; ``globals`` counts every name that it would import,
    ``calls`` lists every call that it would make, in order, and ``patched`` the imported names on
    which it would set attributes; also those whose results it would throw away. ``start`` and
    ``end`` are offsets in the source.
    """

    root: object
    globals: dict[Global, int]
    calls: list[Call]
    patched: list[Global]
    protocol: int
    start: int
    end: int


def read_pickle(
    stream: Stream,
    *,
    persistent_load: PersistentLoad = Persistent,
    limits: Limits | None = None,
) -> Pickled:
    """Read the pickle at the stream's position and leave the stream behind it.

    ``persistent_load`` gives the value of a persistent id.
    Raises LearnerTruncated, LearnerTooComplex, DangerousLearner or UnsupportedLearner.
    """
    limits = limits or Limits()
    state = PickleState(stream, persistent_load, limits)
    next_byte, handlers = stream.byte, dict(OPCODES)
    for _ in range(limits.steps):
        code = next_byte()
        handler = handlers.get(code)
        if handler is not None:
            handler(state)
        elif code == STOP:
            return Pickled(
                root=state.pop(),
                globals=state.globals,
                calls=state.calls,
                patched=state.patched,
                protocol=state.protocol,
                start=state.start,
                end=stream.offset,
            )
        else:
            state.damaged(f"opcode {code:#04x} does not exist")
    raise LearnerTooComplex(
        f"the pickle has more than {limits.steps:,} steps, more than any learner needs",
        hint="the file is damaged or was made to do harm; export the learner again",
    )

"""What a pickle describes, as a graph of plain records: nothing is imported and nothing is called.

Atoms (``None``, booleans, numbers, text, short bytes) and tuples stand for themselves. Whatever
loading the file would build is one of the records below. The graph may share nodes and contain
cycles, so the records compare by identity and are never printed, hashed or compared in depth.
``looks`` counts how often a record was looked through (see ``views``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fastai_deploy.learner.reading.sources import Source

Pairs = list[tuple[object, object]]


@dataclass(frozen=True, slots=True)
class Global:
    """A name that loading the file would import, such as ``fastai.learner`` ``Learner``."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Sequence:
    """A list, a set or a frozenset; ``items`` are in the order of the file."""

    __slots__ = ("items", "kind", "looks")

    def __init__(self, kind: Literal["list", "set", "frozenset"], items: list[object]) -> None:
        self.kind = kind
        self.items = items
        self.looks = 0


class Mapping:
    """A dict; ``pairs`` are in the order of the file, and of equal keys the last one counts."""

    __slots__ = ("looks", "pairs")

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.looks = 0


class Call:
    """An object that loading the file would make by calling ``func`` with ``args``.

    ``new`` is true where the file asks for ``cls.__new__(cls, ...)``, so that ``func`` is a class.
    ``states`` are what BUILD would set on it, ``items`` and ``pairs`` what would be appended or
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
    """Bytes too long to be worth holding: a place in the file, read when asked for."""

    __slots__ = ("offset", "size", "source")

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self.source = source
        self.offset = offset
        self.size = size

    def read(self) -> bytes:
        """All of it. Raises LearnerTruncated when the file no longer holds that much."""
        return self.source.read(self.offset, self.size)

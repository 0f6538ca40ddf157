"""What a file of texts is to the rest: its layout, its rows, and the columns of the answers."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Notify = Callable[[str], None]


class Absent:
    """The value of a key that an object does not have."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows: their values, by column, and their texts, which may be no strings.

    ``table`` is the same as a pyarrow.RecordBatch, if the file is Parquet.
    """

    rows: Sequence[Sequence[Any]]
    texts: Sequence[Any]
    table: Any = None


@dataclass(frozen=True)
class Layout:
    """What the scan of a file found: the number of rows, the columns, and the one with the texts.

    ``kinds`` says what each column holds: text, truth, integer, number, or json for anything else.
    """

    rows: int
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    text: str


class Source(Protocol):
    """A file of texts."""

    def scan(self, limit: int | None) -> Layout:
        """Read and check the file, or its first ``limit`` rows. Raises FileError or UsageError."""
        ...

    def batches(self, layout: Layout, size: int, *, texts_only: bool) -> Iterator[RowBatch]:
        """Yield all rows, in batches of at most ``size``; with ``texts_only``, without values."""
        ...


class Sink(Protocol):
    """A file that is being written."""

    def add(self, batch: RowBatch, answers: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with their answers."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


@dataclass(frozen=True)
class AnswerColumns:
    """The columns of the answers, with a prefix if the input has a column of the same name.

    ``labels`` in their order; ``several`` may apply to a text. With ``top_k`` there is one column
    of that many probabilities, without it one for each label.
    """

    labels: tuple[str, ...]
    several: bool
    top_k: int | None
    prefix: str = ""

    @classmethod
    def beside(
        cls, taken: Iterable[str], labels: Sequence[str], *, several: bool, top_k: int | None
    ) -> AnswerColumns:
        """The columns beside ``taken`` ones."""
        used = {name for column in taken for name in (column, column.strip().lower())}
        number = 0
        while True:
            number += 1
            prefix = ("", "predicted_")[number - 1] if number < 3 else f"predicted{number - 1}_"  # noqa: PLR2004
            found = cls(tuple(labels), several, top_k, prefix)
            if used.isdisjoint(found.names) and used.isdisjoint(found.keys.values()):
                return found

    @property
    def names(self) -> list[str]:
        """The columns of a table."""
        each = (
            ["probabilities"]
            if self.top_k is not None
            else [f"probability_{label}" for label in self.labels]
        )
        return [self.prefix + name for name in (*self._first, *each, "truncated", "error")]

    @property
    def kinds(self) -> list[str]:
        """What each column holds, as in Layout; ``texts`` and ``numbers`` are lists."""
        first = ["texts", "numbers"] if self.several else ["text", "number"]
        each = ["text"] if self.top_k is not None else ["number"] * len(self.labels)
        return [*first, *each, "truth", "text"]

    @property
    def keys(self) -> dict[str, str]:
        """The keys of an answer as JSON, each with its name beside the input's keys."""
        names = (*self._first, "probabilities", "truncated", "error")
        return {name: self.prefix + name for name in names}

    @property
    def _first(self) -> tuple[str, str]:
        return ("labels", "scores") if self.several else ("label", "score")

    def cells(self, answer: Mapping[str, Any]) -> list[Any]:
        """The answer to one text as cells of a table; None for those that it does not have."""
        error = answer.get("error")
        if error is not None:
            empty = [None] * (len(self.names) - 1)
            return [*empty, f"{error['code']}: {error['message']}"]
        found = answer["probabilities"]
        each = (
            [json.dumps(found, ensure_ascii=False)]
            if self.top_k is not None
            else [found.get(label) for label in self.labels]
        )
        first = [answer[name] for name in self._first]
        return [*first, *each, answer.get("truncated", False), None]


def plain_value(value: Any) -> Any:
    """A value as JSON has it: dates and decimals as text, bytes in base64, NaN as null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(each) for each in value]
    if isinstance(value, bytes):
        return b64encode(value).decode()
    as_iso = getattr(value, "isoformat", None)
    return as_iso() if as_iso else str(value)

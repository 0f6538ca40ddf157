"""Reads the texts in a column of a CSV or TSV file, without guessing.

If the column, the header or the separator is ambiguous, the error says so and names the option that
decides. No row is dropped silently.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fastai_deploy.errors import FileError, UsageError

COLUMN = "text"
# Names accepted as the header of a single column; anything else in line 1 may be a text.
HEADERS = frozenset(
    (
        *("text", "texts", "review", "reviews", "comment", "comments", "sentence", "sentences"),
        *("tweet", "tweets", "post", "posts", "message", "messages", "title", "headline"),
        *("content", "body", "document", "input", "description", "summary", "feedback"),
        *("question", "answer", "utterance"),
    )
)
_SEPARATORS = (",", ";", "\t", "|")
# A first line that Excel writes to state the separator, and other programs take for data.
_EXCEL = re.compile(r"\"?sep=([^\w \r\n\"])\"?(\r\n|\r|\n|\Z)", re.IGNORECASE)
_LONGEST_FIELD = 1 << 30
_NAMED = 8
_SHOWN = 40


@dataclass(frozen=True)
class ColumnChoice:
    """The column of the texts: its name, or its number from 1 in a table without a header."""

    column: str | None = None
    header: bool = True


@dataclass(frozen=True)
class Table:
    """A table that is read from its start to its end, once.

    ``at`` is the index of the column of the texts; ``rows`` are the rows after the header.
    """

    columns: tuple[str, ...]
    at: int
    rows: Iterator[list[str]]


def open_table(
    path: Path, lines: Iterable[str], wanted: ColumnChoice, notify: Callable[[str], None]
) -> Table:
    """Read the header of a table, and choose the column: by default ``text`` or the only one.

    ``lines`` keep their ends. Without a header, the columns are called ``column_1`` and so on.
    ``notify`` receives what was decided. Raises FileError or UsageError, naming the line; so does
    reading the rows.
    """
    first, lines = _first_lines(lines)
    separator, skipped = _separator(path, first, notify)
    reader = csv.reader(chain(first[skipped:], lines), delimiter=separator, strict=True)
    with _reading(path, reader, skipped):
        head = next((row for row in reader if row), None)
    if head is None:
        raise FileError(f"{path} is empty", hint="use a file with at least one text")
    place = skipped + reader.line_num
    if wanted.header:
        at = _column(path, head, wanted.column, place, notify)
        columns, before = head, []
    else:
        at = _numbered(path, head, wanted.column, place)
        columns, before = [f"column_{number}" for number in range(1, len(head) + 1)], [head]

    def rows() -> Iterator[list[str]]:
        yield from before
        with _reading(path, reader, skipped):
            for row in reader:
                if row and len(row) != len(head):
                    raise bad_line(
                        path,
                        skipped + reader.line_num,
                        f"{len(row)} fields, but line {place} has {len(head)}; put a text that "
                        f"contains a {_named(separator)} in double quotes",
                    )
                if row:
                    yield row

    return Table(tuple(columns), at, rows())


@contextlib.contextmanager
def _reading(path: Path, reader: Any, skipped: int) -> Iterator[None]:
    """Translate the csv module's errors, and raise its limit of 128 KiB to the largest text."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    except csv.Error as error:
        raise bad_line(path, skipped + reader.line_num, f"not CSV: {error}") from None
    finally:
        csv.field_size_limit(before)


def _first_lines(lines: Iterable[str]) -> tuple[list[str], Iterator[str]]:
    """The lines up to the first that is not blank, and the iterator of the others."""
    rest = iter(lines)
    first: list[str] = []
    for line in rest:
        first.append(line)
        if line.strip("\r\n"):
            break
    return first, rest


def bad_line(path: Path, number: int, why: str) -> FileError:
    """The error for a line that cannot be read."""
    return FileError(
        f"{path}, line {number}: {why}",
        hint="fix the line, then run the command again; nothing was sent",
    )


def no_column(path: Path, wanted: str, names: Sequence[str], number: int) -> UsageError:
    """The error for a missing column or key; it names a near match."""
    return column_missing(f"{path}, line {number}", wanted, names)


def column_missing(place: object, wanted: str, names: Sequence[str]) -> UsageError:
    """The error for a missing column of a file or a line; it names a near match."""
    near = next((name for name in names if name.strip().lower() == wanted.strip().lower()), None)
    if near is not None:
        return UsageError(
            f"{place}: there is no column {wanted}, but there is {_quoted(near)}"
            f"{', with a space in its name' if near != near.strip() else ''}",
            hint=f"add --column {_quoted(near)}, or fix the name in the file",
        )
    shown = ", ".join(_quoted(name[:_SHOWN]) for name in names[:_NAMED]) or "none"
    return UsageError(
        f"{place}: there is no column {wanted}; the columns are: {shown}",
        hint="choose the one with the texts: --column NAME (in a table without a header, "
        "--no-header --column NUMBER)",
    )


def _separator(path: Path, first: Sequence[str], notify: Callable[[str], None]) -> tuple[str, int]:
    """The field separator, and the number of lines to skip because they only state it."""
    stated = _EXCEL.fullmatch(first[0]) if first else None
    if stated is not None:
        notify(f'{path.name}, line 1: "{stated[0].strip()}" sets the separator and is not a text')
        return stated[1], 1
    if any(suffix.lower() == ".tsv" for suffix in path.suffixes[-2:]):
        return "\t", 0
    header = first[-1] if first else ""
    return max(_SEPARATORS, key=header.count), 0


def _column(
    path: Path,
    names: Sequence[str],
    column: str | None,
    place: int,
    notify: Callable[[str], None],
) -> int:
    """The index of the column, according to the header."""
    if column is None and len(names) == 1 and names[0] != COLUMN:
        if names[0].strip().lower() not in HEADERS:
            shown = _quoted(names[0][:_SHOWN])
            raise UsageError(
                f"{path}, line {place}: there is one column, and {shown} may be its name or a text",
                hint=f"add --no-header if it is a text, or --column {shown} if it is the name",
            )
        notify(f"{path.name}, line {place}: using {_quoted(names[0])} as the column name")
        return 0
    wanted = column or COLUMN
    found = [at for at, name in enumerate(names) if name == wanted]
    if not found:
        raise no_column(path, wanted, names, place)
    if len(found) > 1:
        raise UsageError(
            f"{path}, line {place}: {len(found)} columns are named {wanted}",
            hint="rename one of them",
        )
    return found[0]


def _numbered(path: Path, first: Sequence[str], column: str | None, place: int) -> int:
    """The index of the column in a table without a header."""
    if column is None and len(first) == 1:
        return 0
    if column is None or not column.isdecimal() or not 1 <= int(column[:9]) <= len(first):
        raise UsageError(
            f"{path}, line {place}: without a header, the column is a number from 1 to "
            f"{len(first)}",
            hint="add --no-header --column NUMBER",
        )
    return int(column) - 1


def _named(separator: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(separator, separator)


def _quoted(name: str) -> str:
    """A name as typed in a shell, quoted if needed; unprintable characters are escaped."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
    return shown if re.fullmatch(r"[\w.-]+", shown) else '"' + shown.replace('"', '\\"') + '"'

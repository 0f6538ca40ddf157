"""Reads the texts in a column of a CSV or TSV file, without guessing.

If the column, the header or the separator is ambiguous, the error says so and names the option that
decides. No row is dropped silently.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def read_table_texts(
    path: Path, content: str, wanted: ColumnChoice, notify: Callable[[str], None]
) -> Iterator[str]:
    """Yield the texts of the chosen column, by default ``text`` or the only column.

    ``notify`` receives what was decided. Raises FileError or UsageError, naming the line.
    """
    separator, skipped = _separator(path, content, notify)
    rows = csv.reader(io.StringIO(content[skipped:], newline=""), delimiter=separator, strict=True)
    line = 1 if skipped else 0
    with _long_fields():
        try:
            first = next((row for row in rows if row), None)
            if first is None:
                raise FileError(f"{path} is empty", hint="use a file with at least one text")
            place = line + rows.line_num
            if wanted.header:
                at = _column(path, first, wanted.column, place, notify)
            else:
                at = _numbered(path, first, wanted.column, place)
                yield first[at]
            for row in rows:
                if row and len(row) != len(first):
                    raise bad_line(
                        path,
                        line + rows.line_num,
                        f"{len(row)} fields, but line {place} has {len(first)}; put a text that "
                        f"contains a {_named(separator)} in double quotes",
                    )
                if row:
                    yield row[at]
        except csv.Error as error:
            raise bad_line(path, line + rows.line_num, f"not CSV: {error}") from None


def bad_line(path: Path, number: int, why: str) -> FileError:
    """The error for a line that cannot be read."""
    return FileError(
        f"{path}, line {number}: {why}",
        hint="fix the line, then run the command again; nothing was sent",
    )


def no_column(path: Path, wanted: str, names: Sequence[str], number: int) -> UsageError:
    """The error for a missing column or key; it names a near match."""
    near = next((name for name in names if name.strip().lower() == wanted.strip().lower()), None)
    if near is not None:
        return UsageError(
            f"{path}, line {number}: there is no column {wanted}, but there is {_quoted(near)}"
            f"{', with a space in its name' if near != near.strip() else ''}",
            hint=f"add --column {_quoted(near)}, or fix the name in the file",
        )
    shown = ", ".join(_quoted(name[:_SHOWN]) for name in names[:_NAMED]) or "none"
    return UsageError(
        f"{path}, line {number}: there is no column {wanted}; the columns are: {shown}",
        hint="choose the one with the texts: --column NAME (in a table without a header, "
        "--no-header --column NUMBER)",
    )


def _separator(path: Path, content: str, notify: Callable[[str], None]) -> tuple[str, int]:
    """The field separator, and the number of characters to skip because they only state it."""
    stated = _EXCEL.match(content)
    if stated is not None:
        notify(f'{path.name}, line 1: "{stated[0].strip()}" sets the separator and is not a text')
        return stated[1], stated.end()
    if path.suffix.lower() == ".tsv":
        return "\t", 0
    header = content.lstrip("\r\n").partition("\n")[0]
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


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Raise the csv module's field limit of 128 KiB to the largest text."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)

"""The texts that a user brings: in a file, a column of a table, or as they are.

The whole of a file is read and checked before anything is sent.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.errors import FileError, UsageError

STANDARD_INPUT = "-"
COLUMN = "text"
_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv")
_PLAIN = (".txt",)
_SEPARATORS = (",", ";", "\t")
_LONGEST_FIELD = 1 << 30
_NAMED = 8


def texts_of(argument: str, column: str | None, stdin: BinaryIO) -> str | list[str]:
    """One text, or the texts of a table or of JSON lines.

    ``-`` stands for all of standard input, and a word that ends in ``.txt``, ``.csv``, ``.tsv``,
    ``.jsonl`` or ``.ndjson`` for a file. Raises UsageError or FileError, which names the line.
    """
    if argument == STANDARD_INPUT:
        return _decoded(stdin.read(), "the text")
    suffix = Path(argument).suffix.lower() if not any(map(str.isspace, argument)) else ""
    path = Path(argument).expanduser()
    if suffix not in {*_LINES, *_TABLES, *_PLAIN} and not _is_there(path, suffix):
        return _checked(argument)
    with files.file_errors(path):
        data = path.read_bytes()
    content = _decoded(data, str(path))
    if suffix not in {*_LINES, *_TABLES}:
        return content
    read = _json_lines if suffix in _LINES else _table
    texts = list(read(path, content, column))
    if not texts:
        raise FileError(f"{path} holds no texts", hint="give a file with one text or more")
    return texts


def for_output(output: Path | None, argument: str) -> str | None:
    """Where answers are to be kept. Raises UsageError for the very file that the texts are in."""
    if output is None:
        return None
    path = output.expanduser().absolute()
    if path == Path(argument).expanduser().absolute():
        raise UsageError(f"{output} is the file of the texts", hint="choose another --output")
    return str(path)


def _is_there(path: Path, suffix: str) -> bool:
    """Whether a word with a dot in it, such as ``tables.xlsx``, is a file after all."""
    with contextlib.suppress(OSError, ValueError):
        return bool(suffix) and path.is_file()
    return False


def _json_lines(path: Path, content: str, column: str | None) -> Iterator[str]:
    """The texts of JSON lines: strings, or objects with the column."""
    key = column or COLUMN
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
            raise _bad(path, number, f"not JSON: {why}") from None
        if isinstance(value, dict):
            if key not in value:
                raise _no_column(path, key, list(value), number)
            value = value[key]
        if not isinstance(value, str):
            raise _bad(path, number, f'no text: write "...", or {{"{key}": "..."}}')
        yield value


def _table(path: Path, content: str, column: str | None) -> Iterator[str]:
    """The texts of a column; without a name that of ``text``, or the only one."""
    if "\0" in content:
        raise FileError(f"{path} is not a table of text", hint="save it as CSV in UTF-8")
    header, _, _ = content.partition("\n")
    separator = "\t" if path.suffix.lower() == ".tsv" else max(_SEPARATORS, key=header.count)
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    with _long_fields():
        try:
            names = next(rows, [])
            at = _column(path, names, column)
            for row in rows:
                if row and len(row) != len(names):
                    told = f"{len(row)} fields, and the first line names {len(names)} columns"
                    raise _bad(path, rows.line_num, told)
                if row:
                    yield row[at]
        except csv.Error as error:
            raise _bad(path, rows.line_num, f"not CSV: {error}") from None


def _column(path: Path, names: Sequence[str], column: str | None) -> int:
    if not names:
        raise FileError(f"{path} is empty", hint="give a file with one text or more")
    if column is None and len(names) == 1:
        return 0
    if (column or COLUMN) not in names:
        raise _no_column(path, column or COLUMN, names, 1)
    return names.index(column or COLUMN)


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Let a field be as long as a text may be; Python's own limit is 128 KiB."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _no_column(path: Path, wanted: str, names: Sequence[str], number: int) -> UsageError:
    shown = ", ".join(name[:40] for name in names[:_NAMED]) or "none"
    return UsageError(
        f"{path}, line {number}: no column {wanted}; there is: {shown}",
        hint="name the one that holds the texts: --column NAME",
    )


def _bad(path: Path, number: int, why: str) -> FileError:
    return FileError(
        f"{path}, line {number}: {why}", hint="mend the line, then run it again; nothing was sent"
    )


def _decoded(data: bytes, subject: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeError:
        raise UsageError(f"{subject} is not UTF-8", hint="save it as UTF-8") from None


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeError:
        raise UsageError("the text is not UTF-8", hint="save it as UTF-8") from None
    return text

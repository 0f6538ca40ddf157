"""Tables and JSON: reads a file of texts in batches of rows, and writes it with the answers.

No pass holds more than a batch of rows in memory, except for .json.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.batch_invoke.formats import (
    LISTS,
    check_format,
    check_no_nul,
    format_of,
    is_gzip,
    not_utf8,
)
from fastai_deploy.batch_invoke.rows import (
    ABSENT,
    AnswerColumns,
    Layout,
    Notify,
    RowBatch,
    plain_value,
)
from fastai_deploy.batch_invoke.tables import ColumnChoice, bad_line, no_column, open_table
from fastai_deploy.errors import FileError
from fastai_deploy.json_reader import BadJson, parse

MOST = 512 << 20
"""The size limit, in bytes, of a file that is held in memory."""
_LOOK = 1 << 16  # bytes of a file that show what it is
_WINDOW = 1 << 16  # characters of text after which a batch ends


class TableSource:
    """A CSV or TSV file."""

    def __init__(self, path: Path, wanted: ColumnChoice, notify: Notify) -> None:
        self._path = path
        self._wanted = wanted
        self._notify = notify

    def scan(self, limit: int | None) -> Layout:
        """Read the file and check every line."""
        with _lines(self._path) as lines:
            table = open_table(self._path, lines, self._wanted, self._notify)
            count = sum(1 for _ in islice(table.rows, limit))
        kinds = ("text",) * len(table.columns)
        return Layout(count, table.columns, kinds, table.columns[table.at])

    def batches(self, layout: Layout, size: int, *, texts_only: bool) -> Iterator[RowBatch]:
        """Yield the rows."""
        del texts_only  # every value is parsed anyway
        with _lines(self._path) as lines:
            table = open_table(self._path, lines, self._wanted, lambda _said: None)
            rows = islice(table.rows, layout.rows)
            yield from _batched(((row, row[table.at]) for row in rows), size)


class JsonSource:
    """JSON lines, or a list in a JSON file, which is held in memory."""

    def __init__(self, path: Path, column: str, *, every_text: bool) -> None:
        self._path = path
        self._column = column
        self._every_text = every_text
        self._unit = "item" if format_of(path) in LISTS else "line"

    def scan(self, limit: int | None) -> Layout:
        """Read the file and check every line."""
        kinds: dict[str, set[str]] = {}
        count = 0
        for number, value in islice(self._values(parse_strictly), limit):
            count += 1
            if isinstance(value, str):
                value = {self._column: value}  # noqa: PLW2901 - the same row as an object
            self._check(number, value)
            for name, each in value.items():
                kinds.setdefault(name, set()).add(_kind(each))
        if count and self._column not in kinds:
            raise no_column(self._path, self._column, list(kinds), 1)
        joined = tuple(_joined(found - {"null"}) for found in kinds.values())
        return Layout(count, tuple(kinds), joined, self._column)

    def batches(self, layout: Layout, size: int, *, texts_only: bool) -> Iterator[RowBatch]:
        """Yield the rows."""
        columns = () if texts_only else layout.columns

        def rows() -> Iterator[tuple[list[Any], Any]]:
            for _, value in islice(self._values(json.loads), layout.rows):
                found = {self._column: value} if isinstance(value, str) else value
                yield [found.get(name, ABSENT) for name in columns], found.get(self._column)

        yield from _batched(rows(), size)

    def _check(self, number: int, value: Any) -> None:
        if isinstance(value, dict):
            if not self._every_text or isinstance(value.get(self._column), str):
                return
            if self._column not in value:
                raise no_column(self._path, self._column, list(value), number)
        raise FileError(
            f"{self._path}, {self._unit} {number}: not a text; expected "
            f'"..." or {{"{self._column}": "..."}}',
            hint=f"fix the {self._unit}, then run the command again; nothing was sent",
        )

    def _values(self, read: Callable[[str], Any]) -> Iterator[tuple[int, Any]]:
        """Each value, with its number. A list was checked by the scan, too, but is read whole."""
        expected = f'write a list: ["...", "..."] or [{{"{self._column}": "..."}}, ...]'
        parsed = parse_strictly if format_of(self._path) in LISTS else read
        return json_values(self._path, parsed, expected)


def json_values(path: Path, read: Callable[[Any], Any], expected: str) -> Iterator[tuple[int, Any]]:
    """Each value of a JSON file, with the number of its line, or of its place in the list.

    ``read`` parses a text or bytes; ``expected`` is the hint for a file that holds no list. Raises
    UsageError, or FileError with the line.
    """
    if format_of(path) not in LISTS:
        with _lines(path, newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    value = read(line)
                except BadJson as error:
                    raise bad_line(path, number, str(error)) from None
                yield number, value
        return
    data = files.read(path, most=MOST)
    check_format(path, data)
    try:
        values = read(data)
    except BadJson as error:
        raise FileError(f"{path}: {error}", hint=expected) from None
    if not isinstance(values, list):
        raise FileError(f"{path} contains JSON that is not a list", hint=expected)
    yield from enumerate(values, 1)


class TableSink:
    """A CSV or TSV file."""

    def __init__(
        self, file: BinaryIO, layout: Layout, answers: AnswerColumns, delimiter: str
    ) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        self._writer = csv.writer(_UnixLines(self._file), delimiter=delimiter)
        self._answers = answers
        self._plain = set(layout.kinds) == {"text"}
        self._writer.writerow([*layout.columns, *answers.names])

    def add(self, batch: RowBatch, answers: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with their answers."""
        of_input: Callable[[Any], Any] = _same if self._plain else _cell
        cells = self._answers.cells
        self._writer.writerows(
            [*map(of_input, row), *map(_cell, cells(answer))]
            for row, answer in zip(batch.rows, answers, strict=True)
        )

    def close(self) -> None:
        """Write what is left."""
        self._file.flush()
        _end(self._file.detach())


class _UnixLines:
    """Ends lines with a newline only, and replaces NUL.

    The csv module does so, too, but does not quote a carriage return then.
    """

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """Write a row, which ends with a carriage return and a newline.

        Most readers of tables fail on NUL, or end the cell there.
        """
        return self._file.write(row[:-2].replace("\0", "\ufffd") + "\n")


class JsonSink:
    """JSON lines, or a JSON list."""

    def __init__(
        self, file: BinaryIO, layout: Layout, answers: AnswerColumns, *, as_list: bool
    ) -> None:
        self._file = file
        self._columns = layout.columns
        self._keys = answers.keys
        self._list = as_list
        self._first = True

    def add(self, batch: RowBatch, answers: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with their answers."""
        for row, answer in zip(batch.rows, answers, strict=True):
            values = {
                name: value
                for name, value in zip(self._columns, row, strict=True)
                if value is not ABSENT
            }
            values |= {self._keys[key]: value for key, value in answer.items()}
            if self._list:
                self._file.write(b"[\n" if self._first else b",\n")
            self._file.write(_json_bytes(values) + (b"" if self._list else b"\n"))
            self._first = False

    def close(self) -> None:
        """Write what is left."""
        if self._list:
            self._file.write(b"[]\n" if self._first else b"\n]\n")
        _end(self._file)


def parse_strictly(text: str | bytes) -> Any:
    """Parse JSON that may hold lone surrogates. Raises BadJson."""
    return parse(text, halves=True)


def _same(value: Any) -> Any:
    return value


def _cell(value: Any) -> Any:
    """A value as a cell of CSV."""
    if value is None or value is ABSENT:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    plain = plain_value(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _json_bytes(values: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(plain_value(values), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which only a JSON escape can express
        return json.dumps(plain_value(values)).encode()


_MOST_IN_FLOAT = 2**53
_MOST_IN_LONG = 2**63


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int):
        return _kind_of_integer(value)
    return {str: "text", float: "number"}.get(type(value), "json")


def _kind_of_integer(value: int) -> str:
    """Whether an integer also fits into a float, or only into 64 bits, or into neither."""
    if abs(value) <= _MOST_IN_FLOAT:
        return "integer"
    return "long" if -_MOST_IN_LONG <= value < _MOST_IN_LONG else "json"


def _joined(kinds: set[str]) -> str:
    """The kind that holds all values of a column."""
    if kinds and kinds <= {"integer", "long"}:
        return "integer"
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds == {"integer", "number"}:
        return "number"
    return "json" if kinds else "text"


def _batched(rows: Iterator[tuple[Sequence[Any], Any]], size: int) -> Iterator[RowBatch]:
    """Batches of at most ``size`` rows; one ends earlier once its texts are long enough."""
    values: list[Sequence[Any]] = []
    texts: list[Any] = []
    length = 0
    for row, text in rows:
        values.append(row)
        texts.append(text)
        length += len(text) if isinstance(text, str) else 0
        if len(texts) == size or length >= _WINDOW:
            yield RowBatch(values, texts)
            values, texts, length = [], [], 0
    if texts:
        yield RowBatch(values, texts)


@contextmanager
def _lines(path: Path, newline: str = "") -> Iterator[io.TextIOWrapper]:
    """The lines of a file in UTF-8. Raises UsageError or FileError, also for what is no text."""
    with files.reading(path) as raw, _damage(path):
        opened: Any = gzip.GzipFile(fileobj=raw) if is_gzip(path) else raw
        buffered = io.BufferedReader(opened, _LOOK)
        start = buffered.peek(_LOOK)
        check_format(path, start)
        check_no_nul(path, nul="\0" in getincrementaldecoder("utf-8")().decode(start))
        yield io.TextIOWrapper(buffered, encoding="utf-8-sig", newline=newline)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(
            f"{path} is damaged: {error}", hint=f"check it with gzip -t {path}"
        ) from None


def _end(file: Any) -> None:
    """Write the end of a compressed file; a plain one is closed by who opened it."""
    if isinstance(file, gzip.GzipFile):
        file.close()

"""Reads a table of texts in batches of rows, and writes it again with the answers beside them.

    .csv .tsv                 a table in UTF-8
    .jsonl .ndjson .json      objects, or strings
    .parquet                  with pyarrow (the extra batch); see parquet.py
    .csv.gz .jsonl.gz ...     the same, compressed

A file is scanned once from its start to its end before any text is classified. So a line that
cannot be read costs nothing, the number of rows is known, and later passes need not check anything.
No pass holds more than a batch of rows in memory, except for .json.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from fastai_deploy import files
from fastai_deploy.batch_invoke.tables import (
    COLUMN,
    ColumnChoice,
    bad_line,
    no_column,
    open_table,
)
from fastai_deploy.errors import FileError, UsageError
from fastai_deploy.json_reader import BadJson, parse

TABLES = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
LISTS = (".json",)
PARQUET = (".parquet", ".pq")
_UNPACK = "unpack it first"
_SAVE = "save the texts as CSV in UTF-8"
_CONVERT = (
    "convert it to Parquet or CSV, for example with pandas.read_feather(NAME).to_parquet(NAME)"
)
FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), ("a spreadsheet", _SAVE)),
    **dict.fromkeys((".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar"),
                    ("compressed", _UNPACK)),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro", ".db", ".sqlite", ".h5"),
                    ("a binary table", _CONVERT)),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz", ".pt"), ("a Python object", _SAVE)),
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt", ".rtf"),
                    ("a document", "save its text as .txt in UTF-8")),
}  # fmt: skip
"""Formats that are not supported, by suffix, and what to do instead."""
# The same formats by their first bytes, for a file with another suffix.
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"PAR1": ".parquet",
    b"%PDF": ".pdf",
    b"\xd0\xcf\x11\xe0": ".xls",
    b"SQLite format 3": ".sqlite",
}
_ELSEWHERE = {
    ".gz": (
        "compressed",
        "unpack it, or name it .csv.gz or .jsonl.gz",
    ),
    ".parquet": ("a binary table", "rename it to .parquet"),
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = ".gz"
SUFFIXES = (*TABLES, *LINES, *LISTS, *PARQUET, _GZIP)
MOST = 512 << 20  # size limit, in bytes, of a file that is held in memory
_LOOK = 1 << 16  # bytes of a file that show what it is
_WINDOW = 1 << 16  # characters of text after which a batch ends
_NAMES = ".csv, .tsv, .jsonl, .ndjson, .json or .parquet"

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


def format_of(path: Path) -> str:
    """The suffix that names the format, without ``.gz``. Raises UsageError for any other."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == _GZIP:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    known = (*TABLES, *LINES, *LISTS, *PARQUET)
    if suffix not in known or (_is_gzip(path) and suffix in (*LISTS, *PARQUET)):
        raise UsageError(
            f"{path.name}: the name does not say the format",
            hint=f"use a name that ends with {_NAMES}; tables and lines also with .gz",
        )
    return suffix


def has_format(path: Path) -> bool:
    """Whether the name says a format."""
    return path.suffix.lower() in SUFFIXES


def is_table(path: Path) -> bool:
    """Whether the name says CSV, TSV or Parquet."""
    suffix = Path(path.stem).suffix if _is_gzip(path) else path.suffix
    return suffix.lower() in (*TABLES, *PARQUET)


def check_known(path: Path) -> None:
    """Raise FileError for a file whose name says a format that is not read."""
    suffix = path.suffix.lower()
    if suffix in FOREIGN:
        raise _foreign(path, suffix)


def check_format(path: Path, data: bytes) -> None:
    """Check by the first bytes of a file that it is text. Raises UsageError or FileError."""
    if data.startswith(_UTF16):
        raise UsageError(
            f"{path} is UTF-16, not UTF-8",
            hint=f'save it as UTF-8, or run iconv -f UTF-16 -t UTF-8 "{path}" > utf8{path.suffix}',
        )
    for magic, suffix in _MAGIC.items():
        if data.startswith(magic):
            raise _foreign(path, suffix)


def check_no_nul(path: Path, *, nul: bool) -> None:
    """Raise FileError for a file with NUL bytes, which is no text."""
    if nul:
        raise FileError(f"{path} is not a table or a text: it contains NUL bytes", hint=_SAVE)


def _foreign(path: Path, suffix: str) -> FileError:
    what, way = {**FOREIGN, **_ELSEWHERE}[suffix]
    return FileError(f"{path} is {what}, which fdeploy does not read under this name", hint=way)


def open_source(
    path: Path, wanted: ColumnChoice, notify: Notify, *, every_text: bool = False
) -> Source:
    """The file of texts at ``path``.

    With ``every_text``, a row of JSON without a text is an error, and not only a row that fails.
    Raises UsageError, FileError or ExtraMissing.
    """
    check_known(path)
    suffix = format_of(path)
    if suffix in TABLES:
        return TableSource(path, wanted, notify)
    if not wanted.header:
        raise UsageError(
            f"{path} is not a table", hint="use --no-header only with .csv and .tsv files"
        )
    if suffix in PARQUET:
        from fastai_deploy.batch_invoke.parquet import ParquetSource  # noqa: PLC0415 - heavy

        return ParquetSource(path, wanted.column or COLUMN)
    return JsonSource(path, wanted.column or COLUMN, every_text=every_text)


def open_sink(path: Path, file: BinaryIO, layout: Layout, answers: AnswerColumns) -> Sink:
    """Write ``file`` in the format that the name of ``path`` says."""
    suffix = format_of(path)
    if suffix in PARQUET:
        from fastai_deploy.batch_invoke.parquet import ParquetSink  # noqa: PLC0415 - heavy

        return ParquetSink(file, layout, answers)
    if suffix not in TABLES:
        return JsonSink(_packed(path, file), layout, answers, as_list=suffix in LISTS)
    return TableSink(_packed(path, file), layout, answers, "\t" if suffix == ".tsv" else ",")


def check_output(path: Path) -> None:
    """Check that the output can have this name. Raises UsageError or ExtraMissing."""
    if format_of(path) in PARQUET:
        from fastai_deploy.batch_invoke import parquet  # noqa: PLC0415 - heavy

        parquet.need_pyarrow()


def check_columns(columns: Sequence[str], path: Path) -> None:
    """Check that the output can have the columns of the input. Raises UsageError."""
    if format_of(path) in TABLES:
        return
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"the input has two columns named {twice}, and {path.name} can have only one",
            hint="rename one of them, or write a .csv file",
        )


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
    """Ends lines with a newline only.

    The csv module does so, too, but does not quote a carriage return then.
    """

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """Write a row, which ends with a carriage return and a newline."""
        return self._file.write(row[:-2] + "\n")


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


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "truth"
    return {str: "text", int: "integer", float: "number"}.get(type(value), "json")


def _joined(kinds: set[str]) -> str:
    """The kind that holds all values of a column."""
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
        opened: Any = gzip.GzipFile(fileobj=raw) if _is_gzip(path) else raw
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
        raise UsageError(f"{path} is not UTF-8", hint="save it as UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(
            f"{path} is damaged: {error}", hint=f"check it with gzip -t {path}"
        ) from None


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == _GZIP


def _packed(path: Path, file: BinaryIO) -> BinaryIO:
    """The file, or one that compresses into it."""
    if not _is_gzip(path):
        return file
    packed: Any = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
    return cast("BinaryIO", packed)


def _end(file: Any) -> None:
    """Write the end of a compressed file; a plain one is closed by who opened it."""
    if isinstance(file, gzip.GzipFile):
        file.close()

"""Parquet through pyarrow, one batch of rows in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.batch_invoke.rows import (
    ABSENT,
    AnswerColumns,
    Layout,
    RowBatch,
    plain_value,
)
from fastai_deploy.batch_invoke.tables import column_missing
from fastai_deploy.errors import FileError, UsageError, need_extra

_GROUP = 50_000  # rows of a row group that is written
_OWN = "parquet"  # the kind of a column whose type pyarrow knows


def need_pyarrow() -> None:
    """Raise ExtraMissing without pyarrow."""
    need_extra("batch", "pyarrow")


class ParquetSource:
    """A Parquet file; ``column`` holds the texts."""

    def __init__(self, path: Path, column: str) -> None:
        need_pyarrow()
        self._path = path
        self._column = column

    def scan(self, limit: int | None) -> Layout:
        """Read the footer, which has the schema and the number of rows."""
        with self._opened() as opened:
            schema = opened.schema_arrow
            rows = opened.metadata.num_rows
        names = list(schema.names)
        if self._column not in names:
            raise column_missing(self._path, self._column, names)
        if names.count(self._column) > 1:
            raise UsageError(
                f"{self._path}: {names.count(self._column)} columns are named {self._column}",
                hint="rename one of them",
            )
        kind = schema.field(self._column).type
        if not _holds_text(kind):
            texts = [each.name for each in schema if _holds_text(each.type)]
            shown = f"the columns with text are: {', '.join(texts)}" if texts else "no column is"
            raise UsageError(
                f"{self._path}: the column {self._column} holds {kind}, which is no text; {shown}",
                hint="choose the one with the texts: --column NAME"
                if texts
                else _as_text(self._column, kind),
            )
        count = rows if limit is None else min(rows, limit)
        return Layout(count, tuple(names), (_OWN,) * len(names), self._column)

    def batches(self, layout: Layout, size: int, *, texts_only: bool) -> Iterator[RowBatch]:
        """Yield the rows."""
        left = layout.rows
        columns = [layout.text] if texts_only else None
        with self._opened() as opened:
            for whole in opened.iter_batches(batch_size=size, columns=columns):
                batch = whole.slice(0, left)
                left -= batch.num_rows
                texts = batch.column(batch.schema.get_field_index(layout.text)).to_pylist()
                yield RowBatch(_LazyRows(batch), texts, batch)
                if not left:
                    return

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa  # noqa: PLC0415 - heavy
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415

        with files.reading(self._path) as raw:
            try:
                with ParquetFile(raw, pre_buffer=False) as opened:
                    yield opened
            except (pa.ArrowException, OSError) as error:
                raise FileError(
                    f"{self._path} is not a Parquet file that can be read: {_first_line(error)}",
                    hint="check that it is whole, and that its name says its format",
                ) from None


class _LazyRows(Sequence[Sequence[Any]]):
    """The rows of a batch as Python's values, made only when another format needs them."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._rows: list[tuple[Any, ...]] | None = None

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __getitem__(self, place: Any) -> Any:
        if self._rows is None:
            values = [_python_values(column) for column in self._batch.columns]
            self._rows = list(zip(*values, strict=True))
        return self._rows[place]


def _python_values(column: Any) -> list[Any]:
    """The values of a column; times in nanoseconds, which Python lacks, as text."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, ImportError):
        values = column.cast(pa.string()).to_pylist()
    return values


class ParquetSink:
    """A Parquet file; columns from a Parquet file keep their types."""

    def __init__(self, file: BinaryIO, layout: Layout, answers: AnswerColumns) -> None:
        need_pyarrow()
        self._file = file
        self._layout = layout
        self._answers = answers
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, batch: RowBatch, answers: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with their answers, in large row groups."""
        import pyarrow as pa  # noqa: PLC0415 - heavy

        cells = [self._answers.cells(answer) for answer in answers]
        added = [
            pa.array([row[place] for row in cells], type=_type(kind))
            for place, kind in enumerate(self._answers.kinds)
        ]
        if batch.table is not None:
            fields, columns = list(batch.table.schema), list(batch.table.columns)
        else:
            columns = [
                pa.array([_stored(row[place], kind) for row in batch.rows], type=_type(kind))
                for place, kind in enumerate(self._layout.kinds)
            ]
            fields = [
                pa.field(name, _type(kind))
                for name, kind in zip(self._layout.columns, self._layout.kinds, strict=True)
            ]
        fields += [
            pa.field(name, _type(kind))
            for name, kind in zip(self._answers.names, self._answers.kinds, strict=True)
        ]
        metadata = None if batch.table is None else batch.table.schema.metadata
        schema = pa.schema(fields, metadata=metadata)
        self._waiting.append(pa.RecordBatch.from_arrays([*columns, *added], schema=schema))
        self._rows += len(answers)
        if self._rows >= _GROUP:
            self._flush(schema)

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._waiting:
            self._flush(self._waiting[0].schema)
        if self._writer is not None:
            self._writer.close()

    def _flush(self, schema: Any) -> None:
        import pyarrow as pa  # noqa: PLC0415 - heavy
        from pyarrow.parquet import ParquetWriter  # noqa: PLC0415

        if self._writer is None:
            self._writer = ParquetWriter(self._file, schema)
        self._writer.write_table(pa.Table.from_batches(self._waiting, schema))
        self._waiting, self._rows = [], 0


def _type(kind: str) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return {
        "truth": pa.bool_(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float64()),
    }.get(kind, pa.string())


def _stored(value: Any, kind: str) -> Any:
    """A value of JSON as its column stores it."""
    if value is None or value is ABSENT:
        return None
    if kind == "json" and not isinstance(value, str):
        return json.dumps(plain_value(value), ensure_ascii=False)
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _as_text(column: str, kind: Any) -> str:
    """How to turn a column into text with pandas."""
    from pyarrow import types  # noqa: PLC0415 - heavy

    binary = types.is_binary(kind) or types.is_large_binary(kind)
    how = 'str.decode("utf-8")' if binary else 'astype("string")'
    return f"store it as text; in pandas: df[{column!r}] = df[{column!r}].{how}"


def _holds_text(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415 - heavy

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

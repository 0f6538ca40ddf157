"""Opens a file of texts, and the file with the answers, in the format that its name says.

A file is scanned once from its start to its end before any text is classified. So a line that
cannot be read costs nothing, the number of rows is known, and later passes need not check anything.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, BinaryIO, cast

from fastai_deploy.batch_invoke.formats import (
    LISTS,
    PARQUET,
    TABLES,
    check_known,
    format_of,
    is_gzip,
)
from fastai_deploy.batch_invoke.parquet import ParquetSink, ParquetSource, need_pyarrow
from fastai_deploy.batch_invoke.rows import AnswerColumns, Layout, Notify, Sink, Source
from fastai_deploy.batch_invoke.tables import COLUMN, ColumnChoice
from fastai_deploy.batch_invoke.text_formats import JsonSink, JsonSource, TableSink, TableSource
from fastai_deploy.errors import UsageError


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
        return ParquetSource(path, wanted.column or COLUMN)
    return JsonSource(path, wanted.column or COLUMN, every_text=every_text)


def open_sink(path: Path, file: BinaryIO, layout: Layout, answers: AnswerColumns) -> Sink:
    """Write ``file`` in the format that the name of ``path`` says."""
    suffix = format_of(path)
    if suffix in PARQUET:
        return ParquetSink(file, layout, answers)
    if suffix not in TABLES:
        return JsonSink(_packed(path, file), layout, answers, as_list=suffix in LISTS)
    return TableSink(_packed(path, file), layout, answers, "\t" if suffix == ".tsv" else ",")


def check_output(path: Path) -> None:
    """Check that the output can have this name. Raises UsageError or ExtraMissing."""
    if format_of(path) in PARQUET:
        need_pyarrow()


def _packed(path: Path, file: BinaryIO) -> BinaryIO:
    """The file, or one that compresses into it."""
    if not is_gzip(path):
        return file
    packed: Any = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
    return cast("BinaryIO", packed)

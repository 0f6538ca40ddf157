"""Reads texts with their true labels: a table, JSON lines, or a JSON list.

A line of JSON may also have what a golden file has: the learner's own ``probabilities`` or
``scores``, and what it ``predicted`` (docs/bundle.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.batch_invoke.formats import LINES, LISTS, TABLES
from fastai_deploy.batch_invoke.inputs import read_texts
from fastai_deploy.batch_invoke.tables import COLUMN, ColumnChoice, bad_line
from fastai_deploy.batch_invoke.text_formats import json_values
from fastai_deploy.errors import FileError, UsageError
from fastai_deploy.json_reader import parse
from fastai_deploy.parity.goldens import Case, Labels, answered, labelled_case

LABEL_COLUMN = "label"
_UNITS = {".csv": "row", ".tsv": "row", ".json": "item"}

Notify = Callable[[str], None]


@dataclass(frozen=True)
class LabelledColumns:
    """The columns or keys with the texts and with the true labels; None for the usual names.

    In a table without a ``header`` they are numbers, from 1.
    """

    text: str | None = None
    label: str | None = None
    header: bool = True


@dataclass(frozen=True)
class Labelled:
    """The texts that have true labels, in the order of the file, each with its row as ``line``.

    ``unlabelled`` counts rows without labels, which are left out; ``empty`` counts empty texts,
    which are kept.
    """

    cases: tuple[Case, ...]
    unlabelled: int
    empty: int


def read_labelled(
    path: Path, columns: LabelledColumns, labels: Labels, stdin: BinaryIO, notify: Notify
) -> Labelled:
    """Read a labelled file. Raises UsageError, FileError, or GoldenError for an unknown label.

    ``notify`` receives what was decided. An empty label of a multi-label model means that the text
    has none; of a single-label model, that it is not known.
    """
    with files.reading(path):  # else the name of a missing file would be read as a text
        pass
    suffix = path.suffix.lower()
    if suffix in TABLES:
        rows = _table(path, columns, stdin, notify)
    elif suffix in (*LINES, *LISTS):
        if not columns.header:
            raise UsageError(f"{path} is not a table", hint="leave --no-header out")
        rows = _objects(path, columns)
    else:
        raise UsageError(
            f"{path} is not a file of labelled texts",
            hint="use a .csv, .tsv, .jsonl, .ndjson or .json file",
        )
    found, unlabelled = [], 0
    for number, values in rows:
        label = values.get("label")
        blank = isinstance(label, str) and not label.strip() and label not in labels.names
        missing = label is None or blank
        if missing and not (labels.several and label is not None):
            unlabelled += 1
            continue
        given = {**values, "label": []} if missing else values
        case = labelled_case(given, labels, f"{path}, {_UNITS.get(suffix, 'line')} {number}")
        found.append(replace(case, line=number))
    if not found:
        raise FileError(
            f"{path}: none of {unlabelled:,} rows has a label"
            if unlabelled
            else f"{path} contains no texts",
            hint="write the true label of each text, or choose its column with --label-column",
        )
    # The checks of the learner's own answers apply to the texts that have any.
    own = iter(answered([each for each in found if _answered(each)], labels, str(path)))
    cases = tuple(next(own) if _answered(each) else each for each in found)
    return Labelled(cases, unlabelled, sum(not case.text.strip() for case in cases))


def _answered(case: Case) -> bool:
    return case.probabilities is not None


def _table(
    path: Path, columns: LabelledColumns, stdin: BinaryIO, notify: Notify
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = columns.text or (COLUMN if columns.header else "1")
    label = columns.label or (LABEL_COLUMN if columns.header else "2")
    texts = read_texts(str(path), ColumnChoice(text, header=columns.header), stdin, notify)
    try:
        wanted = ColumnChoice(label, header=columns.header)
        labels = read_texts(str(path), wanted, stdin, lambda _said: None)
    except UsageError as error:
        hint = "choose the column with the true labels: --label-column NAME"
        raise UsageError(error.message, hint=hint) from None
    for number, (text, label) in enumerate(zip(texts, labels, strict=True), 1):
        yield number, {"text": text, "label": label}


def _objects(path: Path, columns: LabelledColumns) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text, label = columns.text or COLUMN, columns.label or LABEL_COLUMN
    seen = False
    for number, value in json_values(path, parse, "write a list of objects"):
        if not isinstance(value, dict) or not isinstance(value.get(text), str):
            raise bad_line(path, number, f'there is no text under "{text}"')
        seen = seen or label in value
        yield number, {**value, "text": value[text], "label": value.get(label)}
    if not seen:
        raise UsageError(
            f'{path}: no line has the key "{label}"',
            hint="choose the one with the true labels: --label-column NAME",
        )

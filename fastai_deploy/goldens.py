"""Golden texts: those that a user brings, and those that are asked where nobody brings any.

The formats are described in ``docs/bundle.md``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from fastai_deploy.errors import GoldenError
from fastai_deploy.files import file_errors

MOST = 1_000  # every later form of the model answers each of them before it is trusted
SUM_SLACK = 1e-3  # by how much the probabilities of a single-label learner may miss 1

Source = Literal["learner", "rebuilt"]


@dataclass(frozen=True)
class Case:
    """A text from a golden file.

    ``probabilities`` are the learner's own, in the order of the labels, where the file has them;
    ``expected`` are the true labels, where the file has them. ``line`` is where it stands.
    """

    text: str
    probabilities: tuple[float, ...] | None
    expected: tuple[str, ...] | None
    line: int


@dataclass(frozen=True)
class Golden:
    """A text with the answer that every form of the model must reproduce."""

    text: str
    probabilities: tuple[float, ...]
    source: Source
    expected: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Labels:
    """What a golden file is checked against: the labels, and whether a text may have several."""

    names: tuple[str, ...]
    several: bool = False


def read_cases(path: Path, labels: Labels) -> tuple[Case, ...]:
    """Read a golden file. Raises GoldenError with file and line, or FileError."""
    readers: dict[str, Callable[[_Place, str, Labels], Iterator[Case]]] = {
        ".txt": _txt,
        ".jsonl": _jsonl,
        ".csv": _csv,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise GoldenError(
            f"{path} has an unknown suffix", hint="name a file that ends in .txt, .jsonl or .csv"
        )
    with file_errors(path):
        data = path.read_bytes()
    place = _Place(path)
    cases = tuple(reader(place, _decoded(place, data), labels))
    if not cases:
        raise GoldenError(f"{path} holds no text", hint="write at least one text into it")
    if len(cases) > MOST:
        raise GoldenError(
            f"{path} holds {len(cases):,} texts; {MOST:,} is the most",
            hint="keep a sample of the texts that matter most",
        )
    return cases


def render(goldens: Sequence[Golden], labels: Labels) -> bytes:
    """``goldens.json``, the same bytes for the same goldens."""
    entries: list[dict[str, Any]] = []
    for golden in goldens:
        entry: dict[str, Any] = {
            "text": golden.text,
            "probabilities": dict(zip(labels.names, golden.probabilities, strict=True)),
            "source": golden.source,
        }
        if golden.expected is not None:
            entry["expected"] = list(golden.expected) if labels.several else golden.expected[0]
        entries.append(entry)
    text = json.dumps({"goldens": entries}, ensure_ascii=False, indent=1, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def load_goldens(path: Path, labels: Labels) -> tuple[Golden, ...]:
    """The goldens of a bundle. Raises FileError."""
    with file_errors(path):
        data = path.read_bytes()
    return parse(data, labels)


def parse(data: bytes, labels: Labels) -> tuple[Golden, ...]:
    """The goldens of a ``goldens.json`` that :func:`render` wrote and a manifest vouches for."""
    goldens = []
    for entry in json.loads(data)["goldens"]:
        expected = entry.get("expected")
        goldens.append(
            Golden(
                text=entry["text"],
                probabilities=tuple(entry["probabilities"][name] for name in labels.names),
                source=entry["source"],
                expected=(expected,) if isinstance(expected, str) else expected,
            )
        )
    return tuple(goldens)


@dataclass(frozen=True)
class _Place:
    """Where in a golden file something is wrong."""

    path: Path
    line: int = 0

    def at(self, line: int) -> _Place:
        return _Place(self.path, line)

    def wrong(self, what: str, hint: str = "mend this line, or take it out") -> NoReturn:
        where = f"{self.path}, line {self.line}" if self.line else str(self.path)
        raise GoldenError(f"{where}: {what}", hint=hint)


def _decoded(place: _Place, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place.at(line).wrong("this is not UTF-8", "save the file as UTF-8")


def _txt(_place: _Place, content: str, _labels: Labels) -> Iterator[Case]:
    for line, text in enumerate(content.split("\n"), start=1):
        if text.strip():
            yield Case(text.removesuffix("\r"), None, None, line)


def _jsonl(place: _Place, content: str, labels: Labels) -> Iterator[Case]:
    for line, text in enumerate(content.split("\n"), start=1):
        if text.strip():
            yield _object(place.at(line), text, labels)


def _object(place: _Place, text: str, labels: Labels) -> Case:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        place.wrong("this is not JSON")
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        place.wrong('there is no "text"', 'write {"text": "..."} on each line')
    _check_text(place, value["text"])
    probabilities = value.get("probabilities")
    label = value.get("label")
    return Case(
        value["text"],
        None if probabilities is None else _probabilities(place, probabilities, labels),
        None if label is None else _expected(place, label, labels),
        place.line,
    )


def _csv(place: _Place, content: str, labels: Labels) -> Iterator[Case]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            here = place.at(reader.line_num)
            if header is None:
                header = _header(here, row)
            elif row:
                yield _row(here, header, row, labels)
    except csv.Error as error:
        place.at(reader.line_num).wrong(f"this is not CSV ({error})")


def _header(place: _Place, row: list[str]) -> list[str]:
    header = [name.strip() for name in row]
    if "text" not in header:
        place.wrong("there is no column called text", "write a header with text, and perhaps label")
    return header


def _row(place: _Place, header: list[str], row: list[str], labels: Labels) -> Case:
    if len(row) != len(header):
        place.wrong(f"there are {len(row)} fields, but the header has {len(header)}")
    values = dict(zip(header, row, strict=True))
    _check_text(place, values["text"])
    label = values.get("label") or None
    return Case(
        values["text"],
        None,
        None if label is None else _expected(place, _several(label, labels), labels),
        place.line,
    )


def _several(label: str, labels: Labels) -> str | list[str]:
    """In a multi-label CSV, the labels of a text are separated by semicolons."""
    if labels.several and label not in labels.names:
        return [part.strip() for part in label.split(";") if part.strip()]
    return label


def _check_text(place: _Place, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        place.wrong("the text holds a lone surrogate, which is no character")


def _expected(place: _Place, label: Any, labels: Labels) -> tuple[str, ...]:
    given = label if isinstance(label, list) else [label]
    if isinstance(label, list) and not labels.several:
        place.wrong("there are several labels, but this learner gives one", "write one label")
    names: list[str] = []
    for item in given:
        name = str(item) if isinstance(item, (str, int, float)) else None
        if name not in labels.names:
            shown = ", ".join(labels.names[:8]) + (", ..." if len(labels.names) > 8 else "")  # noqa: PLR2004 - as many as one line takes
            place.wrong(f"the learner has no label {str(item)[:60]!r}", f"its labels are: {shown}")
        names.append(str(name))
    return tuple(names)


def _probabilities(place: _Place, value: Any, labels: Labels) -> tuple[float, ...]:
    """Given by label, or as a list in the order of the labels."""
    if isinstance(value, dict):
        if set(value) != set(labels.names):
            place.wrong("the probabilities do not name exactly the learner's labels")
        value = [value[name] for name in labels.names]
    if not isinstance(value, list) or len(value) != len(labels.names):
        place.wrong(f"there must be {len(labels.names)} probabilities, one for each label")
    numbers = [
        float(item)
        for item in value
        if isinstance(item, (int, float)) and not isinstance(item, bool)
    ]
    if len(numbers) != len(value) or not all(0 <= number <= 1 for number in numbers):
        place.wrong("a probability is no number from 0 to 1")
    if not labels.several and not math.isclose(sum(numbers), 1, abs_tol=SUM_SLACK):
        place.wrong(f"the probabilities sum to {sum(numbers):.4g}, not to 1")
    return tuple(numbers)

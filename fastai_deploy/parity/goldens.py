"""Golden texts: reading the user's golden files, and built-in texts to use without one.

``docs/bundle.md`` describes the formats.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from fastai_deploy.errors import FileError, GoldenError
from fastai_deploy.files import read
from fastai_deploy.json_reader import BadJson, Reader
from fastai_deploy.json_reader import parse as parse_json
from fastai_deploy.runtime.parity import undecided

MOST = 10_000  # texts; every form of the model must answer all of them before it is trusted
ROUNDED = 1e-3  # how far the sum of rounded single-label probabilities may be from 1
_ANSWERS = ("probabilities", "scores", "predicted", "error")
_KEYS = ("text", "label", *_ANSWERS)
LONGEST = 1 << 20  # bytes of a text: the default request limit of an API

_EXPORT_AGAIN = "run fdeploy export"
_ERROR = 200  # characters kept of a learner's error
_LARGEST = 3.5e38  # above the largest float32

Source = Literal["learner", "rebuilt"]

_HINT = (
    'write what learn.predict returns, raw scores under "scores"; for a half-precision learner, '
    "set a larger tolerance, such as tolerance = 0.02 in [model]"
)


@dataclass(frozen=True)
class Case:
    """A text from a golden file.

    ``probabilities`` are the learner's own, in the order of the labels, if the file has them;
    ``from_scores``: they were computed from raw scores in the file. ``predicted`` holds the labels
    that ``learn.predict`` returned, ``expected`` the true labels, if the file has them. ``error``
    is the learner's error if it fails on this text. ``line`` is the line number in the file.
    """

    text: str
    probabilities: tuple[float, ...] | None
    expected: tuple[str, ...] | None
    line: int
    from_scores: bool = False
    predicted: tuple[str, ...] | None = None
    error: str = ""


@dataclass(frozen=True)
class Golden:
    """A text and the answer that every form of the model must reproduce."""

    text: str
    probabilities: tuple[float, ...]
    source: Source
    expected: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Labels:
    """What a golden file is checked against.

    ``several``: a text can have several labels. ``raw``: ``learn.predict`` returns, or may return,
    raw scores. ``tolerance`` is how far each probability may be off.
    """

    names: tuple[str, ...]
    several: bool = False
    raw: bool = False
    tolerance: float = 0.0

    @property
    def slack(self) -> float:
        """How far the sum of a text's probabilities may be from 1."""
        return max(ROUNDED, len(self.names) * self.tolerance)


def read_cases(path: Path, labels: Labels) -> tuple[Case, ...]:
    """Read a golden file. Raises GoldenError, naming file and line, or FileError."""
    readers: dict[str, Callable[[_Place, str, Labels], Iterator[Case]]] = {
        ".txt": _txt,
        ".jsonl": _jsonl,
        ".csv": _csv,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise GoldenError(f"{path} has an unknown suffix", hint="use a .txt, .jsonl or .csv file")
    data = read(path)
    place = _Place(path)
    cases = answered(tuple(reader(place, _decoded(place, data), labels)), labels, str(path))
    if not cases:
        raise GoldenError(f"{path} contains no texts", hint="add at least one text")
    if len(cases) > MOST:
        raise GoldenError(
            f"{path} contains {len(cases):,} texts; the limit is {MOST:,}",
            hint="keep a sample of the texts that matter most",
        )
    return cases


def answered(cases: Sequence[Case], labels: Labels, where: str) -> tuple[Case, ...]:
    """Check the learner's own answers, and convert raw scores to probabilities.

    Numbers given as probabilities are treated as scores if the learner may return scores and at
    least one text shows that they cannot be probabilities. ``where`` names the source in errors.
    Raises GoldenError.
    """
    if cases and all(case.error for case in cases):
        raise GoldenError(
            f"{where}: the learner fails on every text, such as {cases[0].text[:60]!r} "
            f"({cases[0].error})",
            hint='make sure that learn.predict("some text") works, then write the file again',
        )
    given = [case for case in cases if case.probabilities is not None and not case.from_scores]
    scores = labels.raw and any(_unlikely(case.probabilities or (), labels) for case in given)
    checked = []
    for case in cases:
        found = case
        if case.probabilities is not None and (scores or case.from_scores):
            made = activated(case.probabilities, several=labels.several)
            found = replace(case, probabilities=made, from_scores=True)
        elif case.probabilities is not None:
            wrong = _unlikely(case.probabilities, labels)
            if wrong:
                _Place(where, case.line).wrong(wrong, _HINT)
        checked.append(found)
    return tuple(checked)


def activated(scores: Sequence[float], *, several: bool) -> tuple[float, ...]:
    """Convert raw scores to probabilities: sigmoid for multi-label, softmax for single-label."""
    if several:
        # 1 / (1 + exp(-x)), in a form that cannot overflow.
        return tuple(0.5 * (1.0 + math.tanh(0.5 * each)) for each in scores)
    powers = [math.exp(each - max(scores)) for each in scores]
    return tuple(each / sum(powers) for each in powers)


def _unlikely(numbers: Sequence[float], labels: Labels) -> str:
    """Why numbers cannot be a text's probabilities; empty if they can."""
    if len(numbers) != len(labels.names):
        return f"there must be {len(labels.names)} probabilities, one for each label"
    if not all(0 <= number <= 1 for number in numbers):
        return "a probability is not a number from 0 to 1"
    if not labels.several and not math.isclose(sum(numbers), 1, abs_tol=labels.slack):
        return f"the probabilities sum to {sum(numbers):.4g}, not to 1"
    return ""


def render(goldens: Sequence[Golden], labels: Labels) -> bytes:
    """Encode ``goldens.json``; the same goldens give the same bytes."""
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


CARRIED = 256
"""The goldens that an artifact carries: enough for the 99th percentile, soon answered."""


def near_ties(goldens: Sequence[Golden], threshold: float | None) -> list[int]:
    """The places of the goldens, those first whose answer is nearest to another one."""
    margins = [undecided(each.probabilities, threshold) for each in goldens]
    return sorted(range(len(goldens)), key=margins.__getitem__)


def carried(goldens: Sequence[Golden], threshold: float | None) -> tuple[Golden, ...]:
    """The goldens that go into an artifact, near ties first, because labels change there first."""
    return tuple(goldens[place] for place in near_ties(goldens, threshold)[:CARRIED])


def load_goldens(path: Path, labels: Labels) -> tuple[Golden, ...]:
    """Read the goldens of a bundle. Raises FileError."""
    return parse(read(path), labels, str(path))


def parse(data: bytes, labels: Labels, where: str = "goldens.json") -> tuple[Golden, ...]:
    """Parse a ``goldens.json`` written by :func:`render`. Raises FileError."""
    try:
        document = Reader(parse_json(data), where, _EXPORT_AGAIN)
    except BadJson as error:
        raise FileError(f"{where} is damaged: {error}", hint=_EXPORT_AGAIN) from None
    goldens = tuple(_golden(entry, labels) for entry in document.sections("goldens"))
    if not goldens:
        document.wrong("goldens", "expected at least one")
    return goldens


def _golden(entry: Reader, labels: Labels) -> Golden:
    answer = entry.section("probabilities")
    expected = entry.value.get("expected")
    return Golden(
        text=entry.text("text"),
        probabilities=tuple(answer.number(name) for name in labels.names),
        source="learner" if entry.choice("source", *get_args(Source)) == "learner" else "rebuilt",
        expected=None
        if expected is None
        else (expected,)
        if isinstance(expected, str)
        else entry.texts("expected"),
    )


@dataclass(frozen=True)
class _Place:
    """A line of a golden file, for errors."""

    path: Path | str
    line: int = 0

    def at(self, line: int) -> _Place:
        return _Place(self.path, line)

    def wrong(self, what: str, hint: str = "fix or remove this line") -> NoReturn:
        where = f"{self.path}, line {self.line}" if self.line else str(self.path)
        raise GoldenError(f"{where}: {what}", hint=hint)


def _decoded(place: _Place, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place.at(line).wrong("not valid UTF-8", "save the file as UTF-8")


def _txt(place: _Place, content: str, _labels: Labels) -> Iterator[Case]:
    for line, text in enumerate(content.split("\n"), start=1):
        if text.strip():
            _check_text(place.at(line), text)
            yield Case(text.removesuffix("\r"), None, None, line)


def _jsonl(place: _Place, content: str, labels: Labels) -> Iterator[Case]:
    for line, text in enumerate(content.split("\n"), start=1):
        if text.strip():
            yield _object(place.at(line), text, labels)


def _object(place: _Place, text: str, labels: Labels) -> Case:
    try:
        value = parse_json(text)
    except BadJson as error:
        place.wrong(f"invalid JSON ({error})")
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        place.wrong('there is no "text"', 'write {"text": "..."} on each line')
    case = _case(place, value, labels)
    if case.probabilities is None:
        _check_unread(place, value, labels)
    return case


def _check_unread(place: _Place, value: Mapping[str, Any], labels: Labels) -> None:
    """Raise GoldenError for answers that would not be compared, which look like a proof."""
    for key, held in value.items():
        numbers = list(held.values()) if isinstance(held, dict) else held
        if (
            key not in _KEYS
            and isinstance(numbers, list)
            and len(numbers) == len(labels.names)
            and all(type(each) in (int, float) for each in numbers)
            and float in map(type, numbers)
        ):
            place.wrong(
                f"the numbers in {key[:60]!r} look like the learner's answer, but are not read",
                'call the key "probabilities", or "scores" if they are raw scores; if they are '
                "something else, remove it",
            )
    if value.get("predicted") is not None:
        place.wrong(
            '"predicted" is only compared with "probabilities", and there are none',
            "add what learn.predict returned with the label; if that is the true label, call the "
            'key "label"',
        )


def labelled_case(values: Mapping[str, Any], labels: Labels, where: str) -> Case:
    """A text with what a golden file may say about it, from any reader of such files.

    The keys are those of a line of JSON; labels may also be one text with semicolons. ``where``
    names the file and the line in errors. Raises GoldenError.
    """
    label = values.get("label")
    if isinstance(label, str):
        values = {**values, "label": _several(label, labels)}
    return _case(_Place(where), values, labels)


def _case(place: _Place, value: Mapping[str, Any], labels: Labels) -> Case:
    _check_text(place, value["text"])
    scores = value.get("scores")
    if scores is not None and value.get("probabilities") is not None:
        place.wrong(
            'it has both "probabilities" and "scores", of which only one would be compared',
            "keep the one that learn.predict returned",
        )
    numbers = value.get("probabilities") if scores is None else scores
    label = value.get("label")
    return Case(
        value["text"],
        None if numbers is None else _numbers(place, numbers, labels),
        None if label is None else _expected(place, label, labels),
        place.line,
        from_scores=scores is not None,
        predicted=_predicted(place, value.get("predicted")),
        error=str(value.get("error") or "")[:_ERROR],
    )


def _predicted(place: _Place, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, (str, int, float)) for name in names):
        place.wrong('"predicted" must be a label or a list of labels')
    return tuple(map(str, names))


def _csv(place: _Place, content: str, labels: Labels) -> Iterator[Case]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            here = place.at(reader.line_num)
            if header is None:
                header = _header(here, row, labels)
            elif row:
                yield _row(here, header, row, labels)
    except csv.Error as error:
        place.at(reader.line_num).wrong(f"invalid CSV ({error})")


def _header(place: _Place, row: list[str], labels: Labels) -> list[str]:
    header = [name.strip() for name in row]
    if "text" not in header:
        place.wrong("there is no column text", "add a header with text and, optionally, label")
    for name in ("text", "label"):
        if header.count(name) > 1:
            place.wrong(f"{header.count(name)} columns are named {name}", "rename all but one")
    answers = labels.names if set(labels.names) <= set(header) else _ANSWERS
    unread = next((name for name in answers if name in header), None)
    if unread is not None:
        place.wrong(
            f"the column {_shown(unread)} looks like the learner's answer, but is not read in CSV",
            "write the learner's answers as JSON lines (.jsonl), or remove the column",
        )
    return header


def _row(place: _Place, header: list[str], row: list[str], labels: Labels) -> Case:
    if len(row) != len(header):
        place.wrong(f"{len(row)} fields, but the header has {len(header)}")
    values = dict(zip(header, row, strict=True))
    _check_text(place, values["text"])
    label = values.get("label")
    return Case(
        values["text"],
        None,
        _expected(place, _several(label, labels), labels)
        if label or label in labels.names
        else None,
        place.line,
    )


def _several(label: str, labels: Labels) -> str | list[Any]:
    """The labels in a cell of a multi-label CSV: a list in JSON, or with semicolons between."""
    if not labels.several or label in labels.names:
        return label
    if label.lstrip().startswith("["):
        with suppress(BadJson):
            found = parse_json(label)
            if isinstance(found, list):
                return found
    return [part.strip() for part in label.split(";") if part.strip()]


def _check_text(place: _Place, text: str) -> None:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        place.wrong("the text contains a lone surrogate, which is not a character")
    if size > LONGEST:
        place.wrong(
            f"the text has {size:,} bytes; the limit of a request is {LONGEST:,}",
            "remove it, or shorten it to what the model reads",
        )


def _expected(place: _Place, label: Any, labels: Labels) -> tuple[str, ...]:
    given = label if isinstance(label, list) else [label]
    if isinstance(label, list) and not labels.several:
        place.wrong("there are several labels, but the learner is single-label", "write one label")
    names: list[str] = []
    for item in given:
        name = _name(item, labels)
        if name not in labels.names:
            some = ", ".join(map(_shown, labels.names[:8]))  # as many as one line takes
            shown = some + (", ..." if len(labels.names) > 8 else "")  # noqa: PLR2004 - the same
            hint = f"its labels are: {shown}"
            if labels.several and any(";" in each for each in labels.names):
                hint += "; some contain a semicolon, so write several as a list in JSON, such as "
                hint += '["a", "b"]'
            place.wrong(f"the learner has no label {str(item)[:60]!r}", hint)
        names.append(str(name))
    return tuple(names)


def _shown(name: str) -> str:
    """A label in an error: in quotes if it could not be seen or told apart without."""
    plain = name.isprintable() and name == name.strip() and "," not in name
    return name if name and plain else repr(name)


def _name(item: Any, labels: Labels) -> str | None:
    """A label as text. A table whose column lacks values holds 1 as 1.0."""
    name = str(item) if isinstance(item, (str, int, float)) else None
    if name is not None and name not in labels.names and name.endswith(".0"):
        return name[:-2]
    return name


def _numbers(place: _Place, value: Any, labels: Labels) -> tuple[float, ...]:
    """Read probabilities, given by label or as a list in the order of the labels."""
    if isinstance(value, dict):
        if set(value) != set(labels.names):
            place.wrong("the probabilities must name exactly the learner's labels")
        value = [value[name] for name in labels.names]
    if not isinstance(value, list) or len(value) != len(labels.names):
        place.wrong(f"there must be {len(labels.names)} probabilities, one for each label")
    numbers = [item for item in value if type(item) in (int, float) and abs(item) <= _LARGEST]
    if len(numbers) != len(value):
        place.wrong("a probability is not a number from 0 to 1")
    return tuple(map(float, numbers))


PROBES: tuple[str, ...] = (
    "I would buy this again without a second thought.",
    "The second half drags, the jokes fall flat and I left before the end.",
    "It arrived on Tuesday.",
    "Not bad, not great: a quiet film for a rainy evening.",
    "WORST. SERVICE. EVER!!!",
    "ok",
    "The café on the corner serves the best crème brûlée in town, says Zoë.",
    "Das Gerät fiel schon am dritten Tag aus; der Händler antwortet nicht.",
    "El camarero fue muy amable y la comida, excelente.",
    "この店のラーメンはとても美味しかったです。",
    "الخدمة كانت بطيئة لكن الطعام لذيذ",
    "Loved it 😀👍 but the ending 💔",
    "see https://example.org/review?id=42&lang=en #mustread @editor 4/5 $19.99",
    "<p>The <b>screen</b> is bright &amp; sharp.</p>",
    "first line\nsecond line\n\n\tindented third line",
    "   spaces   in    front,  between   and behind   ",
    "sooooo goooood!!!!! ha ha ha",
    "don't, won't, can't, it's, they're, I'd've",
    "1234567890 3.14159 -17 1e-6 50% 1,000,000",
    "\"Quoted,\" she said -- 'twice' (and then again)...",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "if (a < b && b > c) { return x[0] * 2; }",
    "Thin as the plot is, I loved it: two sisters, one lighthouse, and a cast that carries it.",
    " ".join(["The chapter goes on and on, and nothing in it is new."] * 120),
)

"""The result of an evaluation: every column's figures, side by side, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fastai_deploy.errors import AccuracyTooLow, FdeployError, SignificantlyWorse
from fastai_deploy.evaluation.intervals import ALPHA
from fastai_deploy.evaluation.local_answers import Column
from fastai_deploy.evaluation.metrics import (
    Answer,
    Figure,
    Figures,
    Labels,
    Paired,
    figures,
    paired,
)
from fastai_deploy.parity.goldens import Case

LEARNER = "learner"
_LEAST = 100  # texts below which the note says how wide the intervals are
_CHANGES = 5  # changed answers shown in a terminal; the page and --json have all of them
_SHOWN = 40  # characters shown of a text there


@dataclass(frozen=True)
class JudgedColumn:
    """A column's figures; ``texts`` are those that it has answers to.

    ``paired`` compares it with the judged column on these texts; None for the judged one itself.
    """

    name: str
    what: str
    version: str
    figures: Figures
    paired: Paired | None


@dataclass(frozen=True)
class Given:
    """One column's answer to a text; ``score`` is the probability of its first label."""

    labels: Labels
    score: float | None
    error: str = ""


@dataclass(frozen=True)
class TextRow:
    """A text that some column answers wrong, or that two columns answer differently."""

    row: int
    text: str
    truth: Labels
    answers: Mapping[str, Given]
    right: bool
    changed: bool


@dataclass(frozen=True)
class Source:
    """The labelled file, and what was left out or stands out in it."""

    file: str
    unlabelled: int = 0
    empty: int = 0


@dataclass(frozen=True)
class Limits:
    """What the judged column must keep to; ``against`` names a column, empty for none."""

    min_accuracy: float | None = None
    against: str = ""


@dataclass(frozen=True)
class EvaluationValues:
    """An evaluation as plain data. ``failed`` is the code of the limit that is not kept, or null.

    ``rows`` are the texts that some column answers wrong, or that two columns answer differently.
    """

    source: Source
    task: Literal["single-label", "multi-label"]
    on: str
    model: str
    labels: Labels
    judged: str
    columns: tuple[JudgedColumn, ...]
    rows: tuple[TextRow, ...]
    notes: tuple[str, ...]
    limits: Limits
    failed: str | None
    page: str


@dataclass(frozen=True)
class Evaluation:
    """How well a model answers labelled texts.

    ``judged`` names the column that the limits are for, and ``on`` says where it was asked.
    ``rows`` has the wrong and changed answers. ``page`` is the path of the report.
    """

    source: Source
    on: str
    model: str
    several: bool
    names: Labels
    judged: str
    columns: tuple[JudgedColumn, ...]
    rows: tuple[TextRow, ...]
    notes: tuple[str, ...]
    limits: Limits
    page: str = ""

    @property
    def main(self) -> JudgedColumn:
        """The judged column."""
        return next(each for each in self.columns if each.name == self.judged)

    @property
    def changed(self) -> tuple[TextRow, ...]:
        """The texts that two columns answer differently, in the order of the file."""
        return tuple(row for row in self.rows if row.changed)

    @property
    def wrong(self) -> tuple[TextRow, ...]:
        """The judged column's wrong answers, the most confident first."""
        found = (row for row in self.rows if not row.right)
        return tuple(sorted(found, key=lambda row: -(row.answers[self.judged].score or 0.0)))

    @property
    def failure(self) -> FdeployError | None:
        """The error to end with if a limit is not kept, else None."""
        found = self.main.figures
        least, accuracy = self.limits.min_accuracy, found.accuracy.value or 0.0
        if least is not None and accuracy < least:
            return AccuracyTooLow(
                f"{self.judged} has an accuracy of {accuracy:.4f} on {found.texts:,} texts, "
                f"less than --min-accuracy {least:g} (95 % interval {interval(found.accuracy)})",
                hint=f"look at the wrong answers in {self.page or 'the report'}",
            )
        other = next((each for each in self.columns if each.name == self.limits.against), None)
        pair = other.paired if other else None
        if other and pair and pair.lost > pair.gained and pair.p_value < ALPHA:
            return SignificantlyWorse(
                f"{self.judged} answers {pair.lost} texts wrong that {other.name} answers right, "
                f"and {pair.gained} the other way round (McNemar's exact test: "
                f"p = {p_value(pair.p_value)})",
                hint=f"look at the changed answers in {self.page or 'the report'}, or keep "
                f"{other.name}",
            )
        return None

    def values(self) -> EvaluationValues:
        """Everything, with the limit that is not kept."""
        failure = self.failure
        return EvaluationValues(
            source=self.source,
            task="multi-label" if self.several else "single-label",
            on=self.on,
            model=self.model,
            labels=self.names,
            judged=self.judged,
            columns=self.columns,
            rows=self.rows,
            notes=self.notes,
            limits=self.limits,
            failed=failure.code if failure else None,
            page=self.page,
        )

    def lines(self) -> Iterator[str]:
        """The figures of all columns, those of each label, and what differs."""
        texts = self.main.figures.texts
        yield f"texts       {texts:,} labelled texts of {self.source.file}"
        yield f"judged      {self.judged}: {self.on}"
        yield from (f"note        {note}" for note in self.notes)
        yield ""
        yield from table(self._headlines())
        yield ""
        yield from table(self._labels())
        yield from self._pairs()
        if self.page:
            yield f"report      {self.page}"

    def _headlines(self) -> Iterator[tuple[str, ...]]:
        first = "exact match" if self.several else "accuracy"
        more = ("micro F1",) if self.several else ()
        yield ("", first, *more, "macro F1", "calibration error")
        for each in self.columns:
            found = each.figures
            error = found.calibration.error if found.calibration else Figure(None)
            micro = (found.micro_f1,) if found.micro_f1 is not None else ()
            yield (each.name, *map(said, (found.accuracy, *micro, found.macro_f1, error)))

    def _labels(self) -> Iterator[tuple[str, ...]]:
        yield (f"{self.judged}:", "precision", "recall", "F1", "texts")
        for each in self.main.figures.labels:
            shown = (_number(each.precision), _number(each.recall), said(each.f1))
            yield (f"  {each.label}", *shown, f"{each.support:,}")

    def _pairs(self) -> Iterator[str]:
        for each in self.columns:
            if each.paired is not None:
                yield ""
                yield from self._pair(each, each.paired)

    def _pair(self, other: JudgedColumn, pair: Paired) -> Iterator[str]:
        yield (
            f"{other.name} -> {self.judged}: {pair.changed} of {pair.texts:,} answers changed; "
            f"{pair.lost} right ones lost, {pair.gained} gained (p = {p_value(pair.p_value)})"
        )
        rows = [
            row
            for row in self.changed
            if other.name in row.answers
            and row.answers[other.name].labels != row.answers[self.judged].labels
        ]
        for row in rows[:_CHANGES]:
            before, after = row.answers[other.name], row.answers[self.judged]
            yield (
                f"  row {row.row}: {labels(before)} -> {labels(after)}, "
                f"truth {', '.join(row.truth) or '(no label)'}: {_short(row.text)}"
            )
        if len(rows) > _CHANGES:
            yield f"  and {len(rows) - _CHANGES:,} more in the report"


def evaluated(
    cases: Sequence[Case],
    columns: Sequence[Column],
    judged: str,
    *,
    names: Labels,
    several: bool,
    source: Source,
    on: str,
    model: str,
    limits: Limits,
) -> Evaluation:
    """Judge columns of answers to labelled cases; ``names`` are the judged model's labels."""
    truths = [case.expected or () for case in cases]
    main = next(each for each in columns if each.name == judged)
    return Evaluation(
        source=source,
        on=on,
        model=model,
        several=several,
        names=names,
        judged=judged,
        columns=tuple(_judged(each, main, truths, names, several=several) for each in columns),
        rows=tuple(_rows(cases, columns, judged)),
        notes=tuple(_notes(cases, main, names, source, several=several)),
        limits=limits,
    )


def _judged(
    column: Column, main: Column, truths: Sequence[Labels], names: Labels, *, several: bool
) -> JudgedColumn:
    texts: list[Labels] = []
    answers: list[Answer] = []
    mine: list[Answer] = []
    for truth, answer, judged in zip(truths, column.answers, main.answers, strict=True):
        if answer is not None and judged is not None:
            texts.append(truth)
            answers.append(answer)
            mine.append(judged)
    own = tuple(dict.fromkeys((*names, *(label for each in answers for label in each.labels))))
    return JudgedColumn(
        column.name,
        column.what,
        column.version,
        figures(texts, answers, own, several=several),
        None if column is main else paired(texts, answers, mine),
    )


def _rows(cases: Sequence[Case], columns: Sequence[Column], judged: str) -> Iterator[TextRow]:
    for place, case in enumerate(cases):
        given = {each.name: each.answers[place] for each in columns}
        known = {name: answer for name, answer in given.items() if answer is not None}
        truth = case.expected or ()
        right = {name: answer.right(truth) for name, answer in known.items()}
        changed = len({(frozenset(a.labels), bool(a.error)) for a in known.values()}) > 1
        if changed or not all(right.values()):
            answers = {name: _given(answer) for name, answer in known.items()}
            yield TextRow(case.line, case.text, truth, answers, right[judged], changed)


def _given(answer: Answer) -> Given:
    score = answer.probabilities.get(answer.labels[0]) if answer.labels else None
    return Given(answer.labels, score, answer.error)


def _notes(
    cases: Sequence[Case], main: Column, names: Labels, source: Source, *, several: bool
) -> Iterator[str]:
    """What a reader of the figures should know of the texts."""
    texts = len(cases)
    if source.unlabelled:
        yield f"{source.unlabelled:,} rows have no label and are left out"
    if source.empty:
        yield f"{source.empty:,} texts are empty; they count like any other"
    failed = sum(bool(each and each.error) for each in main.answers)
    if failed:
        yield f"{failed:,} texts got no answer from {main.name}; they count as wrong"
    seen = {label for case in cases for label in case.expected or ()}
    if len(seen) == 1 and len(names) > 1:
        yield f"every text has the label {next(iter(seen))}: nothing is known about the others"
    elif len(seen) < len(names):
        missing = [name for name in names if name not in seen]
        yield f"no text has the label {', '.join(missing)}: their recall cannot be said"
    if texts < _LEAST:
        yield f"{texts} texts are few: the intervals are wide"
    if several:
        yield "an exact match needs all labels of a text to be right"


def said(figure: Figure) -> str:
    """A figure with its interval, as text."""
    found = interval(figure)
    return f"{_number(figure)} ({found})" if found else _number(figure)


def interval(figure: Figure) -> str:
    """The interval of a figure as text; empty if it has none."""
    found = figure.interval
    return f"{found.low:.2f} to {found.high:.2f}" if found else ""


def _number(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.3f}"


def labels(given: Given) -> str:
    """The labels of an answer as text."""
    return "(no answer)" if given.error else ", ".join(given.labels) or "(no label)"


def p_value(value: float) -> str:
    """A p-value in two digits."""
    return f"{value:.2g}" if value >= 0.0001 else "<0.0001"  # noqa: PLR2004 - as journals round it


def table(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table with aligned columns."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def files_of(bundle: Path) -> tuple[Path, Path]:
    """The paths of the last evaluation of a stage: the JSON file and the page."""
    name = f"{bundle.name}-evaluation"
    return bundle.with_name(f"{name}.json"), bundle.with_name(f"{name}.html")


def encoded(evaluation: Evaluation) -> bytes:
    """The JSON file of an evaluation."""
    found = asdict(evaluation.values())
    text = json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"

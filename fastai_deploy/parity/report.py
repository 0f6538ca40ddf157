"""The parity report: each form's answer to each golden, as JSON and as an HTML page.

The page loads no resources and runs no scripts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from fastai_deploy.errors import FileError, ParityError
from fastai_deploy.files import read, write
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.parity.goldens import Case
from fastai_deploy.parity.page import cell, document, shortened
from fastai_deploy.runtime.bundle import FP32
from fastai_deploy.runtime.parity import answer, compare

LEARNER = "learner"

Answers = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Tried:
    """A form that was tried, and what the gate found; a number is None if it was not computed.

    ``outcome`` is ``passes``, ``fails`` or ``to be proven``; ``speed`` is in texts a second on the
    exporting machine, ``gain`` that of float32's; ``widest`` is the largest margin of a changed
    label; ``most``, ``mean`` and ``p99`` are |Δprobability|; ``interval`` says how exactly the
    labelled goldens show a change of accuracy, in points; ``broken`` are the broken rules.
    """

    precision: str
    outcome: str
    speed: float | None = None
    gain: float | None = None
    changed: int | None = None
    widest: float | None = None
    mean: float | None = None
    p99: float | None = None
    most: float | None = None
    interval: float | None = None
    broken: tuple[str, ...] = ()


@dataclass
class Comparison:
    """Collects the answers of each form; ``threshold`` is None for single-label models.

    ``served`` is the precision whose answers the rows are judged by; until there is one, those of
    the last form that was added.
    """

    labels: tuple[str, ...] = ()
    threshold: float | None = None
    tolerance: float = 0.0
    cases: tuple[Case, ...] = ()
    answers: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    forms: list[Tried] = field(default_factory=list)
    served: str = ""

    def begin(
        self,
        labels: tuple[str, ...],
        threshold: float | None,
        tolerance: float,
        cases: Sequence[Case],
    ) -> None:
        """Set the texts, with the learner's own answers if there are any."""
        self.labels, self.threshold, self.tolerance = labels, threshold, tolerance
        self.cases = tuple(cases)

    def add(self, form: str, answers: Answers) -> None:
        """Add the answers of one form of the model, in the order of the texts."""
        self.answers[form] = [tuple(each) for each in answers]

    def tried(self, form: Tried) -> None:
        """Add what the gate found about a form with fewer bits, or about float32."""
        self.forms.append(form)

    def serve(self, precision: str) -> None:
        """Set the form that is served."""
        self.served = precision

    @property
    def judged(self) -> str:
        """The name under which the answers of the served form are kept."""
        return self.served if self.served in self.answers else next(reversed(self.answers), "")

    def summary(self) -> dict[str, Any]:
        """The comparison as plain data, rows by descending difference, changed answers first."""
        rows = [self._row(place, case) for place, case in enumerate(self.cases)]
        rows.sort(key=lambda row: (not row["changed"], -_size(row["difference"])))
        return {
            "labels": list(self.labels),
            "threshold": self.threshold,
            "tolerance": self.tolerance,
            "texts": len(rows),
            "learner_answers": sum(case.probabilities is not None for case in self.cases),
            "changed": sum(row["changed"] for row in rows),
            "max_difference": {form: self._largest(form) for form in self.answers},
            "accuracy": self._accuracy(),
            "served": self.judged,
            "forms": [_finite(asdict(form)) for form in self.forms],
            "rows": rows,
        }

    def _row(self, place: int, case: Case) -> dict[str, Any]:
        forms: dict[str, tuple[float, ...]] = {}
        if case.probabilities is not None:
            forms[LEARNER] = case.probabilities
        forms.update((form, each[place]) for form, each in self.answers.items())
        first = next(iter(forms.values()), ())
        found = forms.get(self.judged, first)
        row = compare([case.text], [first], [found], threshold=self.threshold).rows[0]
        return {
            "text": case.text,
            "expected": None if case.expected is None else list(case.expected),
            "answers": {
                form: {
                    "labels": self._labels(found),
                    "probabilities": dict(zip(self.labels, map(_plain, found), strict=False)),
                }
                for form, found in forms.items()
            },
            "difference": _plain(row.difference),
            "changed": row.changed,
        }

    def _labels(self, found: Sequence[float]) -> list[str]:
        chosen = answer(found, self.threshold)
        return [self.labels[index] for index in chosen if index < len(self.labels)]

    def _largest(self, form: str) -> float | None:
        """The largest |Δprobability| between a form and the learner; None without its answers."""
        rows = [
            compare([case.text], [case.probabilities], [found], threshold=self.threshold).rows[0]
            for case, found in zip(self.cases, self.answers[form], strict=True)
            if case.probabilities is not None
        ]
        return _plain(max(row.difference for row in rows)) if rows else None

    def _accuracy(self) -> dict[str, dict[str, Any]]:
        """The accuracy of each form on the goldens that have true labels."""
        found: dict[str, dict[str, Any]] = {}
        answers: dict[str, Sequence[Sequence[float] | None]] = {
            LEARNER: [case.probabilities for case in self.cases],
            **self.answers,
        }
        for form, given in answers.items():
            right = [
                set(self._labels(each)) == set(case.expected)
                for case, each in zip(self.cases, given, strict=True)
                if case.expected is not None and each is not None
            ]
            if right:
                found[form] = {"texts": len(right), "accuracy": sum(right) / len(right)}
        return found


@contextmanager
def comparing(bundle: Path) -> Iterator[Comparison]:
    """A comparison that is written next to ``bundle`` when the block ends, also on failure.

    A ParityError is raised again with the path of the report in its hint.
    """
    found = Comparison()
    try:
        yield found
    except ParityError as error:
        place = _write(bundle, found)
        raise type(error)(error.message, hint=f"{error.hint}; {place} shows all texts") from error
    _write(bundle, found)


def report_files(bundle: Path) -> tuple[Path, Path]:
    """The paths of a bundle's report: the JSON file and the page."""
    name = f"{bundle.name}-parity"
    return bundle.with_name(f"{name}.json"), bundle.with_name(f"{name}.html")


def served_accuracy(bundle: Path) -> tuple[float | None, int]:
    """The accuracy of the form that is served, and on how many labelled texts.

    None and 0 without labelled texts, or if the report was edited by hand: it is informational.
    """
    data, _ = report_files(bundle)
    try:
        summary = parse(read(data))
        served = summary["accuracy"][summary["served"]]
        return float(served["accuracy"]), int(served["texts"])
    except (FileError, BadJson, LookupError, TypeError, AttributeError, ValueError):
        return None, 0


def _write(bundle: Path, found: Comparison) -> Path:
    data, shown = report_files(bundle)
    summary = found.summary()
    text = json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False)
    write(data, text.encode("utf-8", "replace") + b"\n")
    write(shown, page(summary).encode("utf-8", "replace"))
    return shown


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _plain(v) if isinstance(v, float) else v for k, v in values.items()}


def _plain(number: float) -> float | None:
    """A number for JSON; None if it is not finite."""
    return number if math.isfinite(number) else None


def _size(difference: float | None) -> float:
    return math.inf if difference is None else difference


_WIDTH, _HEIGHT, _MARGIN = 900, 170, 60
_DECADES = (-9, 0)  # |Δ| from 1e-9 to 1, on a logarithmic scale
_BARS = 200  # texts in the chart
_ROWS = 1_000  # texts in the table; the JSON file has all of them


def page(summary: Mapping[str, Any]) -> str:
    """The HTML page of a comparison's summary; all texts are escaped."""
    return document(
        "Parity report",
        (
            *(f"<p>{escape(line)}" for line in headline(summary)),
            _forms_table(summary),
            _chart(summary["rows"], summary["tolerance"]),
            _table(summary["rows"]),
        ),
    )


def headline(summary: Mapping[str, Any]) -> Iterator[str]:
    """The result of the report, in a few lines."""
    yield (
        f"{summary['texts']} texts, {summary['learner_answers']} with the learner's own answers; "
        f"{summary['changed']} changed answers; tolerance {summary['tolerance']:g}"
    )
    for form, difference in summary["max_difference"].items():
        if difference is not None:
            yield f"{form}: max |Δprobability| {difference:.1e} from the learner"
    for form, found in summary["accuracy"].items():
        yield f"{form}: accuracy {found['accuracy']:.3f} on {found['texts']} labelled texts"


def _forms_table(summary: Mapping[str, Any]) -> str:
    """Every form that was tried, with what it gains and what it changes."""
    if not summary["forms"]:
        return ""
    head = "".join(
        f"<th>{name}"
        for name in ("form", "gate", "times float32's speed", "texts/s", "accuracy",
                     "labels changed", "widest margin", "mean |Δ|", "99th percentile", "largest")
    )  # fmt: skip
    body = "".join(
        f"<tr><td>{escape(form['precision'])}<td class=t>{escape(_outcome(form, summary))}"
        f"<td class=n>{cell(form['gain'], '.1f')}<td class=n>{cell(form['speed'], '.0f')}"
        f"<td class=n>{escape(_accuracy_of(form, summary))}"
        f"<td class=n>{cell(form['changed'], 'd')}"
        + "".join(f"<td class=n>{cell(form[k], '.3f')}" for k in ("widest", "mean", "p99", "most"))
        for form in summary["forms"]
    )
    return (
        f"<h2>Forms</h2><table><tr>{head}{body}</table><p>Speeds are those of the machine that "
        "exported; the server measures again and takes the fastest form that passes."
    )


def _outcome(form: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    served = " (served first)" if form["precision"] == summary["served"] else ""
    reasons = f": {'; '.join(form['broken'])}" if form["broken"] else ""
    return f"{form['outcome']}{served}{reasons}"


def _accuracy_of(form: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    name = "onnx" if form["precision"] == FP32 else form["precision"]
    found = summary["accuracy"].get(name)
    if found is None:
        return "—"
    shown = f"{found['accuracy']:.3f}"
    interval = form["interval"]
    return shown if interval is None else f"{shown} (change known to ±{interval:.1f} points)"


def _chart(rows: Sequence[Mapping[str, Any]], tolerance: float) -> str:
    """One bar per text, its largest |Δprobability| on a logarithmic scale, and the tolerance."""
    shown = rows[:_BARS]
    step = (_WIDTH - _MARGIN) / max(1, len(shown))
    label = "largest probability difference of each text"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 24}" role=img aria-label="{label}">']
    for decade in range(_DECADES[0], _DECADES[1] + 1, 3):
        y = _HEIGHT - _height(10.0**decade)
        parts.append(f'<text x=0 y="{y + 4:.0f}">1e{decade}</text>')
    for place, row in enumerate(shown):
        height = max(1.0, _height(row["difference"]))
        bad = row["changed"] or row["difference"] is None or row["difference"] > tolerance
        parts.append(
            f'<rect class="{"bad" if bad else "bar"}" x="{_MARGIN + place * step:.1f}" '
            f'y="{_HEIGHT - height:.1f}" width="{max(1.0, step * 0.8):.1f}" '
            f'height="{height:.1f}"/>'
        )
    y = _HEIGHT - _height(tolerance)
    parts.append(f'<line class=line x1={_MARGIN} x2={_WIDTH} y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(
        f"<text x={_MARGIN} y={_HEIGHT + 18}>max |Δprobability| of each text, largest first; "
        "the dashed line is the tolerance</text></svg>"
    )
    return "".join(parts)


def _height(difference: float | None) -> float:
    """The height of a bar in pixels."""
    if difference is None:
        return _HEIGHT
    low, high = _DECADES
    decade = math.log10(difference) if difference > 0 else low
    return _HEIGHT * (min(max(decade, low), high) - low) / (high - low)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    left = f"<p>and {len(rows) - _ROWS:,} more in the JSON file" if len(rows) > _ROWS else ""
    rows = rows[:_ROWS]
    forms = list(dict.fromkeys(form for row in rows for form in row["answers"]))
    head = "".join(f"<th>{escape(form)}" for form in forms)
    body = "".join(_table_row(row, forms) for row in rows)
    return f"<table><tr><th>text<th>expected{head}<th>|Δ|{body}</table>{left}"


def _table_row(row: Mapping[str, Any], forms: Sequence[str]) -> str:
    cells = "".join(f"<td>{_answered(row['answers'].get(form))}" for form in forms)
    difference = "—" if row["difference"] is None else f"{row['difference']:.1e}"
    return (
        f"<tr{' class=changed' if row['changed'] else ''}><td class=t>{shortened(row['text'])}"
        f"<td>{escape(', '.join(row['expected'] or []))}{cells}<td class=n>{difference}"
    )


def _answered(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    probabilities = found["probabilities"]
    shown = (f"{label} {_number(probabilities[label])}" for label in found["labels"])
    return escape(", ".join(shown) or "(no label)")


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4f}"

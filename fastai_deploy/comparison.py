"""The parity report: what every form of a model answered to each golden, text by text.

Written beside a bundle as ``<bundle>-parity.json`` and ``<bundle>-parity.html``, also when the gate
fails, so that the user can see which texts it failed on. The forms are ``learner`` (its own
answers, where the user brought them), ``torch`` and ``onnx``, or ``process`` for a learner that is
served as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastai_deploy.comparison_page import page
from fastai_deploy.errors import ParityError
from fastai_deploy.files import write
from fastai_deploy.goldens import Case
from fastai_deploy.parity import answer, compare

LEARNER = "learner"

Answers = Sequence[Sequence[float]]


@dataclass
class Comparison:
    """Answers as they come in; ``threshold`` is None for single-label models."""

    labels: tuple[str, ...] = ()
    threshold: float | None = None
    tolerance: float = 0.0
    cases: tuple[Case, ...] = ()
    answers: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)

    def begin(
        self,
        labels: tuple[str, ...],
        threshold: float | None,
        tolerance: float,
        cases: Sequence[Case],
    ) -> None:
        """Take the texts, with the learner's own answers where there are any."""
        self.labels, self.threshold, self.tolerance = labels, threshold, tolerance
        self.cases = tuple(cases)

    def add(self, form: str, answers: Answers) -> None:
        """Take the answers of one form of the model, in the order of the texts."""
        self.answers[form] = [tuple(each) for each in answers]

    def summary(self) -> dict[str, Any]:
        """All of it as plain data; the rows by falling difference, changed answers first."""
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
            "rows": rows,
        }

    def _row(self, place: int, case: Case) -> dict[str, Any]:
        forms: dict[str, tuple[float, ...]] = {}
        if case.probabilities is not None:
            forms[LEARNER] = case.probabilities
        forms.update((form, each[place]) for form, each in self.answers.items())
        first = next(iter(forms.values()), ())
        difference, changed = 0.0, False
        for found in forms.values():
            row = compare([case.text], [first], [found], threshold=self.threshold).rows[0]
            difference, changed = max(difference, row.difference), changed or row.changed
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
            "difference": _plain(difference),
            "changed": changed,
        }

    def _labels(self, found: Sequence[float]) -> list[str]:
        chosen = answer(found, self.threshold)
        return [self.labels[index] for index in chosen if index < len(self.labels)]

    def _largest(self, form: str) -> float | None:
        """The largest |Δprobability| of a form to the learner's answers; None where it has none."""
        rows = [
            compare([case.text], [case.probabilities], [found], threshold=self.threshold).rows[0]
            for case, found in zip(self.cases, self.answers[form], strict=True)
            if case.probabilities is not None
        ]
        return _plain(max(row.difference for row in rows)) if rows else None

    def _accuracy(self) -> dict[str, dict[str, Any]]:
        """How many of the true labels each form answers, where the goldens have them."""
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
    """A comparison that is written beside ``bundle`` when the block ends, however it ends.

    A ParityError is raised again with the place of the report in its hint.
    """
    found = Comparison()
    try:
        yield found
    except ParityError as error:
        place = _write(bundle, found)
        raise type(error)(error.message, hint=f"{error.hint}; all texts are in {place}") from error
    _write(bundle, found)


def report_files(bundle: Path) -> tuple[Path, Path]:
    """Where the report of a bundle stands: the data and the page."""
    name = f"{bundle.name}-parity"
    return bundle.with_name(f"{name}.json"), bundle.with_name(f"{name}.html")


def _write(bundle: Path, found: Comparison) -> Path:
    data, shown = report_files(bundle)
    summary = found.summary()
    text = json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False)
    write(data, text.encode("utf-8", "replace") + b"\n")
    write(shown, page(summary).encode("utf-8", "replace"))
    return shown


def _plain(number: float) -> float | None:
    """A number as JSON has it: one that is not finite has no place there."""
    return number if math.isfinite(number) else None


def _size(difference: float | None) -> float:
    return math.inf if difference is None else difference

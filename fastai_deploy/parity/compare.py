"""Compares the answers of two forms of a model, and checks the result against a tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastai_deploy.errors import ParityError

SHOWN = 3  # texts shown in an error
SHORT = 60  # characters shown of a text

Probabilities = Sequence[float]


@dataclass(frozen=True)
class ParityRow:
    """One text with its expected and actual probabilities, in the order of the labels.

    ``difference`` is the largest |Δprobability|, infinite if a number is missing or not finite;
    ``changed`` is true if the predicted label, or set of labels, differs.
    """

    text: str
    expected: tuple[float, ...]
    found: tuple[float, ...]
    difference: float
    changed: bool


@dataclass(frozen=True)
class ParityReport:
    """All rows, their largest difference, and the number of changed answers."""

    rows: tuple[ParityRow, ...]
    max_difference: float
    changed: int

    @property
    def worst(self) -> tuple[ParityRow, ...]:
        """The rows by descending difference, changed ones first."""
        return tuple(sorted(self.rows, key=lambda row: (not row.changed, -row.difference)))


def compare(
    texts: Iterable[str],
    expected: Iterable[Probabilities],
    found: Iterable[Probabilities],
    *,
    threshold: float | None,
) -> ParityReport:
    """Compare answers text by text; ``threshold`` is None for single-label models.

    Raises ValueError if the three differ in length.
    """
    rows = tuple(
        _row(text, tuple(wanted), tuple(given), threshold)
        for text, wanted, given in zip(texts, expected, found, strict=True)
    )
    return ParityReport(
        rows=rows,
        max_difference=max((row.difference for row in rows), default=0.0),
        changed=sum(row.changed for row in rows),
    )


def check(
    report: ParityReport,
    tolerance: float,
    *,
    subject: str = "the rebuilt model",
    ties: bool = False,
) -> None:
    """Raise ParityError, naming the worst texts, if an answer changed or exceeds the tolerance.

    With ``ties``, a label may change if the difference is within the tolerance: two labels are then
    practically tied.
    """
    bad = [
        row for row in report.worst if (row.changed and not ties) or not row.difference <= tolerance
    ]
    if not bad:
        return
    named = "; ".join(_named(row) for row in bad[:SHOWN])
    raise ParityError(
        f"{subject} answers {len(bad)} of {len(report.rows)} texts differently "
        f"(tolerance {tolerance:g}): {named}",
        hint="if differences of this size are acceptable, set a larger tolerance in [model]",
    )


def answer(probabilities: Probabilities, threshold: float | None) -> tuple[int, ...]:
    """The index of the predicted label, or the indices of those above the threshold."""
    if threshold is not None:
        return tuple(index for index, value in enumerate(probabilities) if value > threshold)
    best = max(range(len(probabilities)), key=probabilities.__getitem__, default=None)
    return () if best is None else (best,)


def _row(
    text: str, expected: tuple[float, ...], found: tuple[float, ...], threshold: float | None
) -> ParityRow:
    whole = len(expected) == len(found) and all(map(math.isfinite, (*expected, *found)))
    if not whole:
        return ParityRow(text, expected, found, math.inf, changed=True)
    difference = max((abs(a - b) for a, b in zip(expected, found, strict=True)), default=0.0)
    changed = answer(expected, threshold) != answer(found, threshold)
    return ParityRow(text, expected, found, difference, changed)


def _named(row: ParityRow) -> str:
    text = row.text if len(row.text) <= SHORT else row.text[: SHORT - 1] + "…"
    return f"{text!r} ({'another answer, ' if row.changed else ''}off by {row.difference:.2g})"

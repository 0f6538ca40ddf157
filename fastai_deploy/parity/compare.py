"""Do two forms of a model give the same answers: a comparison, and a gate on its result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastai_deploy.errors import ParityError

SHOWN = 3  # texts that an error names
SHORT = 60  # characters of a text that an error shows

Probabilities = Sequence[float]


@dataclass(frozen=True)
class ParityRow:
    """One text: the probabilities that are expected and those found, in the order of the labels.

    ``difference`` is the largest |Δprobability|, infinite when a number is missing or not finite;
    ``changed`` is true when the answer would be another: another label, or another set of labels.
    """

    text: str
    expected: tuple[float, ...]
    found: tuple[float, ...]
    difference: float
    changed: bool


@dataclass(frozen=True)
class ParityReport:
    """Every row, the largest difference among them, and how many answers changed."""

    rows: tuple[ParityRow, ...]
    max_difference: float
    changed: int

    @property
    def worst(self) -> tuple[ParityRow, ...]:
        """The rows by falling difference, changed ones first."""
        return tuple(sorted(self.rows, key=lambda row: (not row.changed, -row.difference)))


def compare(
    texts: Iterable[str],
    expected: Iterable[Probabilities],
    found: Iterable[Probabilities],
    *,
    threshold: float | None,
) -> ParityReport:
    """Compare answers text by text; ``threshold`` is None for single-label models.

    Raises ValueError when the three differ in number.
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
    """Raise ParityError, naming the worst texts, when an answer changed or is off by more.

    With ``ties`` an answer may change within the tolerance: two labels are then as good as even.
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
        hint="if differences of this size are fine, set a larger tolerance: [model] tolerance",
    )


def answer(probabilities: Probabilities, threshold: float | None) -> tuple[int, ...]:
    """The label (or the labels above the threshold) that probabilities stand for, as indices."""
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

"""Figures from the document of a run: median, minimum and maximum over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.comparison.matrix import SHAPES

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One quantity in all rounds."""

    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return short(self.middle)
        return f"{short(self.middle)} ({short(min(self.values))} to {short(max(self.values))})"


def short(value: float) -> str:
    """Format with three digits, or all digits before the decimal point."""
    for digits, bound in ((0, 99.5), (1, 9.95)):
        if abs(value) >= bound:
            return f"{value:,.{digits}f}"
    return f"{value:.2f}"


def figure(values: Sequence[float | None]) -> Figure | None:
    """The figure of these values; None if nothing was measured."""
    known = tuple(value for value in values if value is not None)
    return Figure(known) if known else None


def shapes(document: Document) -> list[str]:
    """The shapes that were measured."""
    seen = {visit["shape"] for visit in document["visits"]}
    return [shape for shape in SHAPES if shape in seen]


def visits(document: Document, shape: str, competitor: str) -> list[Document]:
    """The visits to one competitor, one per round."""
    return [
        visit
        for visit in document["visits"]
        if visit["shape"] == shape and visit["competitor"] == competitor
    ]


def of_cell(
    document: Document, shape: str, competitor: str, cell: str, what: str = "rate"
) -> Figure | None:
    """One quantity of one cell."""
    cells = [visit["cells"].get(cell) for visit in visits(document, shape, competitor)]
    return figure([each[what] for each in cells if each])


def of_visit(document: Document, shape: str, competitor: str, *path: str) -> Figure | None:
    """One quantity of a visit, such as ``start_s`` or ``memory``, ``whole``."""
    found = []
    for visit in visits(document, shape, competitor):
        value: Any = visit
        for name in path:
            value = (value or {}).get(name)
        found.append(value)
    return figure(found)


def of_limit(document: Document, shape: str, precision: str, kind: str, what: str) -> Figure | None:
    """One quantity of the limits, such as ``12``, ``best``."""
    rounds = [each for each in document["limits"] if each["shape"] == shape]
    return figure([each[precision][kind][what] for each in rounds if precision in each])


def ratio(of: Figure | None, to: Figure | None) -> str:
    """The ratio of the medians."""
    return f"{short(of.middle / to.middle)}" if of and to and to.middle else "-"

"""Figures from the document of a run: median, minimum and maximum over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.comparison.matrix import LEARNERS
from benchmarks.comparison.models import FIVE_CLASSES, REVIEWS, ROBERTA

Document = Mapping[str, Any]

TITLES = {
    REVIEWS: "MiniLM fine-tuned on film reviews",
    ROBERTA: "RoBERTa-base with random weights",
    FIVE_CLASSES: "MiniLM fine-tuned on film reviews, five classes",
}


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


def learners(document: Document) -> list[str]:
    """The learners that were measured."""
    return [name for name in LEARNERS if name in document["learners"]]


def visits(document: Document, learner: str, competitor: str) -> list[Document]:
    """The visits to one competitor, one per round."""
    return [
        visit
        for visit in document["visits"]
        if visit["learner"] == learner and visit["competitor"] == competitor
    ]


def of_cell(
    document: Document, learner: str, competitor: str, cell: str, what: str = "rate"
) -> Figure | None:
    """One quantity of one cell."""
    return figure(list(_by_round(document, learner, competitor, cell, what).values()))


def of_visit(document: Document, learner: str, competitor: str, *path: str) -> Figure | None:
    """One quantity of a visit, such as ``start_s`` or ``memory``, ``whole``."""
    found = []
    for visit in visits(document, learner, competitor):
        value: Any = visit
        for name in path:
            value = (value or {}).get(name)
        found.append(value)
    return figure(found)


def ratio(document: Document, learner: str, of: str, to: str, cell: str) -> Figure | None:
    """How many times the rate of ``to`` the competitor ``of`` has, by round."""
    above, below = (_by_round(document, learner, key, cell, "rate") for key in (of, to))
    return figure([above[number] / below[number] for number in above if below.get(number)])


def fastest(document: Document, learner: str, competitors: Sequence[str], cell: str) -> str | None:
    """The competitor with the highest rate."""
    found = [(of_cell(document, learner, key, cell), key) for key in competitors]
    rates = [(rate.middle, key) for rate, key in found if rate]
    return max(rates)[1] if rates else None


def _by_round(
    document: Document, learner: str, competitor: str, cell: str, what: str
) -> dict[int, float]:
    return {
        visit["round"]: visit["cells"][cell][what]
        for visit in visits(document, learner, competitor)
        if visit["cells"].get(cell) and visit["cells"][cell][what] is not None
    }

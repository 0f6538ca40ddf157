"""Which loads each competitor gets, for each learner."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.comparison.models import FIVE_CLASSES, REVIEWS, ROBERTA

LEARNERS = (REVIEWS, ROBERTA, FIVE_CLASSES)
OVERLOAD = 10.0
_ONLY_ANSWERS = {FIVE_CLASSES}  # no loads, fdeploy only


@dataclass(frozen=True)
class Cell:
    """One load: ``clients`` in a closed loop, or an open loop at ``share`` of their best rate."""

    texts: str
    clients: int = 0
    share: float = 0.0

    @property
    def name(self) -> str:
        """The key in the results."""
        return f"{self.texts}/{self.clients or f'open {self.share:g}'}"


CLOSED = (Cell("12", 1), Cell("12", 8), Cell("92", 8), Cell("mixture", 8))


def takes_part(competitor: str, learner: str, number: int) -> bool:
    """Whether to measure a competitor with a learner in round ``number``."""
    if learner in _ONLY_ANSWERS:
        return number == 1 and competitor in {"fdeploy-local", "fdeploy-none"}
    return True


def cells(learner: str, number: int) -> tuple[Cell, ...]:
    """The loads in order; the overload comes last, because a server may not recover from it."""
    if learner in _ONLY_ANSWERS:
        return ()
    if (learner, number) == (ROBERTA, 1):
        return (*CLOSED, Cell("12", share=OVERLOAD))
    return CLOSED

"""The parity gate's rules: how far a model's answers may be from the learner's.

The float32 model computes what the learner computes, so one limit on |Δprobability| holds for it. A
form that computes in fewer bits differs a little everywhere. It passes if nobody would notice: no
label changes except on texts where the learner itself can hardly decide, and the probabilities
differ little on average and little on all but one text in a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterable, Iterator, Optional, Sequence, Tuple

Probabilities = Sequence[float]

MARGIN = 0.05
MEAN = 0.01
P99 = 0.05


@dataclass(frozen=True)
class Rules:
    """What must hold over all goldens; None switches a rule off.

    ``most`` is the largest |Δprobability| of any text, ``mean`` and ``p99`` (the 99th percentile)
    those over the texts. A label may change only if the learner's two best probabilities are
    nearer than ``margin``; 0 allows no change.
    """

    most: Optional[float] = None
    margin: Optional[float] = None
    mean: Optional[float] = None
    p99: Optional[float] = None

    @classmethod
    def exact(cls, tolerance: float) -> Rules:
        """The rules for the float32 model: no changed label, every |Δ| within the tolerance."""
        return cls(most=tolerance, margin=0.0)

    @classmethod
    def tied(cls, tolerance: float) -> Rules:
        """The rules for int8 in bundles of formats 1 and 2.

        A label may change between two that are tied within the tolerance.
        """
        return cls(most=tolerance, margin=2 * tolerance)


REDUCED = Rules(margin=MARGIN, mean=MEAN, p99=P99)
"""The default rules for forms that compute in fewer bits than float32."""


@dataclass(frozen=True)
class ParityRow:
    """One text with its expected and actual probabilities, in the order of the labels.

    ``difference`` is the largest |Δprobability|, infinite if a number is missing or not finite;
    ``changed`` is true if the predicted label, or set of labels, differs; ``margin`` is the
    distance of the two best expected probabilities, or twice the largest distance from the
    threshold of a label that changed.
    """

    text: str
    expected: Tuple[float, ...]
    found: Tuple[float, ...]
    difference: float
    changed: bool
    margin: float


@dataclass(frozen=True)
class ParityReport:
    """All rows."""

    rows: Tuple[ParityRow, ...]

    @property
    def max_difference(self) -> float:
        """The largest |Δprobability|."""
        return max((row.difference for row in self.rows), default=0.0)

    @property
    def mean(self) -> float:
        """The mean over the texts of each text's largest |Δprobability|."""
        return sum(row.difference for row in self.rows) / max(1, len(self.rows))

    @property
    def p99(self) -> float:
        """The 99th percentile of it, by nearest rank; the largest of fewer than 100 texts."""
        ordered = sorted(row.difference for row in self.rows)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0

    @property
    def changed(self) -> int:
        """The number of texts with another label."""
        return sum(row.changed for row in self.rows)

    @property
    def widest(self) -> float:
        """The largest margin of a text with another label; 0 if there is none."""
        return max((row.margin for row in self.rows if row.changed), default=0.0)

    def breaches(self, rules: Rules) -> Tuple[ParityRow, ...]:
        """The texts that break a rule on their own, the worst first."""
        bad = (row for row in self.rows if _breaks(row, rules))
        return tuple(sorted(bad, key=lambda row: (not row.changed, -row.difference)))

    def broken(self, rules: Rules) -> Iterator[str]:
        """Each broken rule as a phrase, with the number found and the limit."""
        if rules.margin is not None:
            wide = [row for row in self.rows if row.changed and not row.margin < rules.margin]
            if wide:
                apart = (
                    f" whose two best probabilities are at least {rules.margin:g} apart"
                    if rules.margin
                    else ""
                )
                yield f"the label changes on {_texts(len(wide))} of {len(self.rows)}{apart}"
        if rules.most is not None and not self.max_difference <= rules.most:
            count = sum(not row.difference <= rules.most for row in self.rows)
            yield (
                f"{_texts(count)} of {len(self.rows)} are off by up to {self.max_difference:.2g} "
                f"(limit {rules.most:g})"
            )
        limits = (("mean", self.mean, rules.mean), ("99th percentile of", self.p99, rules.p99))
        for name, value, limit in limits:
            if limit is not None and not value <= limit:
                yield f"the {name} |Δprobability| is {value:.2g} (limit {limit:g})"


def compare(
    texts: Iterable[str],
    expected: Iterable[Probabilities],
    found: Iterable[Probabilities],
    *,
    threshold: Optional[float],
) -> ParityReport:
    """Compare answers text by text; ``threshold`` is None for single-label models.

    Raises ValueError if the three differ in length.
    """
    columns = list(texts), list(expected), list(found)
    if len({len(column) for column in columns}) != 1:
        raise ValueError("texts, expected and found answers differ in number")
    return ParityReport(
        tuple(
            _row(text, tuple(wanted), tuple(given), threshold)
            for text, wanted, given in zip(*columns)  # noqa: B905  # not in Python 3.8
        )
    )


def answer(probabilities: Probabilities, threshold: Optional[float]) -> Tuple[int, ...]:
    """The index of the predicted label, or the indices of those above the threshold."""
    if threshold is not None:
        return tuple(index for index, value in enumerate(probabilities) if value > threshold)
    best = max(range(len(probabilities)), key=probabilities.__getitem__, default=None)
    return () if best is None else (best,)


def undecided(probabilities: Probabilities, threshold: Optional[float]) -> float:
    """How near an answer is to another one: the distance of the two best probabilities.

    With a threshold: twice the smallest distance of a probability from it.
    """
    if threshold is not None:
        return 2 * min((abs(value - threshold) for value in probabilities), default=0.0)
    best = sorted(probabilities, reverse=True)[:2]
    return best[0] - best[1] if len(best) > 1 else 1.0


def _row(
    text: str, expected: Tuple[float, ...], found: Tuple[float, ...], threshold: Optional[float]
) -> ParityRow:
    whole = len(expected) == len(found) and all(map(math.isfinite, (*expected, *found)))
    if not whole:
        return ParityRow(text, expected, found, math.inf, changed=True, margin=math.inf)
    pairs = list(zip(expected, found))  # noqa: B905  # of one length
    difference = max((abs(a - b) for a, b in pairs), default=0.0)
    changed = answer(expected, threshold) != answer(found, threshold)
    margin = undecided(expected, threshold)
    if changed and threshold is not None:
        margin = 2 * max(abs(a - threshold) for a, b in pairs if (a > threshold) != (b > threshold))
    return ParityRow(text, expected, found, difference, changed, margin)


def _breaks(row: ParityRow, rules: Rules) -> bool:
    label = rules.margin is not None and row.changed and not row.margin < rules.margin
    most = rules.most if rules.most is not None else rules.p99
    return label or (most is not None and not row.difference <= most)


def _texts(count: int) -> str:
    return f"{count} text{'s' if count != 1 else ''}"

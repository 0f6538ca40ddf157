"""95 % intervals and a paired test, in plain Python.

Wilson's score interval is for proportions: accuracy, precision, recall. A class's F1 has Wilson's
interval too, by a transformation; an F1 over several classes has one by the delta method; the
calibration error by the bootstrap. Each returns None where the texts cannot tell.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)  # standard deviations on either side that hold 95 %
_LEAST_TEXTS = 30
ALPHA = 0.05
"""The level of significance of :func:`mcnemar`."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def wilson(right: float, count: float) -> Interval | None:
    """Wilson's interval of a proportion ``right / count``; None for a count of 0.

    It is not degenerate at 0 and at 1. Source: E. B. Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22 (1927), 209-212.
    """
    if count <= 0:
        return None
    share, square = right / count, _Z * _Z / count
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    # At the ends the exact limit is the proportion itself; rounding must not move it.
    low = 0.0 if right <= 0 else max(0.0, middle - half)
    high = 1.0 if right >= count else min(1.0, middle + half)
    return Interval(low, high)


def wilson_f1(hits: int, wrong: int) -> Interval | None:
    """Wilson's interval of the F1 of one class; None if it never occurs.

    ``hits`` are the true positives, ``wrong`` the false positives and false negatives together.
    F = hits / (hits + wrong) is a proportion, and F1 = 2 F / (1 + F) increases with it. Source:
    the indirect method of Lam, Gopal and Qian, "Confidence intervals for the F1 score: a
    comparison of four methods", arXiv:2309.14621.
    """
    found = wilson(hits, hits + wrong)
    if found is None:
        return None
    return Interval(2 * found.low / (1 + found.low), 2 * found.high / (1 + found.high))


def delta(value: float, influences: Iterable[float]) -> Interval | None:
    """The interval of a smooth function of means, by the delta method.

    ``influences`` has, for each text, the derivative of ``value`` with respect to that text's
    weight, so its mean is 0. None for fewer than 30 texts, where the normal approximation is wrong,
    and if all are 0, as for an F1 of 1: then no text shows how far the value varies. Source for F1:
    Takahashi, Yamamoto, Kuchiba and Koyama, "Confidence interval for micro-averaged F1 and
    macro-averaged F1 scores", Applied Intelligence 52 (2022), 4961-4972.
    """
    squares = [each * each for each in influences]
    spread = math.sqrt(math.fsum(squares)) / max(1, len(squares))
    if len(squares) < _LEAST_TEXTS or not spread:
        return None
    return Interval(max(0.0, value - _Z * spread), min(1.0, value + _Z * spread))


Cell = tuple[int, float]
"""What a text adds to a bin: the bin's number, and the amount."""

_DRAWS = 2_000_000  # texts drawn in all resamples together
_MOST, _LEAST = 1_000, 200  # resamples


def bootstrap(texts: Sequence[Sequence[Cell]], value: float) -> Interval | None:
    """The interval of the sum over bins of |mean amount|, by resampling whole texts.

    The limits are corrected for bias, because that sum is too large on few texts. None if the
    resamples do not enclose ``value``. Source: Efron and Tibshirani, "An introduction to the
    bootstrap" (1993), section 14.3, without acceleration. The same texts give the same interval.
    """
    count = len(texts)
    if count < 2:  # noqa: PLR2004 - one text says nothing about the variation of texts
        return None
    resamples = max(_LEAST, min(_MOST, _DRAWS // count))
    draw = random.Random(0).choices  # noqa: S311 - statistics, not secrets
    found = []
    for _ in range(resamples):
        sums: dict[int, float] = {}
        for text in draw(texts, k=count):
            for place, amount in text:
                sums[place] = sums.get(place, 0.0) + amount
        found.append(sum(map(abs, sums.values())) / count)
    found.sort()
    below = sum(each < value for each in found) / resamples
    if not 0 < below < 1:
        return None
    bias = 2 * _NORMAL.inv_cdf(below)
    low, high = (
        found[min(resamples - 1, int(_NORMAL.cdf(bias + side * _Z) * resamples))]
        for side in (-1, 1)
    )
    return Interval(low, high) if low <= value <= high else None


def mcnemar(lost: int, gained: int) -> float:
    """The two-sided p-value of McNemar's exact test on paired answers.

    ``lost`` counts texts that only the first column answers right, ``gained`` those that only the
    second does. If both were equally good, each such text would be one or the other with
    probability 1/2. Source: Q. McNemar, Psychometrika 12 (1947), 153-157; exact as in Agresti,
    "Categorical Data Analysis", section 11.1.
    """
    trials = lost + gained
    if trials >= _BY_HAND:
        return _normal_tail(lost, gained)
    # Integers of any size: 2 ** -trials would underflow for some thousand texts.
    tail = term = 1
    for k in range(min(lost, gained)):
        term = term * (trials - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << trials))


_BY_HAND = 5_000  # changed texts up to which the sum is exact


def _normal_tail(lost: int, gained: int) -> float:
    """The same with the normal approximation and a continuity correction."""
    distance = max(0.0, abs(lost - gained) - 1) / math.sqrt(lost + gained)
    return 2 * (1 - _NORMAL.cdf(distance))

"""Drift: how far captured texts and answers are from the goldens, a figure at a time.

The measure is the population stability index (PSI): the sum over bins of (a - b) ln(a / b), where a
and b are the shares of both sides. Numbers are put into bins with about equally many goldens each.
Below 0.1 counts as stable, above 0.25 as another population. Source: N. Siddiqi, "Credit risk
scorecards" (2006), chapter 9.

Few texts differ by chance alone. If both sides came from one population, PSI would stay below
``by_chance`` in 95 of 100 cases: it is about chi squared with one degree of freedom less than bins,
times (1/n + 1/m). Source: B. Yurdakul, "Statistical properties of population stability index"
(2018). A smaller drift is not one, whatever its limit.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from fastai_deploy.errors import DriftTooLarge, FdeployError
from fastai_deploy.evaluation.result import table

NO_LABEL = "(no label)"
_BINS = 10
_IN_A_BIN = 5  # goldens in each bin at least
_HALF = 0.5  # added to every count, so that no share is 0
_Z = NormalDist().inv_cdf(0.95)
_ONE = NormalDist().inv_cdf(0.975) ** 2
_BAR = 16  # characters
_FEW = 100  # goldens, below which only a large drift can be seen


@dataclass(frozen=True)
class Sample:
    """One text: its answered labels, the probability of the likeliest, and its size.

    ``length`` is in characters; ``unknown`` is the share of its tokens that the vocabulary lacks,
    None if the tokenizer is not at hand.
    """

    labels: tuple[str, ...]
    confidence: float | None
    length: int
    unknown: float | None


@dataclass(frozen=True)
class Share:
    """How often a label was answered, as a share of all answered labels, on both sides."""

    label: str
    goldens: float
    captured: float


@dataclass(frozen=True)
class Drift:
    """A figure on both sides: its mean (None for labels), and how far they are apart.

    ``psi`` is None if a side has no values; ``by_chance`` is what chance explains.
    """

    figure: str
    goldens: float | None
    captured: float | None
    psi: float | None
    by_chance: float | None

    def above(self, limit: float) -> bool:
        """Whether it is a drift of more than this, and not by chance."""
        return self.psi is not None and self.psi > max(limit, self.by_chance or 0.0)


@dataclass(frozen=True)
class Monitored:
    """The captured texts beside the goldens; ``versions`` counts the answers of each version."""

    since: str
    texts: int
    goldens: int
    versions: dict[str, int]
    labels: tuple[Share, ...]
    drift: tuple[Drift, ...]
    notes: tuple[str, ...]
    max_drift: float | None

    @property
    def failure(self) -> FdeployError | None:
        """The error to end with if a figure drifted too far, else None."""
        if self.max_drift is None:
            return None
        limit = self.max_drift
        far = [each for each in self.drift if each.above(limit)]
        if not far:
            return None
        named = ", ".join(f"{each.figure} (PSI {each.psi:.2f})" for each in far)
        return DriftTooLarge(
            f"more drift from the goldens than --max-drift {limit:g}: {named}",
            hint="read some of the captured texts; if the input has changed for good, label a "
            "sample and run fdeploy evaluate",
        )

    def values(self) -> MonitorValues:
        """Everything as plain data."""
        failure = self.failure
        return MonitorValues(**vars(self), failed=failure.code if failure else None)

    def lines(self) -> Iterator[str]:
        """The shares of the labels as a chart, and the drift of each figure."""
        yield f"captured   {self.texts:,} texts of the last {self.since}"
        yield f"baseline   {self.goldens:,} goldens of the bundle"
        yield from (f"note       {note}" for note in self.notes)
        yield ""
        yield from table(self._chart())
        yield ""
        yield from table(self._figures())

    def _chart(self) -> Iterator[tuple[str, ...]]:
        yield ("label", "goldens", "", "captured", "")
        for each in self.labels:
            yield (
                f"  {each.label}",
                *(f"{each.goldens:.3f}", _bar(each.goldens)),
                *(f"{each.captured:.3f}", _bar(each.captured)),
            )

    def _figures(self) -> Iterator[tuple[str, ...]]:
        yield ("drift", "goldens", "captured", "PSI", "by chance", "")
        for each in self.drift:
            mark = ""
            if self.max_drift is not None and each.above(self.max_drift):
                mark = f"above {self.max_drift:g}"
            yield (
                f"  {each.figure}",
                *map(_number, (each.goldens, each.captured, each.psi, each.by_chance)),
                mark,
            )


@dataclass(frozen=True, kw_only=True)
class MonitorValues(Monitored):
    """The result of ``monitor`` as plain data; ``failed`` is an error's code, or null."""

    failed: str | None


def monitored(
    goldens: Sequence[Sample],
    captured: Sequence[Sample],
    names: Sequence[str],
    *,
    since: str,
    versions: dict[str, int],
    notes: Sequence[str],
    max_drift: float | None,
) -> Monitored:
    """Compare captured texts with the goldens; ``names`` are the model's labels, in order."""
    labels = [_answered(side) for side in (goldens, captured)]
    known = list(dict.fromkeys((*names, *labels[0], *labels[1])))
    totals = [max(1, each.total()) for each in labels]
    counts = [[each[name] for name in known] for each in labels]
    figures = [
        Drift("labels", None, None, psi(*counts), by_chance(*counts)),
        _numeric("confidence", *([s.confidence for s in side] for side in (goldens, captured))),
        _numeric("text length", *([s.length for s in side] for side in (goldens, captured))),
        _numeric("unknown tokens", *([s.unknown for s in side] for side in (goldens, captured))),
    ]
    few = f"{len(goldens)} goldens are few: only a large drift shows (--golden)"
    return Monitored(
        since=since,
        texts=len(captured),
        goldens=len(goldens),
        versions=versions,
        labels=tuple(
            Share(name, labels[0][name] / totals[0], labels[1][name] / totals[1]) for name in known
        ),
        drift=tuple(figures),
        notes=(*notes, *([few] if len(goldens) < _FEW else [])),
        max_drift=max_drift,
    )


def _answered(side: Sequence[Sample]) -> Counter[str]:
    return Counter(label for sample in side for label in (sample.labels or (NO_LABEL,)))


def _numeric(
    figure: str, goldens: Sequence[float | None], captured: Sequence[float | None]
) -> Drift:
    """The drift of numbers; those that are not known are left out."""
    before, after = ([each for each in side if each is not None] for side in (goldens, captured))
    if not before or not after:
        return Drift(figure, _mean(before), _mean(after), None, None)
    edges = quantiles(before)
    counts = [_binned(side, edges) for side in (before, after)]
    return Drift(figure, _mean(before), _mean(after), psi(*counts), by_chance(*counts))


def quantiles(values: Sequence[float]) -> list[float]:
    """The inner edges of bins with about equally many values each, without duplicates."""
    ordered = sorted(values)
    bins = max(2, min(_BINS, len(ordered) // _IN_A_BIN))
    return sorted({ordered[len(ordered) * place // bins] for place in range(1, bins)})


def _binned(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    found = Counter(bisect_right(edges, value) for value in values)
    return [found[place] for place in range(len(edges) + 1)]


def psi(before: Sequence[int], after: Sequence[int]) -> float | None:
    """The population stability index of two lists of counts; None if one has none."""
    if not sum(before) or not sum(after):
        return None
    old, new = _shares(before), _shares(after)
    return math.fsum((b - a) * math.log(b / a) for a, b in zip(old, new, strict=True))


def by_chance(before: Sequence[int], after: Sequence[int]) -> float | None:
    """The PSI that one population stays below in 95 of 100 cases; None if a side has none.

    The quantile of chi squared is that of Wilson and Hilferty (1931), which is 2 % too low for one
    degree of freedom; there it is the square of a normal quantile.
    """
    bins = sum(bool(a or b) for a, b in zip(before, after, strict=True))
    if not sum(before) or not sum(after):
        return None
    free = bins - 1
    if not free:
        return 0.0
    part = 2 / (9 * free)
    quantile = _ONE if free == 1 else free * (1 - part + _Z * math.sqrt(part)) ** 3
    return quantile * (1 / sum(before) + 1 / sum(after))


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts) + _HALF * len(counts)
    return [(count + _HALF) / whole for count in counts]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _bar(share: float) -> str:
    return "█" * round(_BAR * share)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < _BINS else f"{value:.0f}"

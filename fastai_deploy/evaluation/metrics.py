"""The figures of a classifier on labelled texts.

Everything is counted from the labels that were answered and the true ones; only calibration needs
probabilities. A text without an answer counts as wrong. A figure that the texts cannot give, such
as the precision of a label that was never answered, is None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fastai_deploy.evaluation.intervals import (
    Cell,
    Interval,
    bootstrap,
    delta,
    mcnemar,
    wilson,
    wilson_f1,
)

BINS = 10
NO_ANSWER = ""
"""The column of a confusion matrix for texts without an answer."""

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """The labels answered to a text, and its probabilities; ``error`` if there is no answer."""

    labels: Labels
    probabilities: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    def right(self, truth: Labels) -> bool:
        """Whether exactly the true labels were answered."""
        return not self.error and set(self.labels) == set(truth)


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval; None for what cannot be said."""

    value: float | None
    interval: Interval | None = None


@dataclass(frozen=True)
class LabelFigures:
    """The figures of one label; ``support`` counts the texts that have it."""

    label: str
    precision: Figure
    recall: Figure
    f1: Figure
    support: int
    answered: int


@dataclass(frozen=True)
class Bin:
    """The probabilities between two limits: how many, their mean, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float | None
    right: Figure


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be taken at their word.

    ``error`` is the expected calibration error (ECE): the mean over the texts of how far the share
    of right answers is from the mean probability in the same of ten equal bins. For a single-label
    model the probability is that of the answer; for a multi-label model, every probability of every
    label counts, and is right if the text has the label. Source: Guo, Pleiss, Sun and Weinberger,
    "On calibration of modern neural networks" (2017), section 2.
    """

    error: Figure
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Figures:
    """All figures of one column of answers.

    ``accuracy`` is the share of texts whose labels are all right: for a multi-label model the exact
    match. The averages of F1 are over the labels that occur, in the truth or in an answer; the
    weighted one counts each label by its support. ``micro_f1`` counts all labels together, and is
    None for a single-label model, where it is the accuracy. ``confusion`` counts texts by true and
    answered label, and is empty for a multi-label model; :data:`NO_ANSWER` stands for no answer.
    """

    texts: int
    unanswered: int
    accuracy: Figure
    macro_f1: Figure
    weighted_f1: Figure
    micro_f1: Figure | None
    labels: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration | None


def figures(
    truths: Sequence[Labels], answers: Sequence[Answer], names: Labels, *, several: bool
) -> Figures:
    """The figures of answers to texts with these true labels; ``names`` are the model's labels.

    ``several``: a text may have several labels. Raises ValueError if there are no texts.
    """
    count = len(truths)
    if not count or count != len(answers):
        raise ValueError("there must be as many answers as texts, and at least one")
    rows = [
        _Row(frozenset(truth), frozenset() if answer.error else frozenset(answer.labels))
        for truth, answer in zip(truths, answers, strict=True)
    ]
    counts = _counted(rows, names)
    right = sum(answer.right(truth) for truth, answer in zip(truths, answers, strict=True))
    return Figures(
        texts=count,
        unanswered=sum(bool(answer.error) for answer in answers),
        accuracy=Figure(right / count, wilson(right, count)),
        macro_f1=_macro(rows, counts),
        weighted_f1=_weighted(rows, counts),
        micro_f1=_micro(rows, counts) if several else None,
        labels=tuple(_of_label(each) for each in counts.values()),
        confusion=() if several else confusion(truths, answers, names),
        calibration=calibration(truths, answers, several=several),
    )


def confusion(
    truths: Sequence[Labels], answers: Sequence[Answer], names: Labels
) -> tuple[tuple[int, ...], ...]:
    """Texts by true label (rows) and answered label; the last column is for no answer.

    An answer that is not one of ``names`` counts as none.
    """
    found = Counter(
        (truth[0], answer.labels[0] if answer.labels and not answer.error else NO_ANSWER)
        for truth, answer in zip(truths, answers, strict=True)
    )
    known = set(names)
    return tuple(
        (
            *(found[truth, name] for name in names),
            sum(n for (of, name), n in found.items() if of == truth and name not in known),
        )
        for truth in names
    )


def calibration(
    truths: Sequence[Labels], answers: Sequence[Answer], *, several: bool
) -> Calibration | None:
    """How well calibrated the probabilities are; None if no answer has any."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    texts: list[list[Cell]] = []
    pairs = 0
    for truth, answer in zip(truths, answers, strict=True):
        cells = []
        for probability, right in _judged(truth, answer, several=several):
            place = min(BINS - 1, int(probability * BINS))
            bins[place].append((probability, right))
            cells.append((place, probability - right))
        pairs += len(cells)
        if cells:
            texts.append(cells)
    if not pairs:
        return None
    gaps = (math.fsum(probability - right for probability, right in each) for each in bins)
    error = sum(map(abs, gaps)) / pairs
    share = len(texts) / pairs  # of a text among the pairs: all texts have as many
    resampled = [[(place, amount * share) for place, amount in text] for text in texts]
    return Calibration(Figure(error, bootstrap(resampled, error)), tuple(_bins(bins)))


def _judged(truth: Labels, answer: Answer, *, several: bool) -> Iterator[tuple[float, bool]]:
    """The probabilities of an answer that can be judged, and whether each is right."""
    if answer.error or not answer.probabilities:
        return
    if several:
        for name, probability in answer.probabilities.items():
            yield probability, name in truth
    elif answer.labels and answer.labels[0] in answer.probabilities:
        yield answer.probabilities[answer.labels[0]], answer.right(truth)


def _bins(bins: Sequence[Sequence[tuple[float, bool]]]) -> Iterator[Bin]:
    for place, each in enumerate(bins):
        count, right = len(each), sum(right for _, right in each)
        yield Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            count=count,
            confidence=math.fsum(p for p, _ in each) / count if count else None,
            right=Figure(right / count if count else None, wilson(right, count)),
        )


@dataclass(frozen=True)
class _Row:
    truth: frozenset[str]
    answered: frozenset[str]


@dataclass(frozen=True)
class _Counts:
    """How often a label is true, answered, and both."""

    label: str
    true: int
    answered: int
    both: int

    @property
    def occurs(self) -> bool:
        return bool(self.true or self.answered)

    @property
    def f1(self) -> float:
        return 2 * self.both / (self.true + self.answered)

    def influence(self, row: _Row, count: int) -> float:
        """How F1 changes with the weight of one of so many texts; 0 if it lacks the label."""
        true, answered = self.label in row.truth, self.label in row.answered
        change = 2 * (true and answered) - self.f1 * (true + answered)
        return change * count / (self.true + self.answered)


def _counted(rows: Sequence[_Row], names: Labels) -> dict[str, _Counts]:
    true = Counter(name for row in rows for name in row.truth)
    answered = Counter(name for row in rows for name in row.answered)
    both = Counter(name for row in rows for name in row.truth & row.answered)
    return {name: _Counts(name, true[name], answered[name], both[name]) for name in names}


def _of_label(counts: _Counts) -> LabelFigures:
    both = counts.both
    wrong = counts.true + counts.answered - 2 * both
    return LabelFigures(
        label=counts.label,
        precision=_share(both, counts.answered),
        recall=_share(both, counts.true),
        f1=Figure(counts.f1 if counts.occurs else None, wilson_f1(both, wrong)),
        support=counts.true,
        answered=counts.answered,
    )


def _share(part: int, whole: int) -> Figure:
    return Figure(part / whole if whole else None, wilson(part, whole))


def _macro(rows: Sequence[_Row], counts: Mapping[str, _Counts]) -> Figure:
    occurring = [each for each in counts.values() if each.occurs]
    if not occurring:
        return Figure(None)
    value = sum(each.f1 for each in occurring) / len(occurring)
    influences = (
        sum(each.influence(row, len(rows)) for each in _of_row(row, counts)) / len(occurring)
        for row in rows
    )
    return Figure(value, delta(value, influences))


def _weighted(rows: Sequence[_Row], counts: Mapping[str, _Counts]) -> Figure:
    """F1 weighted by support; the weights vary with the texts, too."""
    true = sum(each.true for each in counts.values())
    if not true:
        return Figure(None)
    value = sum(each.true * each.f1 for each in counts.values() if each.true) / true
    count = len(rows)
    influences = (
        sum(
            each.true * each.influence(row, count)
            + (count * (each.f1 - value) if each.label in row.truth else 0.0)
            for each in _of_row(row, counts)
        )
        / true
        for row in rows
    )
    return Figure(value, delta(value, influences))


def _micro(rows: Sequence[_Row], counts: Mapping[str, _Counts]) -> Figure:
    whole = sum(each.true + each.answered for each in counts.values())
    if not whole:
        return Figure(None)
    value = 2 * sum(each.both for each in counts.values()) / whole
    scale = len(rows) / whole
    influences = (
        scale * (2 * len(row.truth & row.answered) - value * (len(row.truth) + len(row.answered)))
        for row in rows
    )
    return Figure(value, delta(value, influences))


def _of_row(row: _Row, counts: Mapping[str, _Counts]) -> Iterator[_Counts]:
    """The labels of a text, in a fixed order: others have no influence."""
    return (counts[name] for name in sorted(row.truth | row.answered) if name in counts)


@dataclass(frozen=True)
class Paired:
    """Two columns on the same texts.

    ``lost`` counts texts that only the other column answers right, ``gained`` those that only the
    judged one does; ``changed`` counts other labels; ``p_value`` is that of McNemar's exact test.
    """

    texts: int
    changed: int
    lost: int
    gained: int
    p_value: float


def paired(truths: Sequence[Labels], before: Sequence[Answer], after: Sequence[Answer]) -> Paired:
    """Compare two columns of answers to the same texts."""
    lost = gained = changed = 0
    for truth, old, new in zip(truths, before, after, strict=True):
        was, is_ = old.right(truth), new.right(truth)
        lost += was and not is_
        gained += is_ and not was
        changed += set(old.labels) != set(new.labels) or bool(old.error) != bool(new.error)
    return Paired(len(truths), changed, lost, gained, mcnemar(lost, gained))

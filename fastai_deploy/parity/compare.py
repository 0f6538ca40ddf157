"""Checks answers against the rules of the parity gate (``runtime/parity.py``)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.errors import ParityError
from fastai_deploy.runtime.parity import REDUCED, ParityReport, ParityRow, Rules, answer

Choice = Literal["auto", "int8", "int8-weights", "bf16", "none"]

SHOWN = 3  # texts shown in an error
SHORT = 60  # characters shown of a text
_CONFIDENCE = 1.96  # standard deviations on either side that hold 95 % of a normal distribution


def check(
    report: ParityReport, rules: Rules, *, subject: str = "the rebuilt model", hint: str = ""
) -> None:
    """Raise ParityError, naming the broken rules and the worst texts, if a rule is broken."""
    broken = list(report.broken(rules))
    if not broken:
        return
    bad = report.breaches(rules) or sorted(report.rows, key=lambda row: -row.difference)
    reason = (
        f"{len(bad)} of {len(report.rows)} texts differently (tolerance {rules.most:g})"
        if rules.most is not None
        else f"differently: {'; '.join(broken)}; the worst"
    )
    raise ParityError(
        f"{subject} answers {reason}: {'; '.join(_named(row) for row in bad[:SHOWN])}",
        hint=hint
        or "if differences of this size are acceptable, set a larger tolerance in [model]",
    )


@dataclass(frozen=True)
class Gate:
    """Which forms with fewer bits may be served, and what they must keep to.

    ``quantize`` is the one that the user demands, ``auto`` for all that pass, ``none`` for none.
    ``max_accuracy_drop`` is in points, None to allow any.
    """

    quantize: Choice = "auto"
    rules: Rules = REDUCED
    max_accuracy_drop: float | None = 0.5


DEFAULT_GATE = Gate()
"""Every form that keeps to all rules."""


@dataclass(frozen=True)
class Accuracy:
    """What a form gains and loses on texts with true labels, compared with the reference.

    ``lost`` counts texts that only the reference answers right, ``gained`` those that only the form
    does.
    """

    texts: int
    lost: int
    gained: int

    @property
    def drop(self) -> float:
        """How much worse the form's accuracy is, in points."""
        return 100 * (self.lost - self.gained) / max(1, self.texts)

    @property
    def interval(self) -> float:
        """Half of the 95 % interval of ``drop``, in points, for paired answers.

        Source: the Wald interval of a difference of paired proportions (Agresti, "Categorical Data
        Analysis", section 11.1). One changed text is assumed where none changed, because so many
        texts cannot show less.
        """
        changed = max(1, self.lost + self.gained)
        variance = changed - (self.lost - self.gained) ** 2 / max(1, self.texts)
        return 100 * _CONFIDENCE * math.sqrt(max(0.0, variance)) / max(1, self.texts)


def accuracy_change(
    truths: Sequence[tuple[int, ...] | None],
    reference: Sequence[Sequence[float]],
    found: Sequence[Sequence[float]],
    threshold: float | None,
) -> Accuracy:
    """Compare two forms on the texts whose true labels (as indices) are known."""
    lost = gained = texts = 0
    for truth, mine, theirs in zip(truths, reference, found, strict=True):
        if truth is None:
            continue
        before, after = answer(mine, threshold) == truth, answer(theirs, threshold) == truth
        texts += 1
        lost += before and not after
        gained += after and not before
    return Accuracy(texts, lost, gained)


def less_accurate(accuracy: Accuracy, most: float | None) -> Iterator[str]:
    """The broken rule as a phrase, if accuracy drops by more than ``most`` points."""
    if most is not None and accuracy.drop > most:
        yield (
            f"accuracy drops by {accuracy.drop:.1f} points on {accuracy.texts} labelled texts "
            f"(limit {most:g}; so many texts show it to within {accuracy.interval:.1f})"
        )


def labels_of(expected: tuple[str, ...] | None, names: Sequence[str]) -> tuple[int, ...] | None:
    """The true labels of a text as sorted indices; None if they are not known."""
    return None if expected is None else tuple(sorted(names.index(name) for name in expected))


def _named(row: ParityRow) -> str:
    text = row.text if len(row.text) <= SHORT else row.text[: SHORT - 1] + "…"
    return f"{text!r} ({'another answer, ' if row.changed else ''}off by {row.difference:.2g})"

"""Ask the goldens before serving, and check the answers against the bundle's rules."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Callable, Iterable, List, Mapping, Protocol, Sequence, Tuple, Union

from .bundle import Bundle, Golden, ModelError
from .contract import Encoded, Outcome, Prediction, RequestError
from .parity import compare
from .request_queue import Limits


class Predicting(Protocol):
    """A model that answers texts. Thread-safe."""

    bundle: Bundle
    limits: Limits

    def encode(self, text: str) -> Union[Encoded, RequestError]:
        """The input for one text, or the error to answer it with. Raises nothing."""
        ...

    def run(self, texts: Sequence[Encoded]) -> List[Outcome]:
        """Answer texts in one run; a failed text gets an error in its place."""
        ...

    def predict(self, texts: Sequence[str]) -> List[Outcome]:
        """Answer texts in order."""
        ...

    def predict_encoded(
        self, texts: Sequence[Encoded], run_all: Callable[..., Iterable[List[Outcome]]] = map
    ) -> List[Outcome]:
        """Answer encoded texts in order; ``run_all`` maps :meth:`run` over groups."""
        ...


_SHOWN_TEXT = 24
_GROUP = 16  # goldens asked before the next look at the clock
PATIENCE = 2.0
"""Seconds in which a server asks its goldens when it starts, if they must prove a form."""
REMINDER = 0.5
"""The same for a form that has proven itself at export."""


@dataclass(frozen=True)
class Checked:
    """Goldens that were asked, and their largest |Δprobability|."""

    goldens: int
    deviation: float


@dataclass(frozen=True)
class Answered:
    """A golden, and the probabilities that a session gave it; empty if it has other labels."""

    golden: Golden
    probabilities: Tuple[float, ...]


def ask_goldens(
    predictor: Predicting,
    goldens: Sequence[Golden],
    *,
    patience: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> List[Answered]:
    """The answers to the goldens, in order: to the first ones, and to more for ``patience`` s."""
    end = clock() + patience
    found: List[Answered] = []
    for start in range(0, len(goldens), _GROUP):
        if found and clock() >= end:
            break
        group = goldens[start : start + _GROUP]
        outcomes = predictor.predict([golden.text for golden in group])
        for golden, outcome in zip(group, outcomes):  # noqa: B905  # not in Python 3.8
            found.append(Answered(golden, _probabilities(outcome, predictor.bundle.labels)))
    return found


def check_answers(bundle: Bundle, answers: Sequence[Answered]) -> Checked:
    """Check the answers of all sessions of a model against the bundle's rules.

    Raises ModelError if they break the rules. The message shows the beginning of the worst text, at
    most half of it.
    """
    report = compare(
        [each.golden.text for each in answers],
        [_in_order(each.golden.probabilities, bundle.labels) for each in answers],
        [each.probabilities for each in answers],
        threshold=bundle.threshold,
    )
    broken = list(report.broken(bundle.rules))
    if broken:
        bad = report.breaches(bundle.rules) or report.rows
        raise ModelError(
            f"{len(bad)} of {len(answers)} goldens are not reproduced; the first, "
            f"{_shortened(bad[0].text)}, is off by {bad[0].difference:.3g} ({'; '.join(broken)})"
        )
    return Checked(len(answers), report.max_difference)


def _probabilities(outcome: object, labels: Sequence[str]) -> Tuple[float, ...]:
    """The probabilities of an answer in the order of the labels; empty if it has others."""
    return _in_order(dict(outcome.probabilities), labels) if isinstance(outcome, Prediction) else ()


def _in_order(probabilities: Mapping[str, float], labels: Sequence[str]) -> Tuple[float, ...]:
    if probabilities.keys() != set(labels):
        return ()
    return tuple(probabilities[label] for label in labels)


def _shortened(text: str) -> str:
    return repr(text[: min(_SHOWN_TEXT, (len(text) + 1) // 2)] + "...")

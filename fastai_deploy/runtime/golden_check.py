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


def check_goldens(
    predictors: Sequence[Predicting],
    goldens: Sequence[Golden],
    *,
    patience: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Checked:
    """Ask the goldens, in order and for at most ``patience`` seconds, and check the answers.

    ``predictors`` are sessions of the same model. They are asked in turns, each at least once, if
    there are as many goldens. Raises ModelError if the answers break the bundle's rules. The
    message shows the beginning of the worst text, at most half of it.
    """
    bundle = predictors[0].bundle
    end = clock() + patience
    group = max(1, min(_GROUP, len(goldens) // len(predictors)))
    found: List[Tuple[float, ...]] = []
    for turn, start in enumerate(range(0, len(goldens), group)):
        if turn >= len(predictors) and clock() >= end:
            break
        texts = [golden.text for golden in goldens[start : start + group]]
        outcomes = predictors[turn % len(predictors)].predict(texts)
        found += [_probabilities(outcome, bundle.labels) for outcome in outcomes]
    asked = goldens[: len(found)]
    report = compare(
        [golden.text for golden in asked],
        [_in_order(golden.probabilities, bundle.labels) for golden in asked],
        found,
        threshold=bundle.threshold,
    )
    broken = list(report.broken(bundle.rules))
    if broken:
        bad = report.breaches(bundle.rules) or report.rows
        raise ModelError(
            f"{len(bad)} of {len(asked)} goldens are not reproduced; the first, "
            f"{_shortened(bad[0].text)}, is off by {bad[0].difference:.3g} ({'; '.join(broken)})"
        )
    return Checked(len(asked), report.max_difference)


def _probabilities(outcome: object, labels: Sequence[str]) -> Tuple[float, ...]:
    """The probabilities of an answer in the order of the labels; empty if it has others."""
    return _in_order(dict(outcome.probabilities), labels) if isinstance(outcome, Prediction) else ()


def _in_order(probabilities: Mapping[str, float], labels: Sequence[str]) -> Tuple[float, ...]:
    if probabilities.keys() != set(labels):
        return ()
    return tuple(probabilities[label] for label in labels)


def _shortened(text: str) -> str:
    return repr(text[: min(_SHOWN_TEXT, (len(text) + 1) // 2)] + "...")

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
"""Seconds in which a server asks its goldens when it starts; it asks the first ones in any case."""


@dataclass(frozen=True)
class Checked:
    """Goldens that were asked, and their largest |Δprobability|."""

    goldens: int
    deviation: float


def check_goldens(
    predictor: Predicting,
    goldens: Sequence[Golden],
    *,
    patience: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Checked:
    """Predict the goldens, in order and for at most ``patience`` seconds, and check the answers.

    Raises ModelError if they break the bundle's rules. The message shows the beginning of the
    worst text, at most half of it.
    """
    bundle = predictor.bundle
    end = clock() + patience
    found: List[Tuple[float, ...]] = []
    while len(found) < len(goldens) and (not found or clock() < end):
        asked = goldens[len(found) : len(found) + _GROUP]
        outcomes = predictor.predict([golden.text for golden in asked])
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

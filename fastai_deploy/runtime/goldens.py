"""The self-check: a model that would answer wrongly must never become healthy."""

from __future__ import annotations

from typing import Sequence

from .bundle import Golden, ModelError
from .contract import Prediction
from .predicting import Predicting

_SHOWN = 24


def check_goldens(predictor: Predicting, goldens: Sequence[Golden]) -> float:
    """Ask every golden; the largest |Δprobability| found.

    Raises ModelError when one is above the manifest's tolerance, or is not answered at all. The
    message shows the beginning of the first such text and never more than half of it.
    """
    tolerance = predictor.bundle.tolerance
    deviations = [
        _deviation(golden, outcome)
        for golden, outcome in zip(  # noqa: B905  # not in Python 3.8
            goldens, predictor.predict([golden.text for golden in goldens])
        )
    ]
    wrong = [place for place, deviation in enumerate(deviations) if not deviation <= tolerance]
    if wrong:
        first = wrong[0]
        raise ModelError(
            f"{len(wrong)} of {len(goldens)} goldens are not reproduced; the first, "
            f"{_shortened(goldens[first].text)}, is off by {deviations[first]:.3g} "
            f"(tolerance {tolerance:g})"
        )
    return max(deviations)


def _deviation(golden: Golden, outcome: object) -> float:
    """|Δprobability| of one golden; infinite when there is nothing to compare."""
    if not isinstance(outcome, Prediction):
        return float("inf")
    found = dict(outcome.probabilities)
    if found.keys() != golden.probabilities.keys():
        return float("inf")
    return max(abs(found[label] - golden.probabilities[label]) for label in found)


def _shortened(text: str) -> str:
    return repr(text[: min(_SHOWN, (len(text) + 1) // 2)] + "...")

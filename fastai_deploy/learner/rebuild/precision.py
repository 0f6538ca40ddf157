"""Choose the graph to serve: int8 if it is accurate enough and worthwhile, or else float32.

Accurate enough means that over all goldens, each alone and in batches as a busy server would form
them, no answer changes (so not one correct answer is lost) and no probability is off by more than
half of ``TOLERANCE``. The bundle's tolerance is then ``TOLERANCE``, and every later check holds the
model to it, including the container's own at startup. The other half allows for batches on a busy
server that export did not try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fastai_deploy.errors import ParityError, UnsupportedLearner
from fastai_deploy.learner.rebuild.onnx_export import Graph
from fastai_deploy.learner.rebuild.onnx_file import remove_onnx
from fastai_deploy.learner.rebuild.quantize import quantize
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt
from fastai_deploy.parity.compare import check, compare
from fastai_deploy.parity.goldens import Golden
from fastai_deploy.progress import Reporter, Step, Warned

Choice = Literal["auto", "int8", "none"]

TOLERANCE = 0.04
"""|Δprobability| of int8 against the learner. Dynamic int8 takes its scales from the whole batch,
so an answer depends on its neighbours by a few thousandths."""
WORTHWHILE = 10_000_000
"""Parameters. A smaller model answers a short text in float32 within a few milliseconds, about as
much as the rest of a request takes."""
_FILE = "model.int8.onnx"


@dataclass(frozen=True)
class Int8:
    """The user's choice; ``tolerance`` is None if the user gave none."""

    choice: Choice
    tolerance: float | None = None


@dataclass(frozen=True)
class Served:
    """The graph to serve; ``difference`` is its largest |Δprobability| against the goldens."""

    graph: Graph
    precision: str
    tolerance: float
    difference: float


def choose(
    rebuilt: Rebuilt,
    reference: Served,
    goldens: Sequence[Golden],
    wish: Int8,
    report: Reporter,
    *,
    worthwhile: int = WORTHWHILE,
) -> Served:
    """The int8 form of the reference if it is chosen and accurate enough, or else the reference.

    A tolerance that the user gives applies to int8 too; ``auto`` tries int8 from ``worthwhile``
    parameters. Raises ParityError or UnsupportedLearner if int8 is demanded and not possible.
    """
    parameters = sum(each.numel() for each in rebuilt.classifier.parameters())
    if wish.choice == "none" or (wish.choice == "auto" and parameters < worthwhile):
        return reference
    report(Step("quantizing to int8"))
    path = reference.graph.path.with_name(_FILE)
    try:
        quantize(reference.graph.path, path)
        found = _checked(rebuilt, reference, path, goldens, wish.tolerance or TOLERANCE)
    except (ParityError, UnsupportedLearner) as error:
        remove_onnx(path)
        if wish.choice == "int8":
            raise
        report(
            Warned(
                f"serving float32, because int8 is not accurate enough: {error.message}",
                'float32 takes two to three times as long; quantize = "none" in [model] skips '
                "the attempt",
            )
        )
        return reference
    report(
        Step(
            f"{len(goldens)} goldens reproduced in int8: max |Δprobability| "
            f"{found.difference:.1e} (tolerance {found.tolerance:g}), 0 answers changed"
        )
    )
    return found


def _checked(
    rebuilt: Rebuilt,
    reference: Served,
    path: Path,
    goldens: Sequence[Golden],
    tolerance: float,
) -> Served:
    graph = replace(reference.graph, path=path)
    texts = [each.text for each in goldens]
    threshold = rebuilt.anatomy.threshold
    difference = 0.0
    for found in (rebuilt.answer_onnx(graph, texts), rebuilt.answer_onnx_batched(graph, texts)):
        parity = compare(
            texts, [each.probabilities for each in goldens], found, threshold=threshold
        )
        check(parity, tolerance / 2, subject="the int8 model")
        difference = max(difference, parity.max_difference)
    return Served(graph, "int8", tolerance, difference)

"""Which graph is served: int8 where its answers are good enough and it is worth it, else float32.

Good enough means, over all goldens, each alone and in batches as a busy server would make them: no
answer changes (so that not a single right one is lost) and no probability is off by more than half
of ``TOLERANCE``. The bundle's tolerance is then ``TOLERANCE``, and every later station, the
container's own check at start among them, holds the model to it. The other half is for the batches
that a busy server makes and export did not.
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
so that an answer depends on its neighbours by some thousandths."""
WORTHWHILE = 10_000_000
"""Parameters. A smaller model answers a short text within a few milliseconds in float32, about
what a request costs besides."""
_FILE = "model.int8.onnx"


@dataclass(frozen=True)
class Int8:
    """What is wished: ``tolerance`` is the user's own, None where nothing was said."""

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
    """The int8 form of the reference if it is chosen and good enough, else the reference itself.

    A tolerance that the user states holds for int8, too; ``worthwhile`` are the parameters from
    which on ``auto`` tries it. Raises ParityError or UnsupportedLearner when int8 is demanded and
    cannot be had.
    """
    parameters = sum(each.numel() for each in rebuilt.classifier.parameters())
    if wish.choice == "none" or (wish.choice == "auto" and parameters < worthwhile):
        return reference
    report(Step("quantizing it to int8"))
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
                f"the model is served in float32, because int8 is not good enough: {error.message}",
                'this costs two to three times the time; quantize = "none" in [model] leaves '
                "out the attempt",
            )
        )
        return reference
    report(
        Step(
            f"{len(goldens)} goldens answered alike in int8: max |Δprobability| "
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

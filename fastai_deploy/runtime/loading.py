"""From an unpacked artifact to a predictor that has answered its goldens."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Protocol, Sequence, Tuple, Union

from . import hardware
from .backends import Backend, Gpu, backends, find_gpu
from .bundle import Bundle, Golden, ModelError, open_bundle, read_goldens
from .contract import Encoded, Outcome, Prediction, RequestError
from .hardware import Hardware, ThreadPlan, freeze_gc, plan_threads
from .log import Log
from .request_queue import Limits


class Predicting(Protocol):
    """A model that answers texts. Thread-safe."""

    bundle: Bundle
    limits: Limits

    def encode(self, text: str) -> Union[Encoded, RequestError]:
        """One text as the model takes it, or the error that answers it. Raises nothing."""
        ...

    def run(self, texts: Sequence[Encoded]) -> List[Outcome]:
        """Answer texts in one run; an error stands in place of a failed one."""
        ...

    def predict(self, texts: Sequence[str]) -> List[Outcome]:
        """Answer texts in order."""
        ...

    def predict_encoded(
        self, texts: Sequence[Encoded], run_all: Callable[..., Iterable[List[Outcome]]] = map
    ) -> List[Outcome]:
        """The same for texts that are encoded already; ``run_all`` maps :meth:`run` over groups."""
        ...


_SHOWN_TEXT = 24


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
    return repr(text[: min(_SHOWN_TEXT, (len(text) + 1) // 2)] + "...")


VERSION_VARIABLE = "FDEPLOY_VERSION"
"""The environment variable with the version that answers name; else it is the manifest's hash."""

_SAMPLE = 32  # tokens of each text of the run whose speed is measured
_SHOWN = 300  # characters of why a way was passed over


@dataclass(frozen=True)
class Loaded:
    """A warm predictor whose goldens agree; ``deviation`` is the largest |Δprobability| seen.

    ``way`` is what computes; ``passed_over`` are faster ways, each with why it was not taken.
    ``runs`` is how many at a time use it best.
    """

    predictor: Predicting
    tokens_per_second: float
    goldens: int
    deviation: float
    way: str
    skipped: Tuple[str, ...] = ()
    runs: int = 1

    @property
    def facts(self) -> Dict[str, Any]:
        """What a log says of it."""
        return {
            "goldens": self.goldens,
            "deviation": self.deviation,
            "way": self.way,
            "passed_over": self.skipped,
        }


def load(
    folder: Path,
    hardware: Hardware,
    threads: int,
    *,
    alone: bool = False,
    most_runs: int = 1,
    version: Optional[str] = None,
    clock: Callable[[], float] = time.perf_counter,
    find: Callable[[], Optional[Gpu]] = find_gpu,
) -> Loaded:
    """Open the model, check every golden (which warms it up) and measure its speed.

    ``alone``: the machine has nothing else to do. ``most_runs``: so many runs at a time may be made
    ready for. ``find`` looks for a GPU. Raises ModelError when anything in the folder is not as the
    manifest says.
    """
    # Texts are tokenized one by one; without this, each goes to another thread and back.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    bundle = open_bundle(folder, version)
    goldens = read_goldens(bundle)
    if bundle.runtime:
        return _load_learner(bundle, goldens, threads, clock)
    # A container that serves the original learner has neither ONNX Runtime nor tokenizers.
    from .onnx_graph import check_weights  # noqa: PLC0415
    from .predictor import Predictor, SharedCores  # noqa: PLC0415
    from .word_tokenizer import open_encoder  # noqa: PLC0415

    check_weights(bundle)
    encoder = open_encoder(bundle)
    sample = encoder.encode(goldens[0].text)
    skipped: List[str] = []

    def proved(way: Backend) -> Loaded:
        sessions = way.open()
        predictors = [Predictor(bundle, encoder, session, way.limits) for session in sessions]
        deviation = max(check_goldens(predictor, goldens) for predictor in predictors)
        predictor = Predictor(bundle, encoder, SharedCores(*sessions), way.limits)
        return Loaded(
            predictor,
            _tokens_per_second(predictor, sample, clock),
            len(goldens),
            deviation,
            way.name,
            tuple(skipped),
            runs=len(sessions),
        )

    *faster, last = backends(bundle, hardware, threads, alone=alone, most_runs=most_runs, find=find)
    for way in faster:
        try:
            return proved(way)
        except Exception as error:  # noqa: BLE001, PERF203  # torch's errors have no common base
            skipped.append(f"{way.name}: {str(error)[:_SHOWN]}")
    return proved(last)


def _load_learner(
    bundle: Bundle, goldens: Sequence[Golden], threads: int, clock: Callable[[], float]
) -> Loaded:
    """The learner itself, whose libraries are imported here and nowhere else."""
    from .learner_predictor import LearnerPredictor, open_learner  # noqa: PLC0415

    ask = open_learner(bundle.folder, bundle.runtime)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    predictor = LearnerPredictor(bundle, ask)
    deviation = check_goldens(predictor, goldens)
    sample = predictor.encode(goldens[0].text)
    started = clock()
    predictor.run([sample] if isinstance(sample, Encoded) else [])
    tokens = len(sample) if isinstance(sample, Encoded) else 1
    speed = tokens / max(clock() - started, 1e-6)
    return Loaded(predictor, speed, len(goldens), deviation, "the learner itself")


def _tokens_per_second(predictor: Predicting, sample: Encoded, clock: Callable[[], float]) -> float:
    """The speed of a run that is half full, from the better of two; the queue is bounded by it."""
    texts = predictor.limits.tokens // (2 * _SAMPLE)
    ids = (list(sample.ids) * _SAMPLE)[: min(_SAMPLE, predictor.bundle.max_length)]
    batch = [Encoded(ids, truncated=False)] * texts
    seconds = []
    for _ in range(2):
        started = clock()
        predictor.run(batch)
        seconds.append(clock() - started)
    return texts * len(ids) / max(min(seconds), 1e-6)


def start(folder: Path, log: Log, *, workers: int = 1) -> Tuple[Loaded, ThreadPlan]:
    """Load and check the model, for this process as one of ``workers`` of the machine; and tell it.

    Raises ModelError, or what a library raises; the reason is then in the log.
    """
    found = hardware.detect()
    planned = plan_threads(replace(found, cores=max(1, found.cores // workers)))
    try:
        loaded = load(folder, found, planned.threads, version=os.environ.get(VERSION_VARIABLE))
    except Exception as error:
        log("refused", reason=str(error)[:1000])
        raise
    freeze_gc()
    log("ready", threads=planned.threads, workers=planned.workers, **loaded.facts)
    return loaded, planned

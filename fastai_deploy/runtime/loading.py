"""Load the model of an unpacked artifact and verify it before serving."""

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


def check_goldens(predictor: Predicting, goldens: Sequence[Golden]) -> float:
    """Predict every golden and return the largest |Δprobability|.

    Raises ModelError if one exceeds the manifest's tolerance or gets no answer. The message shows
    the beginning of the first such text, at most half of it.
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
    """|Δprobability| of one golden; infinite if there is no prediction with the same labels."""
    if not isinstance(outcome, Prediction):
        return float("inf")
    found = dict(outcome.probabilities)
    if found.keys() != golden.probabilities.keys():
        return float("inf")
    return max(abs(found[label] - golden.probabilities[label]) for label in found)


def _shortened(text: str) -> str:
    return repr(text[: min(_SHOWN_TEXT, (len(text) + 1) // 2)] + "...")


VERSION_VARIABLE = "FDEPLOY_VERSION"
"""The environment variable with the version in the answers; the default is the manifest's hash."""

_SAMPLE = 32  # tokens per text in the run that measures the speed
_SHOWN = 300  # characters of the error of a skipped backend


@dataclass(frozen=True)
class Loaded:
    """A warm predictor that reproduced its goldens; ``deviation`` is the largest |Δprobability|.

    ``way`` is the name of the backend; ``skipped`` are faster backends, each with the reason it was
    skipped. ``runs`` is the number of concurrent runs with the best throughput.
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
        """The fields for the log."""
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

    ``alone``: no other process needs the cores. ``most_runs``: the maximum number of concurrent
    runs to prepare for. ``find`` looks for a GPU. Raises ModelError if the folder differs from the
    manifest in any way, or the model from its goldens.
    """
    # Texts are tokenized one by one; by default each would go to another thread and back.
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

    def verified(backend: Backend) -> Loaded:
        sessions = backend.open()
        predictors = [Predictor(bundle, encoder, session, backend.limits) for session in sessions]
        deviation = max(check_goldens(predictor, goldens) for predictor in predictors)
        predictor = Predictor(bundle, encoder, SharedCores(*sessions), backend.limits)
        return Loaded(
            predictor,
            _tokens_per_second(predictor, sample, clock),
            len(goldens),
            deviation,
            backend.name,
            tuple(skipped),
            runs=len(sessions),
        )

    *faster, last = backends(bundle, hardware, threads, alone=alone, most_runs=most_runs, find=find)
    for backend in faster:
        try:
            return verified(backend)
        except Exception as error:  # noqa: BLE001, PERF203  # torch's errors have no common base
            skipped.append(f"{backend.name}: {str(error)[:_SHOWN]}")
    return verified(last)


def _load_learner(
    bundle: Bundle, goldens: Sequence[Golden], threads: int, clock: Callable[[], float]
) -> Loaded:
    """Load the original learner; nothing else imports its libraries."""
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
    """The speed of a half-full run, the better of two; the queue's limits are based on it."""
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
    """Load and verify the model in one of ``workers`` processes that share the machine; log it.

    Raises ModelError, or an error of a library, after logging the reason.
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

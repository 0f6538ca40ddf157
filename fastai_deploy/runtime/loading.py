"""Load the model of an unpacked artifact and verify it before serving."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from . import hardware
from .backends import Backend, Gpu, find_gpu, gpu_backends, processor_backends
from .bundle import Bundle, Golden, ModelError, open_bundle, read_bundle, read_goldens
from .choice import rank
from .contract import Encoded
from .golden_check import PATIENCE, REMINDER, Predicting, check_goldens
from .hardware import Hardware, ThreadPlan, freeze_gc, plan_threads
from .log import Log

VERSION_VARIABLE = "FDEPLOY_VERSION"
"""The environment variable with the version in the answers; the default is the manifest's hash."""

_FEW = 2  # goldens that a brief start asks; a deploy asks all of them
_SAMPLE = 32  # tokens per text in the run that measures the speed
_SHOWN = 300  # characters of the error of a skipped backend


@dataclass(frozen=True)
class Loaded:
    """A warm predictor that reproduced its goldens; ``deviation`` is the largest |Δprobability|.

    ``way`` is the name of the backend; ``skipped`` are faster backends, each with the reason it was
    skipped; ``measured`` are the speeds by which it was chosen, in texts a second. ``runs`` is the
    number of concurrent runs with the best throughput.
    """

    predictor: Predicting
    tokens_per_second: float
    goldens: int
    deviation: float
    way: str
    skipped: Tuple[str, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    runs: int = 1

    @property
    def facts(self) -> Dict[str, Any]:
        """The fields for the log."""
        return {
            "goldens": self.goldens,
            "deviation": self.deviation,
            "way": self.way,
            "passed_over": self.skipped,
            "measured": {name: round(speed) for name, speed in self.measured.items()},
        }


def load(
    folder: Path,
    hardware: Hardware,
    threads: int,
    *,
    alone: bool = False,
    most_runs: int = 1,
    version: Optional[str] = None,
    patience: Optional[float] = None,
    clock: Callable[[], float] = time.perf_counter,
    find: Callable[[], Optional[Gpu]] = find_gpu,
    only: Optional[str] = None,
    brief: bool = False,
) -> Loaded:
    """Open the model, check every golden (which warms it up) and measure its speed.

    ``alone``: no other process needs the cores. ``most_runs``: the maximum number of concurrent
    runs to prepare for. ``patience`` is for the goldens, in seconds; by default it depends on what
    they have to prove. ``find`` looks for a GPU. ``only`` names the backend to use; then none is
    measured. ``brief`` asks few goldens, and neither hashes the files nor measures the speed: for a
    host that starts while somebody waits, vouches for the files and answers one request at a time.
    Raises ModelError if this machine lacks that backend, if the folder differs from the manifest in
    any way, or the model from its goldens.
    """
    # Texts are tokenized one by one; by default each would go to another thread and back.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    bundle = (read_bundle if brief else open_bundle)(folder, version)
    goldens = read_goldens(bundle)
    if bundle.runtime:
        return _load_learner(bundle, goldens, threads, patience, clock)
    # A container that serves the original learner has neither ONNX Runtime nor tokenizers.
    from .onnx_graph import check_weights  # noqa: PLC0415
    from .predictor import Predictor, SharedCores  # noqa: PLC0415
    from .word_tokenizer import open_encoder  # noqa: PLC0415

    check_weights(bundle)
    encoder = open_encoder(bundle)
    sample = encoder.encode(goldens[0].text)
    asked = goldens[:_FEW] if brief else goldens
    skipped: List[str] = []

    def predictor(backend: Backend, session: Any) -> Predictor:
        return Predictor(backend.bundle, encoder, session, backend.limits)

    def verified(backend: Backend, session: Any, measured: Mapping[str, float]) -> Loaded:
        sessions = [session]
        if backend.open_concurrent is not None:
            sessions.append(backend.open_concurrent())
        check = check_goldens(
            [predictor(backend, each) for each in sessions],
            asked,
            patience=_patience(backend.bundle, patience),
            clock=clock,
        )
        serving = predictor(backend, SharedCores(*sessions))
        return Loaded(
            serving,
            0.0 if brief else _tokens_per_second(serving, sample, clock),
            check.goldens,
            check.deviation,
            backend.name,
            tuple(skipped),
            measured,
            runs=backend.runs,
        )

    for backend in _named(only, gpu_backends(bundle, find)):
        try:
            return verified(backend, backend.open(), {})
        except Exception as error:  # noqa: BLE001, PERF203  # torch's errors have no common base
            skipped.append(f"{backend.name}: {str(error)[:_SHOWN]}")

    candidates = _at_least_one(
        only, processor_backends(bundle, hardware, threads, alone=alone, most_runs=most_runs)
    )
    last = candidates[-1]
    ranked = rank(
        candidates, predictor, sample, clock=clock, skipped=skipped, memory=hardware.memory
    )
    for each in ranked:
        try:
            return verified(each.backend, each.open(), each.speeds)
        except Exception as error:  # noqa: PERF203  # OpenVINO's errors have no common base
            if each.backend is last:
                raise
            skipped.append(f"{each.backend.name}: {str(error)[:_SHOWN]}")
    return verified(last, last.open(), {})


def _patience(bundle: Bundle, given: Optional[float]) -> float:
    """Seconds for the goldens; the first ones are asked in any case."""
    if given is not None:
        return given
    return REMINDER if bundle.form.proven else PATIENCE


def _named(name: Optional[str], backends: Iterable[Backend]) -> List[Backend]:
    """The backends of this name; all of them if there is no name."""
    return [each for each in backends if name in (None, each.name)]


def _at_least_one(name: Optional[str], backends: Iterable[Backend]) -> List[Backend]:
    """The same. Raises ModelError if there is none."""
    found = _named(name, backends)
    if not found:
        raise ModelError(f"this machine cannot run the model with {name}")
    return found


def _load_learner(
    bundle: Bundle,
    goldens: Sequence[Golden],
    threads: int,
    patience: Optional[float],
    clock: Callable[[], float],
) -> Loaded:
    """Load the original learner; nothing else imports its libraries."""
    from .learner_predictor import LearnerPredictor, open_learner  # noqa: PLC0415

    ask = open_learner(bundle.folder, bundle.runtime)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    predictor = LearnerPredictor(bundle, ask)
    check = check_goldens([predictor], goldens, patience=_patience(bundle, patience), clock=clock)
    sample = predictor.encode(goldens[0].text)
    started = clock()
    predictor.run([sample] if isinstance(sample, Encoded) else [])
    tokens = len(sample) if isinstance(sample, Encoded) else 1
    speed = tokens / max(clock() - started, 1e-6)
    return Loaded(predictor, speed, check.goldens, check.deviation, "the learner itself")


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

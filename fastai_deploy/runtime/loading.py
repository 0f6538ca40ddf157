"""Load the model of an unpacked artifact and verify it before serving."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from . import hardware
from .backends import (
    Backend,
    Gpu,
    find_gpu,
    gpu_backends,
    import_libraries,
    leave_out_converter,
    processor_backends,
)
from .bundle import Bundle, Golden, ModelError, check_files, read_bundle, read_goldens
from .choice import rank
from .contract import Encoded
from .golden_check import PATIENCE, REMINDER, Answered, Predicting, ask_goldens, check_answers
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
    bundle = read_bundle(folder, version)
    # The libraries take as long to import as the files to hash, which needs no interpreter.
    with ThreadPoolExecutor(1) as aside:
        checked = None if brief else aside.submit(check_files, bundle)
        if not bundle.runtime:
            import_libraries(bundle, hardware)
        if checked is not None:
            checked.result()
    goldens = read_goldens(bundle)
    if bundle.runtime:
        return _load_learner(bundle, goldens, threads, patience, clock)
    # A container that serves the original learner has neither ONNX Runtime nor tokenizers.
    from .onnx_graph import check_weights  # noqa: PLC0415
    from .word_tokenizer import open_encoder  # noqa: PLC0415

    check_weights(bundle)
    start = _Start(
        open_encoder(bundle), goldens[:_FEW] if brief else goldens, patience, clock, timed=not brief
    )
    for backend in _named(only, gpu_backends(bundle, find)):
        try:
            return start.verified(backend, backend.open(), {})
        except Exception as error:  # noqa: BLE001, PERF203  # torch's errors have no common base
            start.skip(backend, error)

    candidates = _at_least_one(
        only, processor_backends(bundle, hardware, threads, alone=alone, most_runs=most_runs)
    )
    last = candidates[-1]
    ranked = rank(
        candidates,
        start.predictor,
        start.sample,
        clock=clock,
        skipped=start.skipped,
        memory=hardware.memory,
    )
    for each in ranked:
        try:
            return start.verified(each.backend, each.open(), each.speeds)
        except Exception as error:  # noqa: PERF203  # OpenVINO's errors have no common base
            if each.backend is last:
                raise
            start.skip(each.backend, error)
    return start.verified(last, last.open(), {})


@dataclass(frozen=True)
class _Start:
    """What every backend must answer before it serves.

    ``patience`` is for the goldens, in seconds, None for the default. ``timed``: measure the speed.
    ``skipped`` collects the backends that failed.
    """

    encoder: Any
    goldens: Sequence[Golden]
    patience: Optional[float]
    clock: Callable[[], float]
    timed: bool
    skipped: List[str] = field(default_factory=list)

    @property
    def sample(self) -> Encoded:
        """The text by which speeds are measured."""
        sample: Encoded = self.encoder.encode(self.goldens[0].text)
        return sample

    def skip(self, backend: Backend, error: Exception) -> None:
        """Remember why this backend does not serve."""
        self.skipped.append(f"{backend.name}: {str(error)[:_SHOWN]}")

    def predictor(self, backend: Backend, session: Any) -> Predicting:
        """What answers with this session."""
        from .predictor import Predictor  # noqa: PLC0415

        return Predictor(backend.bundle, self.encoder, session, backend.limits)

    def verified(self, backend: Backend, session: Any, measured: Mapping[str, float]) -> Loaded:
        """The backend with its sessions. Raises ModelError if it does not answer like the goldens.

        The session for concurrent runs is opened while the first one answers its half of them.
        """
        from .predictor import SharedCores  # noqa: PLC0415

        sessions = [session]
        if backend.open_concurrent is None:
            answers = self._ask(backend, session, self.goldens)
        else:
            with ThreadPoolExecutor(1) as aside:
                opening = aside.submit(backend.open_concurrent)
                answers = self._ask(backend, session, self.goldens[::2], shares=2)
                sessions.append(opening.result())
            answers += self._ask(backend, sessions[1], self.goldens[1::2], shares=2)
        check = check_answers(backend.bundle, answers)
        serving = self.predictor(backend, SharedCores(*sessions))
        return Loaded(
            serving,
            _tokens_per_second(serving, self.sample, self.clock) if self.timed else 0.0,
            check.goldens,
            check.deviation,
            backend.name,
            tuple(self.skipped),
            measured,
            runs=backend.runs,
        )

    def _ask(
        self, backend: Backend, session: Any, goldens: Sequence[Golden], shares: int = 1
    ) -> List[Answered]:
        patience = _patience(backend.bundle, self.patience) / shares
        predictor = self.predictor(backend, session)
        return ask_goldens(predictor, goldens, patience=patience, clock=self.clock)


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
    answers = ask_goldens(predictor, goldens, patience=_patience(bundle, patience), clock=clock)
    check = check_answers(bundle, answers)
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
    leave_out_converter()
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

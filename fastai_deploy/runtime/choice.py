"""Measure which backend is fastest on this machine.

What a form gains depends on the processor: its instructions, its caches, how many cores a container
may use. So the backends are timed with a single text and with a batch, for half a second at most.
Two are timed at a time, in turns, because a container is busy with other things when it starts; the
slower of them is freed before the next is loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from .backends import Backend
from .contract import Encoded
from .golden_check import Predicting

BUDGET = 0.5
"""Seconds for measuring all backends, at most, after each has run once."""
_TOKENS = 24
_BATCHES = (1, 8)  # texts
TURNS = 3
_ADVANTAGE = 1.1
"""How much faster than ONNX Runtime OpenVINO must be."""
_CLEAR = 1.5
"""Of two backends, one that is this many times faster needs no second turn."""
_LOADED = 2.0
"""Memory of a loaded model, as a multiple of its file."""
_SHOWN = 300  # characters of the error of a skipped backend


@dataclass(frozen=True)
class Ranked:
    """A backend that works; ``speeds`` are those that were measured, in texts a second, by name.

    ``session`` is the loaded one of the fastest backend, None for others.
    """

    backend: Backend
    session: Optional[Any]
    speeds: Mapping[str, float]

    def open(self) -> Any:
        """The session for a run without a concurrent one."""
        return self.backend.open() if self.session is None else self.session


def rank(
    backends: Sequence[Backend],
    predictor: Callable[[Backend, Any], Predicting],
    sample: Encoded,
    *,
    clock: Callable[[], float],
    skipped: List[str],
    memory: Optional[int] = None,
) -> List[Ranked]:
    """The backends that work, the fastest first; the reason for each other is put in ``skipped``.

    ``predictor`` makes what is timed from a backend and its session. ``memory`` is what there is,
    in bytes: a backend that may not fit beside the fastest one is not measured, and comes last.
    """
    speeds: Dict[str, float] = {}
    ordered: List[Backend] = []
    unmeasured: List[Backend] = []
    kept: Any = None
    for backend in backends:
        if ordered and not _both_fit(ordered[0], backend, memory):
            unmeasured.append(backend)
            continue
        try:
            session = backend.open()
            if not ordered:
                ordered, kept = [backend], session
                continue
            seconds = seconds_per_text(
                {
                    backend.name: predictor(backend, session).run,
                    ordered[0].name: predictor(ordered[0], kept).run,
                },
                sample,
                backend.bundle.max_length,
                clock,
                budget=BUDGET / (len(backends) - 1),
                clear=_CLEAR,
            )
        except Exception as error:  # noqa: BLE001  # the libraries' errors have no common base
            skipped.append(f"{backend.name}: {str(error)[:_SHOWN]}")
            continue
        speeds.update({name: 1 / each for name, each in seconds.items()})
        if _score(backend, seconds) < _score(ordered[0], seconds):
            ordered.insert(0, backend)
            kept = session
        else:
            ordered.insert(1, backend)
        del session  # so that the one that lost is freed
    ranked = [*ordered, *unmeasured]
    return [Ranked(each, kept if place == 0 else None, speeds) for place, each in enumerate(ranked)]


def _score(backend: Backend, seconds: Mapping[str, float]) -> float:
    return seconds[backend.name] * (_ADVANTAGE if backend.openvino else 1)


def _both_fit(one: Backend, other: Backend, memory: Optional[int]) -> bool:
    size = one.bundle.model_bytes + other.bundle.model_bytes
    return memory is None or _LOADED * size <= memory


def seconds_per_text(
    runs: Mapping[str, Callable[[Sequence[Encoded]], object]],
    sample: Encoded,
    longest: int,
    clock: Callable[[], float],
    *,
    budget: float,
    clear: float = math.inf,
) -> Dict[str, float]:
    """For each of ``runs``, the mean of the times for a text alone and in a batch, each the best.

    They run in turns, each for long enough that the threads of the one before have gone to sleep,
    until ``budget`` seconds are spent or one takes ``clear`` times as long as another. Before that,
    each runs once: OpenVINO makes code for a shape when it first meets it. ``sample`` is repeated
    to a text of 24 tokens, or of ``longest`` if that is less.
    """
    ids = (list(sample.ids) * _TOKENS)[: min(_TOKENS, longest)]
    batches = [[Encoded(ids, truncated=False)] * size for size in _BATCHES]
    best = {name: [math.inf] * len(batches) for name in runs}
    turn = budget / (TURNS * len(runs))
    for run in runs.values():
        for batch in batches:
            run(batch)
    for _ in range(TURNS):
        for name, run in runs.items():
            begun = clock()
            first = True
            while first or clock() < begun + turn:
                for place, batch in enumerate(batches):
                    started = clock()
                    run(batch)
                    best[name][place] = min(best[name][place], (clock() - started) / len(batch))
                first = False
        means = {name: max(sum(each) / len(each), 1e-9) for name, each in best.items()}
        if max(means.values()) >= clear * min(means.values()):
            break
    return means

"""Measure which backend is fastest on this machine.

What a form gains depends on the processor: its instructions, its caches, how many cores a container
may use. So each is timed with a single text and with a batch, for about a second in all. Loading
takes longer than that; only the fastest so far is kept in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from .backends import Backend
from .contract import Encoded
from .golden_check import Predicting

BUDGET = 1.0
"""Seconds for measuring all backends."""
_TOKENS = 24
_BATCHES = (1, 8)  # texts
_ADVANTAGE = 1.1
"""How much faster than ONNX Runtime OpenVINO must be."""
_LOADED = 2.0
"""Memory of a loaded model, as a multiple of its file."""
_SHOWN = 300  # characters of the error of a skipped backend


@dataclass(frozen=True)
class Ranked:
    """A backend that works; ``speeds`` are those of all, in texts a second, by their names.

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
    scores: Dict[str, float] = {}
    speeds: Dict[str, float] = {}
    working: List[Backend] = []
    unmeasured: List[Backend] = []
    best: Optional[Backend] = None
    kept: Any = None
    for backend in backends:
        if best is not None and not _both_fit(best, backend, memory):
            unmeasured.append(backend)
            continue
        session = None  # the one that lost is freed before the next is loaded
        try:
            session = backend.open()
            seconds = seconds_per_text(
                lambda texts: predictor(backend, session).run(texts),  # noqa: B023  # called here
                sample,
                backend.bundle.max_length,
                clock,
                BUDGET / len(backends),
            )
        except Exception as error:  # noqa: BLE001  # the libraries' errors have no common base
            skipped.append(f"{backend.name}: {str(error)[:_SHOWN]}")
            continue
        working.append(backend)
        speeds[backend.name] = 1 / seconds
        scores[backend.name] = seconds * (_ADVANTAGE if backend.openvino else 1)
        if best is None or scores[backend.name] < scores[best.name]:
            best, kept = backend, session
    ordered = sorted(working, key=lambda each: scores[each.name]) + unmeasured
    return [Ranked(each, kept if each is best else None, speeds) for each in ordered]


def _both_fit(one: Backend, other: Backend, memory: Optional[int]) -> bool:
    size = one.bundle.model_bytes + other.bundle.model_bytes
    return memory is None or _LOADED * size <= memory


def seconds_per_text(
    run: Callable[[Sequence[Encoded]], object],
    sample: Encoded,
    longest: int,
    clock: Callable[[], float],
    budget: float,
) -> float:
    """The mean of the times for a text alone and in a batch, each the best of several.

    ``sample`` is repeated to a text of 24 tokens, or of ``longest`` if that is less.
    """
    ids = (list(sample.ids) * _TOKENS)[: min(_TOKENS, longest)]
    batches = [[Encoded(ids, truncated=False)] * size for size in _BATCHES]
    best = [float("inf")] * len(batches)
    end = clock() + budget
    first = True
    while first or clock() < end:
        for place, batch in enumerate(batches):
            started = clock()
            run(batch)
            best[place] = min(best[place], clock() - started)
        first = False
    each = [seconds / len(batch) for seconds, batch in zip(best, batches)]  # noqa: B905
    return max(sum(each) / len(each), 1e-9)

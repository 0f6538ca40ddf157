"""From the unpacked model folder to a predictor that has proved itself."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .bundle import Bundle, Golden, open_bundle, read_goldens
from .encoded import Encoded
from .goldens import check_goldens
from .hardware import Hardware
from .predicting import Predicting
from .ways import Gpu, Way, find_gpu, ways

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
    passed_over: Tuple[str, ...] = ()
    runs: int = 1

    @property
    def facts(self) -> Dict[str, Any]:
        """What a log says of it."""
        return {
            "goldens": self.goldens,
            "deviation": self.deviation,
            "way": self.way,
            "passed_over": self.passed_over,
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
    from .encoders import open_encoder  # noqa: PLC0415  # a learner as it is comes without both
    from .predictor import Predictor  # noqa: PLC0415
    from .sharing import SharedCores  # noqa: PLC0415

    encoder = open_encoder(bundle)
    sample = encoder.encode(goldens[0].text)
    passed_over: List[str] = []

    def proved(way: Way) -> Loaded:
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
            tuple(passed_over),
            runs=len(sessions),
        )

    *faster, last = ways(bundle, hardware, threads, alone=alone, most_runs=most_runs, find=find)
    for way in faster:
        try:
            return proved(way)
        except Exception as error:  # noqa: BLE001, PERF203  # torch's errors have no common base
            passed_over.append(f"{way.name}: {str(error)[:_SHOWN]}")
    return proved(last)


def _load_learner(
    bundle: Bundle, goldens: Sequence[Golden], threads: int, clock: Callable[[], float]
) -> Loaded:
    """The learner itself, whose libraries are imported here and nowhere else."""
    from .learner_predictor import LearnerPredictor  # noqa: PLC0415
    from .own_learner import open_learner  # noqa: PLC0415

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

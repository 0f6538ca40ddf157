"""From the unpacked model folder to a predictor that has proved itself."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Sequence

from .bundle import Bundle, Golden, open_bundle, read_goldens
from .encoded import Encoded
from .goldens import check_goldens
from .grouping import Limits
from .hardware import Hardware
from .predicting import Predicting

VERSION_VARIABLE = "FDEPLOY_VERSION"
"""The environment variable with the version that answers name; else it is the manifest's hash."""

_TOKENS_PER_THREAD = 256
_SAMPLE = (8, 32)  # texts, tokens each


@dataclass(frozen=True)
class Loaded:
    """A warm predictor whose goldens agree; ``deviation`` is the largest |Δprobability| seen."""

    predictor: Predicting
    tokens_per_second: float
    goldens: int
    deviation: float


def load(
    folder: Path,
    hardware: Hardware,
    threads: int,
    *,
    alone: bool = False,
    version: Optional[str] = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Loaded:
    """Open the model, check every golden (which warms it up) and measure its speed.

    ``alone``: the machine has nothing else to do. Raises ModelError when anything in the folder is
    not as the manifest says.
    """
    # Texts are tokenized one by one; without this, each goes to another thread and back.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    bundle = open_bundle(folder, version)
    goldens = read_goldens(bundle)
    if bundle.runtime:
        return _load_learner(bundle, goldens, threads, clock)
    # A learner that is served as it is comes without the libraries behind these.
    from .encoders import open_encoder  # noqa: PLC0415
    from .predictor import Predictor  # noqa: PLC0415
    from .session import open_session  # noqa: PLC0415

    encoder = open_encoder(bundle)
    session = open_session(bundle, hardware, threads, alone=alone)
    predictor = Predictor(bundle, encoder, session, limits_for(bundle, threads))
    deviation = check_goldens(predictor, goldens)
    speed = _tokens_per_second(predictor, encoder.encode(goldens[0].text), clock)
    return Loaded(predictor, speed, len(goldens), deviation)


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
    return Loaded(predictor, tokens / max(clock() - started, 1e-6), len(goldens), deviation)


def limits_for(bundle: Bundle, threads: int) -> Limits:
    """Runs of 256 tokens a thread, and 512 at least.

    Beyond, throughput falls and others wait longer: int8 RoBERTa-base with 2 threads answers 225
    texts a second as 16 x 12 tokens, 215 as 32 x 12 and 170 as 64 x 12.
    """
    return Limits(max(2, threads) * _TOKENS_PER_THREAD, equal_length=bundle.equal_length)


def _tokens_per_second(predictor: Predicting, sample: Encoded, clock: Callable[[], float]) -> float:
    """The speed of a full run, from the better of two; the queue is bounded by it."""
    texts, tokens = _SAMPLE
    ids = (list(sample.ids) * tokens)[: min(tokens, predictor.bundle.max_length)]
    batch = [Encoded(ids, truncated=False)] * texts
    seconds = []
    for _ in range(2):
        started = clock()
        predictor.run(batch)
        seconds.append(clock() - started)
    return texts * len(ids) / max(min(seconds), 1e-6)

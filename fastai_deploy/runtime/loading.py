"""From the unpacked model folder to a predictor that has proved itself."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from .bundle import Bundle, open_bundle, read_goldens
from .encoders import open_encoder
from .encoding import Encoded
from .goldens import check_goldens
from .grouping import Limits
from .hardware import Hardware
from .predictor import Predictor
from .session import open_session

_TOKENS_PER_THREAD = 256
_SAMPLE = (8, 32)  # texts, tokens each


@dataclass(frozen=True)
class Loaded:
    """A warm predictor whose goldens agree; ``deviation`` is the largest |Δprobability| seen."""

    predictor: Predictor
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
    encoder = open_encoder(bundle)
    session = open_session(bundle, hardware, threads, alone=alone)
    predictor = Predictor(bundle, encoder, session, limits_for(bundle, threads))
    deviation = check_goldens(predictor, goldens)
    speed = _tokens_per_second(predictor, encoder.encode(goldens[0].text), clock)
    return Loaded(predictor, speed, len(goldens), deviation)


def limits_for(bundle: Bundle, threads: int) -> Limits:
    """Runs of 256 tokens a thread, and 512 at least.

    Beyond, throughput falls and others wait longer: int8 RoBERTa-base with 2 threads answers 225
    texts a second as 16 x 12 tokens, 215 as 32 x 12 and 170 as 64 x 12.
    """
    return Limits(max(2, threads) * _TOKENS_PER_THREAD, equal_length=bundle.equal_length)


def _tokens_per_second(predictor: Predictor, sample: Encoded, clock: Callable[[], float]) -> float:
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

"""Texts to predictions. Every server, handler and check uses this code."""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Union

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .contract import Outcome, Prediction, RequestError
from .request_queue import Limits, group
from .tokenizer import Encoded
from .word_tokenizer import TextEncoder

# A run on all cores must take less than this share of the time of a run on some of them. The other
# cores are not free: event loop and clients need them, and more requests may arrive during the run.
_WORTH_ALL_CORES = 0.8
_TRIES = 3  # runs of each session, of which the fastest counts
_REMEMBERED = 500  # runs


class SharedCores:
    """Runs the first session, which has all cores, or the last, which has a part of them.

    Beside another run, it is the last. Otherwise it is the first, unless that gains little: how
    much depends on the model and on the size of the run, so both are timed while they run alone.
    int8 MiniLM takes 3.5 ms for 12 tokens on two cores and 3.0 ms on one, but int8 RoBERTa-base 14
    and 21 ms. ``clock`` counts seconds. Thread-safe.
    """

    def __init__(self, *sessions: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._whole, self._part = sessions[0], sessions[-1]
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._runs = 0
        self._timed: Dict[int, _Timed] = {}

    def run(self, outputs: Optional[Sequence[str]], feed: Mapping[str, Any]) -> Any:
        """Same as ONNX Runtime's ``run``."""
        if self._whole is self._part:
            return self._whole.run(outputs, feed)
        tokens = max((value.size for value in feed.values()), default=0)
        with self._lock:
            alone = not self._running
            timed = self._times(tokens)
            whole = alone and timed.whole_is_next
            self._running += 1
            self._runs += 1
            number = self._runs
            began = self._clock()
        succeeded = False
        try:
            answer = (self._whole if whole else self._part).run(outputs, feed)
            succeeded = True
            return answer
        finally:
            with self._lock:
                self._running -= 1
                if alone and number == self._runs and succeeded:  # and no other run has begun
                    timed.add((self._clock() - began) / max(1, tokens), whole=whole)

    def _times(self, tokens: int) -> _Timed:
        """The times of runs of about this size; from time to time, they are taken anew."""
        size = tokens.bit_length()
        if size not in self._timed or self._timed[size].runs >= _REMEMBERED:
            self._timed[size] = _Timed()
        return self._timed[size]


class _Timed:
    """The least seconds per token of both sessions, for runs of similar sizes."""

    def __init__(self) -> None:
        self.runs = 0
        self._tried = {True: 0, False: 0}
        self._best = {True: math.inf, False: math.inf}  # True: the session with all cores

    @property
    def whole_is_next(self) -> bool:
        """Whether the next run is one for the session with all cores."""
        if min(self._tried.values()) < _TRIES:
            return self._tried[True] <= self._tried[False]
        return self._best[True] < _WORTH_ALL_CORES * self._best[False]

    def add(self, seconds: float, *, whole: bool) -> None:
        """Count a run; ``seconds`` are for each of its tokens."""
        self.runs += 1
        self._tried[whole] += 1
        self._best[whole] = min(self._best[whole], seconds)


_IDS = "input_ids"
_MASK = "attention_mask"


def feed(
    inputs: Iterable[str], texts: Sequence[Sequence[int]], pad: int
) -> Dict[str, npt.NDArray[np.int64]]:
    """The inputs of a graph for the ids of some texts, padded on the right with ``pad``.

    Each is int64 ``(batch, sequence)``.
    """
    lengths = [len(text) for text in texts]
    longest = max(lengths)
    padding = [pad] * longest
    rows = [[*text, *padding[len(text) :]] for text in texts]
    ids = np.array(rows, dtype=np.int64)

    def of(name: str) -> npt.NDArray[np.int64]:
        if name == _IDS:
            return ids
        if name == _MASK:
            return (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
        return np.zeros_like(ids)

    return {name: of(name) for name in inputs}


class Predictor:
    """A model that answers texts. Thread-safe.

    ``session`` is an ONNX Runtime session, or anything with its ``run``; ``limits`` decides which
    texts may share a run.
    """

    def __init__(self, bundle: Bundle, encoder: TextEncoder, session: Any, limits: Limits) -> None:
        self.bundle = bundle
        self.limits = limits
        self._encoder = encoder
        self._session = session

    def encode(self, text: str) -> Union[Encoded, RequestError]:
        """The token ids of one text, or the error that answers it. Raises nothing."""
        try:
            encoded = self._encoder.encode(text)
        except Exception as error:  # noqa: BLE001  # the tokenizer's errors have no common base
            return _failed("the tokenizer failed on this text", error)
        if encoded:
            return encoded
        message = "the text contains nothing that the model reads"
        return RequestError(422, "invalid_request", message, "send words")

    def run(self, texts: Sequence[Encoded]) -> List[Outcome]:
        """Answer texts in one run of the model, padded on the right to the longest of them.

        If the run fails, each text is run alone, so that only texts that the model cannot process
        fail; the cause of their error is the model's own.
        """
        try:
            return self._run(texts)
        except Exception as error:  # noqa: BLE001  # onnxruntime's errors have no common base
            if len(texts) == 1:
                return [_failed("the model failed on this text", error)]
            return [outcome for text in texts for outcome in self.run([text])]

    def predict(self, texts: Sequence[str]) -> List[Outcome]:
        """Answer texts in order, grouped by length; a failed one gets an error in its place."""
        encoded = [self.encode(text) for text in texts]
        ready = iter(self.predict_encoded([each for each in encoded if isinstance(each, Encoded)]))
        return [next(ready) if isinstance(each, Encoded) else each for each in encoded]

    def predict_encoded(
        self, texts: Sequence[Encoded], run_all: Callable[..., Iterable[List[Outcome]]] = map
    ) -> List[Outcome]:
        """Answer encoded texts; ``run_all`` maps :meth:`run` over groups."""
        groups = group([len(text) for text in texts], self.limits)
        runs = run_all(self.run, [[texts[member] for member in members] for members in groups])
        outcomes: Dict[int, Outcome] = {}
        for members, answers in zip(groups, runs):  # noqa: B905  # not in Python 3.8
            outcomes.update(zip(members, answers))  # noqa: B905
        return [outcomes[place] for place in range(len(texts))]

    def _run(self, texts: Sequence[Encoded]) -> List[Outcome]:
        fed = feed(self.bundle.inputs, [text.ids for text in texts], self.bundle.pad_token_id)
        output = self._session.run([self.bundle.output], fed)[0]
        logits = np.asarray(output, dtype=np.float64)
        finite: Any = np.isfinite(logits).all(axis=1)
        rows = self._probabilities(logits).tolist()
        return [
            Prediction(tuple(zip(self.bundle.labels, row)), text.truncated)  # noqa: B905
            if is_finite
            else _failed("the model returned no finite number for this text")
            for text, row, is_finite in zip(texts, rows, finite.tolist())  # noqa: B905  # not in Python 3.8
        ]

    def _probabilities(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Softmax or sigmoid of logits ``(batch, labels)``, in float64, without overflow."""
        if self.bundle.threshold is not None:
            # 1 / (1 + exp(-x)), written to avoid overflow.
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
        with np.errstate(invalid="ignore"):  # rows that are not finite get an error
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _failed(message: str, cause: Optional[Exception] = None) -> RequestError:
    error = RequestError(
        500, "model_error", message, "try another text; the server's log says more"
    )
    error.__cause__ = cause
    return error

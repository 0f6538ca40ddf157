"""Texts to predictions. Every server, handler and check uses this code."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Union

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .contract import Outcome, Prediction, RequestError
from .request_queue import Limits, group
from .tokenizer import Encoded
from .word_tokenizer import TextEncoder


class SharedCores:
    """Runs the first session if nothing else runs, otherwise the last. Thread-safe."""

    def __init__(self, *sessions: Any) -> None:
        self._whole, self._part = sessions[0], sessions[-1]
        self._lock = threading.Lock()
        self._running = 0

    def run(self, outputs: Optional[Sequence[str]], feed: Mapping[str, Any]) -> Any:
        """Same as ONNX Runtime's ``run``."""
        with self._lock:
            session = self._part if self._running else self._whole
            self._running += 1
        try:
            return session.run(outputs, feed)
        finally:
            with self._lock:
                self._running -= 1


_IDS = "input_ids"
_MASK = "attention_mask"


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
        output = self._session.run([self.bundle.output], self._feed(texts))[0]
        logits = np.asarray(output, dtype=np.float64)
        probabilities = self._probabilities(logits)
        return [
            self._prediction(text, row.tolist())
            if np.isfinite(logits[place]).all()
            else _failed("the model returned no finite number for this text")
            for place, (text, row) in enumerate(zip(texts, probabilities))  # noqa: B905
        ]

    def _prediction(self, text: Encoded, row: List[float]) -> Prediction:
        return Prediction(tuple(zip(self.bundle.labels, row)), text.truncated)  # noqa: B905

    def _feed(self, texts: Sequence[Encoded]) -> Dict[str, npt.NDArray[np.int64]]:
        """The inputs of the graph, each int64 ``(batch, sequence)``."""
        shape = (len(texts), max(len(text) for text in texts))
        ids = np.full(shape, self.bundle.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text.ids
            mask[row, : len(text)] = 1
        return {
            name: ids if name == _IDS else mask if name == _MASK else np.zeros_like(ids)
            for name in self.bundle.inputs
        }

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

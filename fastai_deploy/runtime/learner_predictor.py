"""Texts to predictions by the learner itself, one at a time: the last way to serve one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Callable, Iterable, List, Sequence, Union

from .bundle import Bundle
from .contract import Outcome, Prediction, RequestError
from .encoded import Encoded
from .grouping import Limits
from .own_learner import Ask, check_probabilities

_CHARACTERS_PER_TOKEN = 6


@dataclass(frozen=True)
class Unread(Encoded):
    """A text that the learner itself will tokenize; ``ids`` only give its estimated length."""

    text: str = ""


class LearnerPredictor:
    """A learner that answers texts. Thread-safe: a lock lets one text in at a time."""

    def __init__(self, bundle: Bundle, ask: Ask) -> None:
        self.bundle = bundle
        self.limits = Limits(tokens=1)  # a run is one text: the learner takes no more
        self._ask = ask
        self._lock = threading.Lock()

    def encode(self, text: str) -> Union[Encoded, RequestError]:
        """The text as it is, with an estimate of its length."""
        # The learner does not say when it cuts a text; the manifest's residues tell so.
        return Unread(range(2 + len(text) // _CHARACTERS_PER_TOKEN), truncated=False, text=text)

    def run(self, texts: Sequence[Encoded]) -> List[Outcome]:
        """Answer texts one after the other."""
        return [self._answer(text) for text in texts]

    def predict(self, texts: Sequence[str]) -> List[Outcome]:
        """Answer texts in order."""
        encoded = (self.encode(text) for text in texts)
        return [each if isinstance(each, RequestError) else self._answer(each) for each in encoded]

    def predict_encoded(
        self, texts: Sequence[Encoded], run_all: Callable[..., Iterable[List[Outcome]]] = map
    ) -> List[Outcome]:
        """The same for texts that are encoded already, one by one."""
        del run_all  # a learner answers one text at a time
        return self.run(texts)

    def _answer(self, encoded: Encoded) -> Outcome:
        text = encoded.text if isinstance(encoded, Unread) else ""
        labels = self.bundle.labels
        try:
            with self._lock:
                found = self._ask(text)
            check_probabilities(found, len(labels), several=self.bundle.threshold is not None)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it raises, panics in Rust included
            failed = RequestError(
                500,
                "model_error",
                "the learner failed on this text",
                "try another text; the server's log says more",
            )
            failed.__cause__ = error
            return failed
        return Prediction(tuple(zip(labels, found)), truncated=False)  # noqa: B905

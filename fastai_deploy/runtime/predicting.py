"""What servers, handlers and checks ask of a predictor, whatever answers behind it."""

from __future__ import annotations

from typing import Callable, Iterable, List, Protocol, Sequence, Union

from .bundle import Bundle
from .contract import Outcome, RequestError
from .encoded import Encoded
from .grouping import Limits


class Predicting(Protocol):
    """A model that answers texts. Thread-safe."""

    bundle: Bundle
    limits: Limits

    def encode(self, text: str) -> Union[Encoded, RequestError]:
        """One text as the model takes it, or the error that answers it. Raises nothing."""
        ...

    def run(self, texts: Sequence[Encoded]) -> List[Outcome]:
        """Answer texts in one run; an error stands in place of a failed one."""
        ...

    def predict(self, texts: Sequence[str]) -> List[Outcome]:
        """Answer texts in order."""
        ...

    def predict_encoded(
        self, texts: Sequence[Encoded], run_all: Callable[..., Iterable[List[Outcome]]] = map
    ) -> List[Outcome]:
        """The same for texts that are encoded already; ``run_all`` maps :meth:`run` over groups."""
        ...

"""Turn a body into model inputs, and their outcomes into the answer; no HTTP and no queue.

    read -> ParsedBody -> (model) -> write -> Answer

The model server and the container handlers differ in what happens between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple, Union

from .contract import (
    JSON,
    JSON_LINES,
    Encoded,
    Model,
    Outcome,
    Request,
    RequestError,
    encode,
    media_type,
    parse,
    render,
)


@dataclass(frozen=True)
class ParsedBody:
    """The requests of one body; ``texts`` are their texts in order, encoded or refused."""

    kind: str
    requests: Tuple[Request, ...]
    texts: Tuple[Union[Encoded, RequestError], ...]

    @property
    def encoded(self) -> List[Encoded]:
        """The inputs for the model, in order."""
        return [text for text in self.texts if isinstance(text, Encoded)]

    @property
    def failures(self) -> List[BaseException]:
        """Why texts could not be encoded, if that is for the log and not for the client."""
        refused = (text for text in self.texts if isinstance(text, RequestError))
        return [error.__cause__ for error in refused if error.__cause__ is not None]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; ``retry_after`` in seconds."""

    status: int
    body: bytes
    content_type: str = JSON
    retry_after: Optional[int] = None


def read(
    body: bytes,
    content_type: Optional[str],
    encode_text: Callable[[str], Union[Encoded, RequestError]],
) -> ParsedBody:
    """Check a body by the contract and encode its texts. Raises RequestError."""
    kind, _ = media_type(content_type)
    requests = parse(body, content_type)
    texts = [item for request in requests for item in request.items if isinstance(item, str)]
    return ParsedBody(kind, tuple(requests), tuple(map(encode_text, texts)))


def write(parsed: ParsedBody, outcomes: Sequence[Outcome], model: Model) -> Answer:
    """The answer; ``outcomes`` are those of ``parsed.encoded``, in order.

    JSON lines get as many lines back, each with its own answer or error.
    """
    ready = iter(outcomes)
    every = iter([text if isinstance(text, RequestError) else next(ready) for text in parsed.texts])
    answers = []
    for request in parsed.requests:
        own = [next(every) for item in request.items if isinstance(item, str)]
        if parsed.kind not in JSON_LINES and request.single and isinstance(own[0], RequestError):
            return refuse(own[0])
        answers.append(render(own, request, model))
    if parsed.kind in JSON_LINES:
        lines = b"".join(encode(each) + b"\n" for each in answers)
        return Answer(200, lines, parsed.kind)
    return Answer(200, encode(answers[0]))


def refuse(error: RequestError) -> Answer:
    """The answer to a request that is refused as a whole."""
    return Answer(error.status, encode(error.body()), retry_after=error.retry_after)

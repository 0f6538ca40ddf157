"""Reads what SageMaker's data capture writes: requests and answers as JSON lines.

    {"captureData": {"endpointInput": {"observedContentType": "application/json", "mode": "INPUT",
                                       "data": "...", "encoding": "JSON"},
                     "endpointOutput": {...}},
     "eventMetadata": {"eventId": ..., "inferenceTime": ...}, "eventVersion": "0"}

``encoding`` is BASE64 unless the endpoint's configuration names the content type. Source: "Capture
data from real-time endpoint" in the SageMaker developer guide.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastai_deploy.evaluation.metrics import Answer
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.runtime import contract
from fastai_deploy.runtime.contract import RequestError

_BASE64 = "BASE64"


@dataclass(frozen=True)
class Seen:
    """A text and its answer; ``version`` is that of the model that answered."""

    text: str
    answer: Answer
    version: str


@dataclass
class Unread:
    """How many records could not be read, and how many texts got an error instead of an answer."""

    records: int = 0
    errors: int = 0


def seen(lines: Iterable[bytes], unread: Unread) -> Iterator[Seen]:
    """The texts and answers in captured lines, in their order; ``unread`` counts the others."""
    for line in lines:
        if not line.strip():
            continue
        try:
            found = list(_record(parse(line, halves=True)["captureData"]))
        except (BadJson, LookupError, TypeError, ValueError, RequestError, binascii.Error):
            unread.records += 1
            continue
        for text, body in found:
            made = _seen(text, body)
            if made is None:
                unread.errors += 1
            else:
                yield made


def _record(data: Any) -> Iterator[tuple[str, Any]]:
    """The texts of a request, each with its answer."""
    asked, answered = data["endpointInput"], data["endpointOutput"]
    requests = contract.parse(_bytes(asked), asked.get("observedContentType"))
    answers = _answers(_bytes(answered), several=len(requests) > 1)
    for request, answer in zip(requests, answers, strict=True):
        bodies = [answer] if request.single else answer
        for item, body in zip(request.items, bodies, strict=True):
            if isinstance(item, str):
                yield item, body


def _answers(body: bytes, *, several: bool) -> list[Any]:
    """The answer to each request; those to JSON lines are lines, too."""
    if not several:
        return [parse(body, halves=True)]
    return [parse(line, halves=True) for line in body.split(b"\n") if line.strip()]


def _bytes(part: Any) -> bytes:
    data = str(part["data"])
    if part.get("encoding") == _BASE64:
        return base64.b64decode(data, validate=True)
    return data.encode("utf-8", "surrogatepass")


def _seen(text: str, body: Any) -> Seen | None:
    """The answer to a text; None if it is an error."""
    try:
        labels = body["labels"] if "labels" in body else [body["label"]]
        probabilities = {str(name): float(value) for name, value in body["probabilities"].items()}
        return Seen(text, Answer(tuple(map(str, labels)), probabilities), body["model"]["version"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return None

"""The contract: bytes to a checked request, predictions to an answer. See ``docs/contract.md``."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple, Union

from .error_responses import RequestError
from .strict_json import Json, bad_json, encode, is_object_with, load


@dataclass(frozen=True)
class Encoded:
    """The token ids of one text, with special tokens, cut to the model's ``max_length``."""

    ids: Sequence[int]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


JSON = "application/json"
TEXT = "text/plain"
JSON_LINES = ("application/jsonlines", "application/x-ndjson")

# Every accepted spelling, with Python's codec. The list is short on purpose: some of Python's other
# codecs are not charsets (rot13, zlib), decode in quadratic time (punycode) or run escapes.
_CHARSETS = {
    "utf-8": "utf-8-sig",
    "utf8": "utf-8-sig",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}
_LONGEST_HEADER = 256
_CHARSET = re.compile(r'\bcharset\s*=\s*"?([^\s;,"]+)"?', re.IGNORECASE)


def media_type(content_type: Optional[str]) -> Tuple[str, str]:
    """The media type and Python's codec of a Content-Type header; JSON if there is none.

    JSON is UTF-8 whatever the header says (RFC 8259, section 8.1). A byte order mark is ignored.
    Raises RequestError 415 for a type or a charset that the contract does not allow.
    """
    if not content_type or not content_type.strip():
        return JSON, _CHARSETS["utf-8"]
    if len(content_type) > _LONGEST_HEADER:
        raise _unsupported("this content type is too long")
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip(" \t").lower()
    if kind == JSON or kind in JSON_LINES:
        return kind, _CHARSETS["utf-8"]
    if kind != TEXT:
        raise _unsupported("this content type is not supported")
    named = _CHARSET.search(parameters)
    if named is None:
        return TEXT, _CHARSETS["utf-8"]
    codec = _CHARSETS.get(named.group(1).lower())
    if codec is None:
        raise _unsupported("this charset is not supported")
    return TEXT, codec


def _unsupported(message: str) -> RequestError:
    hint = 'send application/json with {"text": "..."}, or text/plain in UTF-8'
    return RequestError(415, "unsupported_media_type", message, hint)


Schema = Dict[str, Any]

HEALTH, OPENAPI, PAGE = "/health", "/openapi.json", "/"
"""The API's routes other than the one that classifies."""

FIELDS: Mapping[str, Schema] = {
    "text": {"type": "string", "description": "The text to classify; it may be blank."},
    "texts": {
        "type": "array",
        "minItems": 1,
        "maxItems": 1_000,
        "items": {"type": "string"},
        "description": "Texts to classify, answered in order. An item that is not a string gets an "
        "error in its place; the others are answered normally.",
    },
    "top_k": {
        "type": ["integer", "null"],
        "minimum": 1,
        "description": "How many probabilities to return, the most probable first.",
    },
}
"""The keys of a request."""

REQUEST: Schema = {
    "type": "object",
    "properties": dict(FIELDS),
    "additionalProperties": False,
    "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
}
"""A request as JSON."""

MAX_TEXTS: int = FIELDS["texts"]["maxItems"]
LEAST_TOP_K: int = FIELDS["top_k"]["minimum"]

ERRORS: Mapping[int, Tuple[Tuple[str, str], ...]] = {
    400: (
        ("invalid_json", "the body is not JSON, or not text in its charset"),
        ("bad_request", "the request is not well-formed HTTP"),
    ),
    401: (("unauthorized", "no token, or an invalid one"),),
    403: (("forbidden", "no key, or one that is not this API's; or a foreign Host or Origin"),),
    404: (("not_found", "there is no such route"),),
    405: (("method_not_allowed", "the route exists, the method does not"),),
    408: (("timeout", "the request did not arrive whole"),),
    413: (("too_large", "the body, the answer or the number of texts is above the limit"),),
    415: (("unsupported_media_type", "a content type or charset that is not supported"),),
    422: (("invalid_request", "JSON, but not a request"),),
    429: (
        ("throttled", "above the rate"),
        ("quota_exceeded", "above the quota of the key"),
    ),
    431: (("headers_too_large", "the request line and the headers are above the limit"),),
    500: (
        ("internal", "a defect"),
        ("model_error", "the model failed on this request"),
    ),
    503: (
        ("overloaded", "too much at once"),
        ("not_ready", "the model is not up"),
    ),
    504: (("timeout", "no answer in time, or the body did not arrive in time"),),
}
"""Each status of an error, with its codes and their meaning."""


__all__ = [
    "JSON",
    "JSON_LINES",
    "MAX_TEXTS",
    "TEXT",
    "Json",
    "Model",
    "Outcome",
    "Prediction",
    "Request",
    "RequestError",
    "answer",
    "decode",
    "encode",
    "media_type",
    "parse",
    "render",
]

Probabilities = Sequence[Tuple[str, float]]


@dataclass(frozen=True)
class Request:
    """A valid request.

    ``items`` holds, in order, the texts, and an error in place of any item that is not a text.
    ``single`` is true for ``{"text": ...}`` and ``text/plain``, whose answer is not a list.
    """

    items: Tuple[Union[str, RequestError], ...]
    single: bool
    top_k: Optional[int] = None


@dataclass(frozen=True)
class Prediction:
    """The model's answer to one text: ``(label, probability)`` in the order of the labels."""

    probabilities: Probabilities
    truncated: bool


Outcome = Union[Prediction, RequestError]


@dataclass(frozen=True)
class Model:
    """The ``model`` object of an answer; ``threshold`` is None for single-label models.

    ``unproven``: some of the learner's code was assumed rather than proven. ``precision``: what
    the model computes in, such as ``bf16``; empty if that is not known.
    """

    name: str
    version: str
    threshold: Optional[float] = None
    unproven: bool = False
    precision: str = ""


def parse(body: bytes, content_type: Optional[str]) -> List[Request]:
    """Read a body: one request, or one for each line of JSON lines.

    Raises RequestError with status 400, 413, 415 or 422, and nothing else, whatever the bytes are.
    """
    kind, text = decode(body, content_type)
    if kind == TEXT:
        return [Request((_checked(text),), single=True)]
    if kind == JSON:
        return [_request(load(text))]
    return _lines(text)


def decode(body: bytes, content_type: Optional[str]) -> Tuple[str, str]:
    """The kind that a body is read as, and its text.

    A body of ``text/plain`` that is a JSON request is read as JSON, because ``fetch`` sends that
    type by default. Raises RequestError 400 or 415.
    """
    kind, codec = media_type(content_type)
    try:
        text = body.decode(codec)
    except UnicodeError:  # truncated UTF-16 raises no UnicodeDecodeError
        bad_json("the body is not text in its charset", "send UTF-8")
    if kind == TEXT and is_object_with(text, ("text", "texts")):
        return JSON, text
    return kind, text


def render(outcomes: Sequence[Outcome], request: Request, model: Model) -> Json:
    """The answer to one request: an object, or a list if the request had a list.

    ``outcomes`` are those of the texts among ``request.items``, in order: a prediction, or the
    error that takes its place.
    """
    ready = iter(outcomes)
    answers = [
        _rendered(item if isinstance(item, RequestError) else next(ready), request.top_k, model)
        for item in request.items
    ]
    return answers[0] if request.single else answers


def answer(prediction: Prediction, top_k: Optional[int], model: Model) -> Dict[str, Json]:
    """The answer to one text, probabilities in descending order (ties in label order)."""
    ranked = sorted(prediction.probabilities, key=lambda pair: -pair[1])
    body: Dict[str, Json]
    if model.threshold is None:
        body = {"label": ranked[0][0], "score": ranked[0][1]}
    else:
        chosen = [pair for pair in ranked if pair[1] > model.threshold]
        body = {"labels": [pair[0] for pair in chosen], "scores": [pair[1] for pair in chosen]}
    body["probabilities"] = dict(ranked[:top_k])
    body["truncated"] = prediction.truncated
    body["model"] = {"name": model.name, "version": model.version}
    if model.precision:
        body["model"]["precision"] = model.precision
    if model.unproven:
        body["model"]["unproven"] = True
    return body


def _rendered(outcome: Outcome, top_k: Optional[int], model: Model) -> Dict[str, Json]:
    if isinstance(outcome, RequestError):
        return outcome.body()
    return answer(outcome, top_k, model)


def _lines(text: str) -> List[Request]:
    lines = [line for line in text.split("\n") if line.strip(" \t\r")]
    if not lines:
        _invalid("the body has no lines")
    if len(lines) > MAX_TEXTS:
        _too_many(len(lines))
    requests = [_line(line) for line in lines]
    items = sum(len(request.items) for request in requests)
    if items > MAX_TEXTS:
        _too_many(items)
    return requests


def _line(line: str) -> Request:
    try:
        return _request(load(line))
    except RequestError as error:
        return Request((error,), single=True)


def _request(value: Json) -> Request:
    if not isinstance(value, dict):
        _invalid("the request is not a JSON object")
    for key in value:
        if key not in FIELDS:
            near = difflib.get_close_matches(key[:40], FIELDS, n=1)
            _invalid("the request has an unknown key", f'did you mean "{near[0]}"?' if near else "")
    if ("text" in value) == ("texts" in value):
        _invalid('the request needs exactly one of "text" and "texts"')
    top_k = value.get("top_k")
    if top_k is not None and not _is_count(top_k):
        _invalid('"top_k" is not a positive whole number', 'send {"text": "...", "top_k": 3}')
    if "text" in value:
        return Request((_checked(value["text"]),), single=True, top_k=top_k)
    texts = value["texts"]
    if not isinstance(texts, list) or not texts:
        _invalid('"texts" is not a list of at least one text', 'send {"texts": ["...", "..."]}')
    if len(texts) > MAX_TEXTS:
        _too_many(len(texts))
    return Request(tuple(_item(text) for text in texts), single=False, top_k=top_k)


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= LEAST_TOP_K


def _item(value: Json) -> Union[str, RequestError]:
    try:
        return _checked(value)
    except RequestError as error:
        return error


def _checked(value: Json) -> str:
    if not isinstance(value, str):
        _invalid("a text is not a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        _invalid("a text contains a lone surrogate, which is not a character", "send valid Unicode")
    return str(value)


def _invalid(message: str, hint: str = "") -> NoReturn:
    raise RequestError(422, "invalid_request", message, hint or 'send {"text": "..."}') from None


def _too_many(count: int) -> NoReturn:
    raise RequestError(
        413,
        "too_large",
        f"the request has {count} texts; the limit is {MAX_TEXTS}",
        f"send at most {MAX_TEXTS} texts in one request",
    )

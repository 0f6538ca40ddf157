"""The body of a call: the checked request, and the JSON that says the same to the endpoint."""

from __future__ import annotations

from typing import Dict, Optional, Tuple
from urllib.parse import parse_qsl

from ..contract import (  # noqa: TID252 the package has another name in AWS
    MAX_TEXTS,
    Json,
    Request,
    RequestError,
    decode,
    encode,
    parse,
)
from ..media_type import JSON, JSON_LINES  # noqa: TID252
from ..strict_json import HUGE, LONGEST_INTEGER  # noqa: TID252

FORM = "application/x-www-form-urlencoded"


def checked(body: bytes, content_type: Optional[str]) -> Tuple[Request, bytes]:
    """The request in a body, and its JSON. Raises RequestError 400, 413, 415 or 422.

    A form that begins like JSON is JSON: that is what ``curl -d '{"text": "..."}'`` sends.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == FORM:
        body = body if body.lstrip()[:1] == b"{" else encode(_form(body))
        return parse(body, JSON)[0], body
    kind, text = decode(body, content_type)
    if kind in JSON_LINES:
        raise RequestError(
            415,
            "unsupported_media_type",
            "JSON lines are for batch work",
            'send {"texts": ["...", "..."]}',
        )
    request = parse(body, content_type)[0]
    if kind == JSON:
        return request, text.encode("utf-8")
    return request, encode({"text": request.items[0]})


def _form(body: bytes) -> Dict[str, Json]:
    """A form post as the JSON request that it stands for; the contract checks the rest."""
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_TEXTS + 1,
        )
    except UnicodeDecodeError:
        raise RequestError(400, "invalid_json", "the form is not UTF-8", "send UTF-8") from None
    except ValueError:
        raise RequestError(
            413, "too_large", "the form has too many fields", f"send at most {MAX_TEXTS} texts"
        ) from None
    request: Dict[str, Json] = {}
    for key, value in pairs:
        if key == "texts":
            request.setdefault(key, []).append(value)
        elif key in request:
            raise RequestError(422, "invalid_request", "a field stands twice", "send it once")
        else:
            request[key] = _number(value) if key == "top_k" else value
    return request


def _number(value: str) -> Json:
    """A whole number where the field holds one; the contract refuses what is left as text."""
    if not (value.isascii() and value.isdecimal()):
        return value
    digits = value.lstrip("0") or "0"
    # As in JSON: more digits would take quadratic time, and mean no more.
    return int(digits) if len(digits) <= LONGEST_INTEGER else HUGE

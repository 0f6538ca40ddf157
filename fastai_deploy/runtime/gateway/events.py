"""Lambda proxy events: an event to a checked call, an answer to a proxy response."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qsl

from ..contract import (
    JSON,
    JSON_LINES,
    MAX_TEXTS,
    Json,
    Request,
    RequestError,
    decode,
    encode,
    parse,
)
from ..strict_json import HUGE, LONGEST_INTEGER

REST = "rest"
HTTP = "http"
FUNCTION_URL = "function-url"
DIRECT = "direct"

# The characters allowed in a request id, which is written to a header and a log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9=_-]{1,128}\Z")
_BASE = re.compile(r"(?:/[A-Za-z0-9._~-]+)+\Z")
_ALLOWED_HEADERS = "authorization, content-type, x-api-key"
_EXPOSED_HEADERS = "retry-after, x-request-id"
_SECURITY = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class Call:
    """One HTTP request, from any kind of event.

    ``path`` excludes the API's stage; header names are lower-case. ``base`` is the part of the URL
    before the path: the stage, a custom domain's base path, or nothing.
    """

    kind: str
    method: str
    path: str
    headers: Mapping[str, str]
    request_id: str
    raw_body: str
    is_base64: bool
    base: str = ""

    def body(self) -> bytes:
        """The body as the client sent it. Raises RequestError 400 for damaged base64."""
        # Lone surrogates survive here, so that the contract refuses them.
        data = self.raw_body.encode("utf-8", "surrogatepass")
        if not self.is_base64:
            return data
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise RequestError(
                400, "invalid_json", "the body is damaged", "send the request again"
            ) from None


def read(event: Any) -> Call:
    """The call in an event. Anything else becomes a call to no path; never raises."""
    event = event if isinstance(event, dict) else {}
    context = _mapping(event.get("requestContext"))
    http = _mapping(context.get("http"))
    body = event.get("body")
    if http:
        kind = FUNCTION_URL if ".lambda-url." in _text(context.get("domainName")) else HTTP
        method, path = _text(http.get("method")), _path_v2(event, context, http)
    else:
        kind, method, path = REST, _text(event.get("httpMethod")), _path_v1(event)
    return Call(
        kind=kind,
        method=method.upper(),
        path=path,
        headers=_headers(event),
        request_id=_request_id(context.get("requestId")),
        raw_body=body if isinstance(body, str) else "",
        is_base64=event.get("isBase64Encoded") is True,
        base=_base(_text(event.get("rawPath") if http else context.get("path")), path),
    )


def is_direct(event: Any) -> bool:
    """Whether an event is a request of the contract itself, such as ``{"text": "..."}``.

    Those of API Gateway and of function URLs have a context.
    """
    return isinstance(event, dict) and "requestContext" not in event and "httpMethod" not in event


def direct(event: Any, route: str, request_id: Any) -> Call:
    """The call of an invocation with a request of the contract itself."""
    headers = {"content-type": JSON}
    body = json.dumps(event)
    return Call(DIRECT, "POST", route, headers, _request_id(request_id), body, is_base64=False)


def respond(status: int, body: Optional[bytes], headers: Mapping[str, str]) -> Dict[str, Json]:
    """A proxy response for all three kinds of event; ``body`` is UTF-8 JSON."""
    every = dict(_SECURITY)
    if body is not None:
        every["content-type"] = "application/json"
    every.update(headers)
    return {
        "statusCode": status,
        "headers": every,
        "body": "" if body is None else body.decode("utf-8"),
        "isBase64Encoded": False,
    }


def refuse(error: RequestError, headers: Mapping[str, str]) -> Dict[str, Json]:
    """The proxy response for an error, as the contract formats it."""
    every = dict(headers)
    if error.retry_after is not None:
        every["retry-after"] = str(error.retry_after)
    return respond(error.status, encode(error.body()), every)


def without_body(response: Dict[str, Json]) -> Dict[str, Json]:
    """The answer to HEAD: that to GET, without its body but with its length (RFC 9110, 9.3.2)."""
    length = len(response["body"].encode("utf-8"))
    headers = {**response["headers"], "content-length": str(length)}
    return {**response, "headers": headers, "body": ""}


def cors(
    origin: Optional[str], allowed: Sequence[str], methods: Sequence[str] = ()
) -> Dict[str, str]:
    """The CORS headers of an answer; with ``methods``, those of a preflight.

    Only origins on the list are repeated; ``*`` in the list allows all.
    """
    if not allowed:
        return {}
    headers = {} if "*" in allowed else {"vary": "origin"}
    if "*" in allowed:
        headers["access-control-allow-origin"] = "*"
    elif origin is not None and origin in allowed:
        headers["access-control-allow-origin"] = origin
    else:
        return headers
    headers["access-control-expose-headers"] = _EXPOSED_HEADERS
    if methods:
        headers["access-control-allow-methods"] = ", ".join(methods)
        headers["access-control-allow-headers"] = _ALLOWED_HEADERS
        headers["access-control-max-age"] = "600"
    return headers


def _path_v1(event: Mapping[str, Any]) -> str:
    """The resource that the API matched: ``path`` may start with a custom domain's base path."""
    resource = _text(event.get("resource"))
    if resource and "{" not in resource:
        return resource
    return _text(event.get("path"))


def _path_v2(event: Mapping[str, Any], context: Mapping[str, Any], http: Mapping[str, Any]) -> str:
    """The route's path; for ``$default`` the raw path, without a leading stage."""
    _, _, route = _text(event.get("routeKey")).partition(" ")
    if route and "{" not in route:
        return route
    path = _text(event.get("rawPath")) or _text(http.get("path"))
    prefix = "/" + _text(context.get("stage"))
    return path[len(prefix) :] if path.startswith(prefix + "/") else path


def _base(whole: str, path: str) -> str:
    """The part of the whole path before ``path``, if it is plain: it goes into a document."""
    base = whole[: -len(path)] if path and whole.endswith(path) else ""
    return base if _BASE.match(base) else ""


def _headers(event: Mapping[str, Any]) -> Dict[str, str]:
    """Headers by lower-case name; in format 1.0, ``headers`` keeps only the last repeated one."""
    many = _mapping(event.get("multiValueHeaders"))
    found = {str(name).lower(): _last(values) for name, values in many.items()}
    found.update({str(n).lower(): v for n, v in _mapping(event.get("headers")).items()})
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _last(values: Any) -> Any:
    return values[-1] if isinstance(values, list) and values else None


def _request_id(value: Any) -> str:
    text = _text(value)
    return text if _REQUEST_ID.match(text) else "-"


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


FORM = "application/x-www-form-urlencoded"


def checked(body: bytes, content_type: Optional[str]) -> Tuple[Request, bytes]:
    """The request in a body, and its JSON. Raises RequestError 400, 413, 415 or 422.

    A form that looks like JSON is JSON: ``curl -d '{"text": "..."}'`` sends that.
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
    """A form post as a JSON request; the contract checks the rest."""
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
            raise RequestError(422, "invalid_request", "a field occurs twice", "send it once")
        else:
            request[key] = _number(value) if key == "top_k" else value
    return request


def _number(value: str) -> Json:
    """A whole number if the field has one; otherwise the text, which the contract refuses."""
    if not (value.isascii() and value.isdecimal()):
        return value
    digits = value.lstrip("0") or "0"
    # As in JSON: more digits would take quadratic time, and make no difference.
    return int(digits) if len(digits) <= LONGEST_INTEGER else HUGE

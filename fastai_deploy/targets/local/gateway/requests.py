"""Reads an HTTP request as API Gateway does, and builds Lambda's proxy event from it."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qsl

from fastai_deploy.runtime import error_responses
from fastai_deploy.runtime.error_responses import RequestError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RequestBody:
    """Reads the body of one ASGI request; ``seconds`` is the time it has to arrive.

    The server discards any unread rest, so that the client can send it and receive the answer.
    """

    def __init__(
        self, receive: Receive, headers: Sequence[tuple[str, str]], *, seconds: float
    ) -> None:
        self._receive = receive
        self._seconds = seconds
        length = dict(headers).get("content-length", "")
        self._length = int(length) if length.isascii() and length.isdecimal() else 0

    async def read(self, limit: int) -> bytes:
        """Read the whole body.

        Raises ErrorResponse: 413 above ``limit`` bytes, 504 if it is late, 408 if the client has
        disconnected.
        """
        if self._length > limit:
            raise error_responses.too_large(limit)
        try:
            return await asyncio.wait_for(self._collect(limit), self._seconds)
        except asyncio.TimeoutError:
            raise error_responses.late_body() from None

    async def _collect(self, limit: int) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RequestError(408, "timeout", "the client left", "send the request again")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise error_responses.too_large(limit)
        return bytes(body)


_ACCOUNT = "000000000000"
_TEXT_TYPES = frozenset(
    ("application/json", "application/xml", "application/javascript", "application/x-javascript")
)
_NO_IDENTITY = (
    "accessKey",
    "accountId",
    "caller",
    "cognitoAuthenticationProvider",
    "cognitoAuthenticationType",
    "cognitoIdentityId",
    "cognitoIdentityPoolId",
    "principalOrgId",
    "user",
    "userArn",
)


@dataclass(frozen=True)
class HttpRequest:
    """A request as received; header names are lower-case, ``path`` and ``query`` undecoded."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str
    http_version: str
    request_id: str
    key_id: str | None
    stage: str
    arrived: datetime


def rest_event(request: HttpRequest) -> dict[str, Any]:
    """Build the proxy event for a request."""
    headers = _forwarded(request)
    many = _many(headers)
    query = _many(parse_qsl(request.query, keep_blank_values=True, errors="replace"))
    text = _text(request.body, dict(headers).get("content-type", ""))
    body = text if text is not None else base64.b64encode(request.body).decode("ascii")
    return {
        "resource": request.path,
        "path": request.path,
        "httpMethod": request.method,
        "headers": dict(headers),
        "multiValueHeaders": many,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": _context(request, dict(headers)),
        "body": body if request.body else None,
        "isBase64Encoded": bool(request.body) and text is None,
    }


def _context(request: HttpRequest, headers: dict[str, str]) -> dict[str, Any]:
    host = headers.get("host", "localhost")
    identity: dict[str, Any] = dict.fromkeys(_NO_IDENTITY)
    identity["sourceIp"] = request.source_ip
    identity["userAgent"] = headers.get("user-agent")
    if request.key_id is not None:
        identity["apiKey"] = headers.get("x-api-key")
        identity["apiKeyId"] = request.key_id
    return {
        "accountId": _ACCOUNT,
        "apiId": "local",
        "domainName": host,
        "domainPrefix": host.partition(".")[0],
        "extendedRequestId": request.request_id,
        "httpMethod": request.method,
        "identity": identity,
        # As with a custom domain: local URLs have no stage in their path.
        "path": request.path,
        "protocol": f"HTTP/{request.http_version}",
        "requestId": request.request_id,
        "requestTime": request.arrived.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "requestTimeEpoch": int(request.arrived.timestamp() * 1_000),
        "resourceId": "local",
        "resourcePath": request.path,
        "stage": request.stage,
    }


def _forwarded(request: HttpRequest) -> list[tuple[str, str]]:
    """The headers, including those that API Gateway adds."""
    earlier = [value for name, value in request.headers if name == "x-forwarded-for"]
    kept = [pair for pair in request.headers if not pair[0].startswith("x-forwarded-")]
    seconds = int(request.arrived.astimezone(timezone.utc).timestamp())
    return [
        *kept,
        ("x-amzn-trace-id", f"Root=1-{seconds:08x}-{uuid.uuid4().hex[:24]}"),
        ("x-forwarded-for", ", ".join([*earlier, request.source_ip])),
        ("x-forwarded-proto", "http"),
    ]


def _many(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    many: dict[str, list[str]] = {}
    for name, value in pairs:
        many.setdefault(name, []).append(value)
    return many


def _text(body: bytes, content_type: str) -> str | None:
    """The body as text, or None if the type or the bytes are not text."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind.startswith("text/") and kind not in _TEXT_TYPES:
        return None
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None

"""API Gateway emulated as a plain ASGI application.

    route and method -> key -> usage plan -> body limit -> event -> function -> response

Requests that API Gateway itself refuses (an unknown route, a missing key, too many requests) are
refused here, before the Lambda runs, with the contract's errors.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any, TextIO

from fastai_deploy.runtime import error_responses
from fastai_deploy.runtime.contract import HEALTH, OPENAPI, PAGE
from fastai_deploy.runtime.gateway import events, failures, request_log
from fastai_deploy.targets.local.gateway.config import PROBE, PROBE_ID, GatewayConfig
from fastai_deploy.targets.local.gateway.function import Integration
from fastai_deploy.targets.local.gateway.requests import HttpRequest, RequestBody, rest_event
from fastai_deploy.targets.local.gateway.usage_plans import KeyRing, UsagePlan

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_SHOWN = {"GET": False, "HEAD": False, "OPTIONS": False}


class GatewayApp:
    """One API with one stage."""

    def __init__(
        self,
        config: GatewayConfig,
        *,
        keys: KeyRing,
        plan: UsagePlan,
        integration: Integration,
        log: TextIO,
    ) -> None:
        self._config = config
        self._keys = keys
        self._plan = plan
        self._integration = integration
        self._log = log
        # The methods of each route, and whether each needs a key.
        self._routes: Mapping[str, Mapping[str, bool]] = {
            HEALTH: _SHOWN,
            OPENAPI: _SHOWN,
            **({PAGE: _SHOWN} if config.page else {}),
            config.route: {"POST": True, "OPTIONS": False},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        started = time.monotonic()
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]]
        request_id = f"{self._mark(headers)}{uuid.uuid4()}"
        body = RequestBody(receive, headers, seconds=self._config.timeout_ms / 1_000)
        try:
            response = await self._answer(scope, headers, body, request_id)
        except Exception as error:  # noqa: BLE001 the client must always get an answer
            failure = request_log.failure(error)
            origin = dict(headers).get("origin")
            cors = events.cors(origin, self._config.cors_origins)
            response = events.refuse(
                failure, {**cors, **failure.headers, "x-request-id": request_id}
            )
            facts = {
                **failure.facts,
                "request_id": request_id,
                "status": failure.status,
                "code": failure.code,
                "ms": round((time.monotonic() - started) * 1_000, 2),
            }
            request_log.write(self._log, json.dumps({"gateway": facts}) + "\n")
        await _send(response, send, method=scope["method"])

    async def _answer(
        self, scope: Scope, headers: list[tuple[str, str]], body: RequestBody, request_id: str
    ) -> Mapping[str, Any]:
        # The path as sent: one with %2e%2e or // is not a known route.
        path = scope["raw_path"].decode("latin-1")
        method = scope["method"]
        methods = self._routes.get(path)
        if methods is None:
            raise error_responses.not_found(self._config.route)
        if method not in methods:
            raise failures.method_not_allowed(tuple(methods))
        key_id = self._admit(headers) if methods[method] else None
        request = HttpRequest(
            method=method,
            path=path,
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            body=await body.read(self._config.max_body),
            source_ip=scope["client"][0] if scope["client"] else "",
            http_version=scope["http_version"],
            request_id=request_id,
            key_id=key_id,
            stage=self._config.stage,
            arrived=datetime.now(timezone.utc),
        )
        return await self._integration.invoke(rest_event(request))

    def _mark(self, headers: list[tuple[str, str]]) -> str:
        """What the ID of one of fdeploy's own checks begins with; a key proves that it is."""
        sent = [value for name, value in headers if name == PROBE]
        return PROBE_ID if len(sent) == 1 and self._keys.identify(sent[0]) else ""

    def _admit(self, headers: list[tuple[str, str]]) -> str:
        """Return the ID of the request's key. Raises RequestError 403 or 429."""
        sent = [value for name, value in headers if name == "x-api-key"]
        key_id = self._keys.identify(sent[0]) if len(sent) == 1 else None
        if key_id is None:
            raise error_responses.no_key()
        self._plan.admit(key_id)
        return key_id


async def _send(response: Mapping[str, Any], send: Send, *, method: str) -> None:
    """Send a response; for HEAD, the server omits the body."""
    status: int = response["statusCode"]
    body: bytes = response["body"].encode("utf-8")
    headers = {name.lower(): str(value) for name, value in response["headers"].items()}
    if method != "HEAD" or "content-length" not in headers:
        headers["content-length"] = str(len(body))
    if status == HTTPStatus.NO_CONTENT:  # must not have a length
        del headers["content-length"]
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})

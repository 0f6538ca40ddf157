"""The Lambda proxy integration: an event to a response, in time, so many at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from http import HTTPStatus
from typing import Any

from fastai_deploy.runtime.gateway import failures
from fastai_deploy.targets.local.gateway.function import Handler, LambdaContext

MAX_PAYLOAD = 6 * 1024 * 1024  # bytes of JSON that Lambda takes and gives (AWS: Lambda quotas)


class Integration:
    """Runs a handler in the threads of ``pool``, which must be as many as ``concurrency``."""

    def __init__(
        self, handler: Handler, pool: Executor, *, concurrency: int, timeout_ms: int
    ) -> None:
        self._handler = handler
        self._pool = pool
        self._timeout_ms = timeout_ms
        self._slots = threading.BoundedSemaphore(concurrency)

    async def invoke(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The handler's response.

        Raises Failure: 503 when all slots are taken, 504 after the time-out (the handler's own
        comes first), 413 and 500 for what Lambda or API Gateway would not pass on.
        """
        if not self._slots.acquire(blocking=False):
            raise failures.overloaded({"error": "concurrency"})
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor(self._pool, self._run, event)
        try:
            return await asyncio.wait_for(run, self._timeout_ms / 1_000)
        except asyncio.TimeoutError:
            raise failures.timeout({"error": "integration time-out"}) from None

    def _run(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """One invocation, through JSON both ways, as between API Gateway and Lambda."""
        try:
            payload = json.dumps(event)
            if len(payload) > MAX_PAYLOAD:
                raise failures.body_too_large(MAX_PAYLOAD)
            context = LambdaContext.begin(self._timeout_ms)
            response = json.loads(json.dumps(self._handler(json.loads(payload), context)))
        finally:
            self._slots.release()
        if not _is_proxy_response(response):
            raise failures.internal({"error": "malformed proxy response"})
        return dict(response)


def _is_proxy_response(value: Any) -> bool:
    try:
        HTTPStatus(value["statusCode"])
        return isinstance(value["body"], str) and all(
            isinstance(part, str) for pair in value["headers"].items() for part in pair
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return False

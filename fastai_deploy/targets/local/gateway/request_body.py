"""The body of a request, read within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from fastai_deploy.runtime.gateway import failures
from fastai_deploy.runtime.gateway.failures import Failure
from fastai_deploy.runtime.request_error import RequestError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RequestBody:
    """Reads the body of one ASGI request; ``seconds`` is how long it may take to arrive.

    What is not read is dropped by the server, which lets the client send it and hear the answer.
    """

    def __init__(
        self, receive: Receive, headers: Sequence[tuple[str, str]], *, seconds: float
    ) -> None:
        self._receive = receive
        self._seconds = seconds
        length = dict(headers).get("content-length", "")
        self._length = int(length) if length.isascii() and length.isdecimal() else 0

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises RequestError 413 above ``limit`` bytes, 504 when it is late, 408 when its client is
        gone.
        """
        if self._length > limit:
            raise failures.body_too_large(limit)
        try:
            return await asyncio.wait_for(self._collect(limit), self._seconds)
        except asyncio.TimeoutError:
            raise Failure(
                RequestError(
                    504, "timeout", "the body did not arrive in time", "send the request again"
                )
            ) from None

    async def _collect(self, limit: int) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Failure(
                    RequestError(408, "timeout", "the client left", "send the request again")
                )
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise failures.body_too_large(limit)
        return bytes(body)

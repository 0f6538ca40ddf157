"""The little of ASGI that the model server needs: read a body, hear a hang-up, send an answer."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable, Dict, List, Mapping, Optional

from .answering import Answer
from .refusals import too_large

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Dict[str, Any]], Awaitable[None]]

_DRAINED = 64 * 1024 * 1024


class HungUp(Exception):
    """The client is gone; nobody waits for the answer."""


def header(scope: Scope, name: bytes) -> Optional[str]:
    """A request header by its lower-case name; one that was sent twice is joined by commas."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1") if values else None


async def read_body(scope: Scope, receive: Receive, *, limit: int, timeout: float) -> bytes:
    """The body, at most ``limit`` bytes of it, within ``timeout`` seconds.

    One that is too large is read to its end and thrown away, so that its client gets to read the
    answer; one that is far too large is not. Raises RequestError 413, HungUp, TimeoutError.
    """
    declared = header(scope, b"content-length") or ""
    if declared.isdigit() and int(declared) > _DRAINED:
        raise too_large(limit)
    message = await receive()
    if not message.get("more_body"):  # the usual case: all of it is here
        return _checked(message, limit)
    return await asyncio.wait_for(_rest(message, receive, limit), timeout)


async def hung_up(receive: Receive) -> None:
    """Return when the client is gone. For after the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(send: Send, answer: Answer, extra: Mapping[str, str]) -> None:
    """Send an answer with its headers and the ``extra`` ones."""
    headers = {
        "content-type": answer.content_type,
        "content-length": str(len(answer.body)),
        **extra,
    }
    if answer.retry_after is not None:
        headers["retry-after"] = str(answer.retry_after)
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.body})


async def _rest(first: Mapping[str, Any], receive: Receive, limit: int) -> bytes:
    chunks: List[bytes] = []
    try:
        size = 0
        message = first
        while True:
            chunk = _checked(message, None)
            size += len(chunk)
            if size > _DRAINED:
                raise too_large(limit)
            if size <= limit:
                chunks.append(chunk)
            else:
                chunks.clear()
            if not message.get("more_body"):
                break
            message = await receive()
        if size > limit:
            raise too_large(limit)
        return b"".join(chunks)
    finally:
        chunks.clear()  # an exception holds this frame, in a cycle that is collected much later


def _checked(message: Mapping[str, Any], limit: Optional[int]) -> bytes:
    if message["type"] == "http.disconnect":
        raise HungUp
    body: bytes = message.get("body", b"")
    if limit is not None and len(body) > limit:
        raise too_large(limit)
    return body

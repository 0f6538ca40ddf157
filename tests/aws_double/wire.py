"""HTTP/1.1 on one port: a request is read whole, may meet a fault, and is answered by an ASGI app.

A server of our own, because no ASGI server lets an application break a connection off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import h11

from tests.aws_double.operation import Request

_CHUNK = 1 << 18
_MAX_HEADERS = 1 << 17

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
BREAK: Answer = (0, [], b"break")  # instead of an answer: the connection breaks off
HANG: Answer = (0, [], b"hang")  # instead of an answer: none, until the client gives up
Respond = Callable[[Request], Awaitable[Answer]]


class Connection:
    """One client's connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, respond: Respond
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._respond = respond
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADERS)

    async def serve(self) -> None:
        """Answer requests until the client or a fault ends the connection."""
        try:
            while await self._exchange():
                self._http.start_next_cycle()
        except (OSError, h11.ProtocolError, asyncio.IncompleteReadError):
            pass  # the client is gone, or was never one of HTTP
        finally:
            self._writer.close()

    async def _exchange(self) -> bool:
        request = await self._request()
        if request is None:
            return False
        answer = await self._respond(request)
        if answer is HANG:
            await self._reader.read(1)  # until the client gives up
            return False
        if answer is BREAK:
            self._writer.transport.abort()
            return False
        await self._send(request, answer)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _request(self) -> Request | None:
        head: h11.Request | None = None
        body: list[bytes] = []
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(_CHUNK))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _whole(head, b"".join(body))
            else:
                return None

    async def _send(self, request: Request, answer: Answer) -> None:
        status, headers, body = answer
        kept = [
            (n, v) for n, v in headers if n.lower() not in (b"transfer-encoding", b"connection")
        ]
        if request.method != "HEAD" and status not in (204, 304):
            kept = [(n, v) for n, v in kept if n.lower() != b"content-length"]
            kept.append((b"content-length", str(len(body)).encode()))
        else:
            body = b""
        self._write(h11.Response(status_code=status, headers=kept))
        if body:
            self._write(h11.Data(data=body))
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    def _write(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)


async def ask(app: Callable[..., Awaitable[None]], request: Request, port: int) -> Answer:
    """What an ASGI application answers."""
    started: dict[str, Any] = {}
    chunks: list[bytes] = []
    delivered = False

    async def receive() -> Mapping[str, Any]:
        nonlocal delivered
        if delivered:
            await asyncio.Event().wait()  # the client stays until it is answered
        delivered = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
        else:
            chunks.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(request.path),
        "raw_path": request.path.encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in request.headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", port),
    }
    await app(scope, receive, send)
    return started["status"], list(started.get("headers", [])), b"".join(chunks)


def _whole(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("latin-1").partition("?")
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    headers.pop("expect", None)
    return Request(head.method.decode("latin-1"), path, query, headers, body)

"""One HTTP connection: uvicorn's protocol within limits, and with less work for each answer.

    idle ── first byte ──▶ head ── blank line ──▶ body ── last byte ──▶ answer ──▶ idle
                            │                      │                      └ answered early: rest
                            └───── refused ◀───────┘

Each state but ``answer`` ends in time (``ConnectionLimits``); the application has a time-out of its
own for that one. A refusal is written, and what its client still sends is thrown away for a while:
to close at once would take the answer away from it.

An answer goes out in one write, where uvicorn takes one for the head and one for the body: each is
a system call and a packet, and wakes the client. To refuse a request took 71 us of a core with two
and 61 with one, and its client 48 and 41 (2 cores, 16 clients, medians of 3).
"""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from typing import Any, Callable, List, Optional, Sequence, Tuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from . import error_responses
from .codec import refuse
from .connections import NEVER, Connections
from .error_responses import RequestError
from .host_check import HostCheck

RefusedEarly = Callable[[bytes, bytes, Sequence[Tuple[bytes, bytes]]], Optional[bytes]]

# Read into by all connections in turn. asyncio would take 256 KiB from the system for each read and
# give most of it back: a third of what a refusal cost, and each time the cores that run the model
# must forget the pages, too.
_RECEIVED = memoryview(bytearray(65_536))

_IDLE, _HEAD, _BODY, _ANSWER, _REST, _REFUSED = range(6)


class Connection(HttpToolsProtocol, asyncio.BufferedProtocol):
    """uvicorn's protocol, on a transport that gathers.

    ``connections`` holds the limits and counts what all connections take; ``hosts`` says who is
    answered, None answers everybody. ``refused_early(method, target, headers)`` may give the whole
    answer to a request that is refused whatever its body says: it goes out at once, without a task,
    and the body is skipped.
    """

    def __init__(
        self,
        *arguments: Any,
        connections: Connections,
        hosts: Optional[HostCheck] = None,
        refused_early: Optional[RefusedEarly] = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._all = connections
        self._limits = connections.limits
        self._hosts = hosts
        self._refused_early = refused_early
        self._state = _IDLE
        self._skipped = False  # refused early
        self._chunk = 0  # bytes that are being parsed now
        self._head = 0  # bytes of the head before those
        self._barren = 0  # bytes since the last that were body: chunk sizes, extensions, trailers
        self._body = 0  # bytes of it so far
        self._held = 0  # of those, what counts as unfinished
        self.expires = NEVER
        self.unread = NEVER

    @property
    def may_make_room(self) -> bool:
        """Whether there is nothing to answer, and no more than the beginning of a request."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self._state in (_IDLE, _HEAD)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the event loop puts what has come: it is taken out before anything else comes."""
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what has come."""
        self.data_received(bytes(_RECEIVED[:nbytes]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(Gathering(transport, self.loop))
        if self._all.admit(self):
            self._enter(_IDLE, self._limits.silent)
        elif self._all.linger(self):
            self._refuse(error_responses.too_many_connections())
        else:
            self._state = _REFUSED
            self.transport.abort()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Forget the connection, and what it held."""
        self._let_go()
        self._all.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, within the limits."""
        if self._state == _REFUSED:
            return
        if self._state == _IDLE:
            self._head = 0
            self._state, self.expires = _HEAD, self._all.now + self._limits.head
        self._chunk = len(data)
        self._barren += self._chunk
        super().data_received(data)
        if self._state == _HEAD:
            self._head += self._chunk
            if self._head > self._limits.head_bytes:
                self._refuse(error_responses.headers_too_large(self._limits.head_bytes))
        elif self._barren > self._limits.head_bytes and self._state in (_BODY, _REST):
            self._refuse(error_responses.headers_too_large(self._limits.head_bytes))

    def on_message_begin(self) -> None:
        """Begin a head. One that follows another request in the same bytes is counted later."""
        if self._state not in (_HEAD, _REFUSED):
            self._head = -self._chunk
            self._enter(_HEAD, self._limits.head)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Refuse a request, or start it."""
        if self._state == _REFUSED:
            return
        error = self._error_in_head()
        if error is not None:
            self._refuse(error)
            return
        self._body = self._barren = 0
        self._state, self.expires = _BODY, self._all.now + self._limits.body
        answer = self._early_refusal()
        self._skipped = answer is not None
        if answer is None:
            super().on_headers_complete()
            self.headers = []  # where trailers go: they are no headers of the request
        else:
            self.transport.write(answer)
            self._enter(_REST, self._limits.rest)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, if there is room for it."""
        self._barren = 0
        if self._state != _BODY:
            return
        self.expires = self._all.now + self._limits.body
        self._body += len(body)
        counted = min(self._body, self._limits.largest_body) - self._limits.small_body
        if counted > self._held:
            if not self._all.take(counted - self._held):
                self._refuse(error_responses.too_much_in_bodies())
                return
            self._held = counted
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Give the body out, or wait for the next request where it is answered already."""
        if self._state == _REFUSED:
            return
        self._let_go()
        if self._state == _REST:
            self._enter(_IDLE, self._limits.idle)
        else:
            self._state, self.expires = _ANSWER, NEVER
        if self._skipped:
            self._skipped = False
            self.on_response_complete()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of the one that is answered."""
        if self.pipeline:
            super().on_response_complete()
        elif not self.transport.is_closing():  # uvicorn would set a timer for each answer
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        if self.cycle is not None and not self.cycle.response_complete:
            return  # another request that came with it is being answered
        if self._state == _ANSWER:
            self._state, self.expires = _IDLE, self._all.now + self._limits.idle
        elif self._state == _BODY:
            self._let_go()
            self._enter(_REST, self._limits.rest)

    def send_400_response(self, _msg: str) -> None:
        """Refuse what is no HTTP."""
        if self._state != _REFUSED:
            self._refuse(error_responses.bad_http())

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        self.unread = self._all.now + self._limits.idle
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on: it has read."""
        self.unread = NEVER
        super().resume_writing()

    def make_room(self) -> None:
        """Close, because another client needs the place."""
        self.transport.close()

    def expire(self) -> None:
        """End what has taken too long."""
        if self.unread <= self._all.now:
            self.transport.abort()
        elif self._state == _HEAD:
            self._refuse(error_responses.late_request(self._limits.head))
        elif self._state == _BODY and self.flow.read_paused:  # it is not the client that is late
            self._enter(_BODY, self._limits.body)
        elif self._state == _BODY:
            self._refuse(error_responses.late_request(self._limits.body))
        elif self._state == _IDLE and not self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            self.transport.abort()

    def _enter(self, state: int, seconds: float) -> None:
        self._state = state
        self.expires = self._all.now + seconds

    def _let_go(self) -> None:
        if self._held:
            self._all.give_back(self._held)
            self._held = 0

    def _error_in_head(self) -> Optional[RequestError]:
        limit = self._limits.head_bytes
        # Bytes of a body may have come with it, so that it is added up only where it may matter.
        if (
            self._head + self._chunk > limit
            and len(self.url)
            + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            > limit
        ):
            return error_responses.headers_too_large(limit)
        if self._hosts is None:
            return None
        return self._hosts.refusal(self.parser.get_http_version, self.url, self.headers)

    def _early_refusal(self) -> Optional[bytes]:
        """What refuses a request; None for all that needs uvicorn's care."""
        if self._refused_early is None:
            return None
        if self.cycle is not None and not self.cycle.response_complete:  # it must wait for its turn
            return None
        if self.expect_100_continue or not self.parser.should_keep_alive():
            return None
        return self._refused_early(self.parser.get_method(), self.url, self.headers)

    def _refuse(self, error: RequestError) -> None:
        """Answer with an error, then close; an earlier request is answered, and not this one."""
        state, cycle = self._state, self.cycle
        self._let_go()
        self._unset_keepalive_if_required()
        self._all.refused(error)
        self._enter(_REFUSED, self._limits.refused)
        if cycle is not None and not cycle.response_complete:
            if state != _BODY:
                cycle.keep_alive = False
                self.expires = NEVER
                return
            cycle.disconnected, cycle.waiting_for_100_continue = True, False
            cycle.message_event.set()
            if self.pipeline or cycle.response_started:
                self.transport.abort()
                return
        if state == _REST:  # it has its answer
            self.transport.abort()
            return
        method = self.parser.get_method() if state == _HEAD else b""
        self.transport.write(_as_bytes(error, with_body=method != b"HEAD"))
        self.transport.write_eof()


def _as_bytes(error: RequestError, *, with_body: bool) -> bytes:
    """An error as the last answer of a connection."""
    answer = refuse(error)
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        f"content-type: {answer.content_type}",
        f"content-length: {len(answer.body)}",
        *([] if error.retry_after is None else [f"retry-after: {error.retry_after}"]),
        f"x-request-id: {os.urandom(8).hex()}",
        "connection: close",
    ]
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head + answer.body if with_body else head


class Gathering(asyncio.Transport):
    """Sends what is written in one step of the event loop together, after that step."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._gathered: List[bytes] = []

    def write(self, data: Any) -> None:
        """Send soon."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    def close(self) -> None:
        """Send what is gathered, then close."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Send what is gathered, and then no more."""
        self._flush()
        try:
            self._transport.write_eof()
        except OSError:  # the client has reset the connection, and asyncio has not heard of it yet
            self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """How many bytes the client has not taken yet."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._gathered))

    def abort(self) -> None:
        """Close at once."""
        self._gathered.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Optional[Any] = None) -> Any:
        """What the real transport knows."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection over."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who has the connection."""
        return self._transport.get_protocol()

    def pause_reading(self) -> None:
        """Take nothing more in."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        self._transport.resume_reading()

    def _flush(self) -> None:
        if self._gathered:
            data = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
            self._gathered.clear()
            self._transport.write(data)

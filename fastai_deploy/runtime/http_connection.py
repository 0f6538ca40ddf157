"""One HTTP connection: uvicorn's protocol with limits, and with less work per answer.

    idle ── first byte ──▶ head ── blank line ──▶ body ── last byte ──▶ answer ──▶ idle
                            │                      │                      └ answered early: rest
                            └───── refused ◀───────┘

Every state except ``answer`` has a time limit (``ConnectionLimits``); for that one the application
has its own time-out. After a refusal, what the client still sends is discarded for a while:
closing at once would keep the client from reading the answer.

An answer goes out in one write, where uvicorn uses one for the head and one for the body; each is a
system call and a packet, and wakes the client. Refusing a request took 71 us of a core with two
writes and 61 with one, and its client 48 and 41 (2 cores, 16 clients, medians of 3).
"""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from typing import Any, Callable, List, Optional, Protocol, Sequence, Tuple, Union

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from . import error_responses
from .app import Invocation
from .codec import Answer, refuse
from .connections import NEVER, Connections
from .error_responses import RequestError
from .host_check import HostCheck


class Direct(Protocol):
    """What answers requests without the application; see ``App``."""

    def begin(
        self, method: bytes, url: bytes, headers: Sequence[Tuple[bytes, bytes]]
    ) -> Union[Invocation, bytes, None]:
        """The whole answer, or an invocation, or None to call the application."""

    def invoke(self, invocation: Invocation, body: bytes, reply: Callable[[Answer], None]) -> None:
        """Answer an invocation."""

    def abandon(self, invocation: Invocation) -> None:
        """Drop an invocation."""


# All connections read into this buffer in turn. asyncio would allocate 256 KiB for each read and
# return most of it: a third of the cost of a refusal, and each time the cores that run the model
# must drop the pages too.
_RECEIVED = memoryview(bytearray(65_536))

_IDLE, _HEAD, _BODY, _ANSWER, _REST, _REFUSED = range(6)
_UPGRADE = (b"upgrade", b"http2-settings")  # headers that ask for another protocol


class Connection(HttpToolsProtocol, asyncio.BufferedProtocol):
    """uvicorn's protocol, on a transport that gathers writes.

    ``connections`` holds the limits and counts what all connections use; ``hosts`` decides who is
    answered (None: everybody). ``direct`` may answer a request in place of the application, without
    a task: at once, whatever its body says, which is then skipped; or when the body is complete.
    """

    cycle: Any  # uvicorn's RequestResponseCycle, or an _Exchange

    def __init__(
        self,
        *arguments: Any,
        connections: Connections,
        hosts: Optional[HostCheck] = None,
        direct: Optional[Direct] = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._all = connections
        self._limits = connections.limits
        self._hosts = hosts
        self._direct = direct
        self._state = _IDLE
        self._skipped = False  # answered before its body arrived
        self._upgrade = False  # asks for another protocol
        self._chunk = 0  # bytes that are being parsed now
        self._head = 0  # bytes of the head before that chunk
        self._barren = 0  # bytes since the last body data: chunk sizes, extensions, trailers
        self._body = 0  # bytes of the body so far
        self._held = 0  # of those, bytes that count as unfinished
        self.expires = NEVER
        self.unread = NEVER

    @property
    def may_make_room(self) -> bool:
        """Whether there is nothing to answer, and at most the beginning of a request."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self._state in (_IDLE, _HEAD)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """The shared buffer: its contents are taken out before anything else arrives."""
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        """Process received bytes."""
        self.data_received(bytes(_RECEIVED[:nbytes]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection."""
        super().connection_made(Gathering(transport, self.loop))
        if self._all.admit(self):
            self._enter(_IDLE, self._limits.silent)
        elif self._all.linger(self):
            self._refuse(error_responses.too_many_connections())
        else:
            self._state = _REFUSED
            self.transport.abort()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Forget the connection and its memory."""
        self._let_go()
        if isinstance(self.cycle, _Exchange):
            self.cycle.abandon()
        self._all.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, within the limits."""
        if self._state == _REFUSED:
            return
        if self._state == _IDLE:
            self._head = 0
            self._state, self.expires = _HEAD, self._all.now + self._limits.head
        self._chunk = len(data)
        self._barren += self._chunk
        self._parse(data)
        if self._state == _HEAD:
            self._head += self._chunk
            if self._head > self._limits.head_bytes:
                self._refuse(error_responses.headers_too_large(self._limits.head_bytes))
        elif self._barren > self._limits.head_bytes and self._state in (_BODY, _REST):
            self._refuse(error_responses.headers_too_large(self._limits.head_bytes))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, without the blanks behind its value, which do not belong to it."""
        super().on_header(name, value.rstrip(b" \t"))

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
        if self.parser.should_upgrade():
            self._upgrade = True
            return
        error = self._error_in_head()
        if error is not None:
            self._refuse(error)
            return
        self._body = self._barren = 0
        self._state, self.expires = _BODY, self._all.now + self._limits.body
        begun = self._begun()
        self._skipped = isinstance(begun, bytes)
        if begun is None:
            super().on_headers_complete()
        elif isinstance(begun, bytes):
            self.transport.write(begun)
            self._enter(_REST, self._limits.rest)
        else:
            self.cycle = _Exchange(self, self._direct, begun)
        self.headers = []  # collects trailers, which are not headers of the request

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
        """Pass on the end of the body, or wait for the next request if already answered."""
        if self._state == _REFUSED or self._upgrade:
            return
        self._let_go()
        if self._state == _REST:
            self._enter(_IDLE, self._limits.idle)
        else:
            self._state, self.expires = _ANSWER, NEVER
        if self._skipped:
            self._skipped = False
            self.on_response_complete()
        elif isinstance(self.cycle, _Exchange):
            self.cycle.start()
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
        """Refuse what is not HTTP."""
        if self._state != _REFUSED:
            self._refuse(error_responses.bad_http())

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        self.unread = self._all.now + self._limits.idle
        super().pause_writing()

    def resume_writing(self) -> None:
        """Continue after the client has read."""
        self.unread = NEVER
        super().resume_writing()

    def make_room(self) -> None:
        """Close to make room for another client."""
        self.transport.close()

    def expire(self) -> None:
        """End what has taken too long."""
        if self.unread <= self._all.now:
            self.transport.abort()
        elif self._state == _HEAD:
            self._refuse(error_responses.late_request(self._limits.head))
        elif self._state == _BODY and self.flow.read_paused:  # the delay is not the client's
            self._enter(_BODY, self._limits.body)
        elif self._state == _BODY:
            self._refuse(error_responses.late_request(self._limits.body))
        elif self._state == _IDLE and not self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            self.transport.abort()

    def send(self, answer: Answer, request: str, *, keep_alive: bool) -> None:
        """Send the whole answer to the request whose turn it is."""
        if not self.transport.is_closing():
            self.transport.write(
                _head(answer, request, self.server_state.default_headers, keep_alive=keep_alive)
                + answer.body
            )
            if not keep_alive:
                self.transport.close()
        self.on_response_complete()

    def _parse(self, data: bytes) -> None:
        """Parse received bytes, as HTTP/1.1 even if the client would rather use another protocol.

        Java's client offers HTTP/2 like that with every request. httptools takes the body for the
        other protocol, and reads no further.
        """
        rest = self._fed(data)
        while rest is not None and self._upgrade:
            rest = self._fed(self._without_upgrade() + rest)

    def _fed(self, data: bytes) -> Optional[bytes]:
        """Parse bytes up to the end of such a head; return what follows it, None if all is read."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest: bytes = data[upgrade.args[0] :]
            return rest
        except httptools.HttpParserError:
            self.send_400_response("")
        return None

    def _without_upgrade(self) -> bytes:
        """The head that was read, without its wish for another protocol, for a new parser."""
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
        for name, value in self.headers:
            if name == b"connection":
                kept = [each.strip() for each in value.split(b",")]
                value = b", ".join(each for each in kept if each.lower() not in _UPGRADE)  # noqa: PLW2901 - the header that is kept
            if name not in _UPGRADE and value:
                lines.append(name + b": " + value)
        self._upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join((*lines, b"", b""))

    def _enter(self, state: int, seconds: float) -> None:
        self._state = state
        self.expires = self._all.now + seconds

    def _let_go(self) -> None:
        if self._held:
            self._all.give_back(self._held)
            self._held = 0

    def _error_in_head(self) -> Optional[RequestError]:
        limit = self._limits.head_bytes
        # Part of a body may have arrived with it, so add up the sizes only where it may matter.
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

    def _begun(self) -> Union[Invocation, bytes, None]:
        """What the request is answered with directly; None for all that uvicorn must handle."""
        if self._direct is None:
            return None
        if self.cycle is not None and not self.cycle.response_complete:  # it must wait its turn
            return None
        if self.expect_100_continue or not self.parser.should_keep_alive():
            return None
        if self.flow.write_paused or self.parser.should_upgrade():
            return None
        return self._direct.begin(self.parser.get_method(), self.url, self.headers)

    def _refuse(self, error: RequestError) -> None:
        """Answer with an error, then close; an earlier request is still answered, this one not."""
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
        if state == _REST:  # it has been answered
            self.transport.abort()
            return
        method = self.parser.get_method() if state == _HEAD else b""
        self.transport.write(_as_bytes(error, with_body=method != b"HEAD"))
        self.transport.write_eof()


class _Exchange:
    """An invocation and its answer, in the place of uvicorn's ``RequestResponseCycle``."""

    response_started = False  # both parts of the answer are sent together

    def __init__(self, connection: Connection, direct: Any, invocation: Invocation) -> None:
        self.response_complete = self.disconnected = self.waiting_for_100_continue = False
        self.keep_alive = True
        self.body = b""
        self.message_event = _NOBODY_WAITS
        self._connection = connection
        self._direct = direct
        self._invocation = invocation

    def start(self) -> None:
        """The body is complete."""
        self._direct.invoke(self._invocation, self.body, self._reply)

    def abandon(self) -> None:
        """The client is gone."""
        self._direct.abandon(self._invocation)

    def _reply(self, answer: Answer) -> None:
        self.response_complete = True
        self._connection.send(answer, self._invocation.id, keep_alive=self.keep_alive)


class _Event:
    """Stands in for an event that nobody waits for."""

    def set(self) -> None:
        """Do nothing."""


_NOBODY_WAITS = _Event()


def _as_bytes(error: RequestError, *, with_body: bool) -> bytes:
    """An error as the last answer of a connection."""
    answer = refuse(error)
    head = _head(answer, os.urandom(8).hex(), (), keep_alive=False)
    return head + answer.body if with_body else head


def _head(
    answer: Answer, request: str, headers: Sequence[Tuple[bytes, bytes]], *, keep_alive: bool
) -> bytes:
    """The status line and headers of an answer; ``request`` is its id."""
    lines = [
        f"HTTP/1.1 {_STATUS_LINES[answer.status]}",
        *(f"{name.decode()}: {value.decode()}" for name, value in headers),
        f"content-type: {answer.content_type}",
        f"content-length: {len(answer.body)}",
        *([] if answer.retry_after is None else [f"retry-after: {answer.retry_after}"]),
        f"x-request-id: {request}",
        *([] if keep_alive else ["connection: close"]),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("ascii")


_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Gathering(asyncio.Transport):
    """Combines the writes of one event loop step, and sends them after it."""

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
        """Send what is pending, then close."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Send what is pending, and then no more."""
        self._flush()
        try:
            self._transport.write_eof()
        except OSError:  # the client reset the connection, which asyncio has not noticed yet
            self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """How many bytes the client has not read yet."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._gathered))

    def abort(self) -> None:
        """Close at once."""
        self._gathered.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Optional[Any] = None) -> Any:
        """Information about the real transport."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass the connection to another protocol."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that has the connection."""
        return self._transport.get_protocol()

    def pause_reading(self) -> None:
        """Read nothing more."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def _flush(self) -> None:
        if self._gathered:
            data = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
            self._gathered.clear()
            self._transport.write(data)

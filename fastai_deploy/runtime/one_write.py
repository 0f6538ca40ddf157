"""uvicorn's protocol with less work for the answers: one write each, and refusals without a task.

Each write is a system call and a packet, and wakes the client. To refuse a request took 71 us of a
core with two and 61 with one, and its client 48 and 41 (2 cores, 16 clients, medians of 3).
"""

from __future__ import annotations

import asyncio
from typing import Any, List, Optional

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Read into by all connections in turn. asyncio would take 256 KiB from the system for each read and
# give most of it back: a third of what a refusal cost, and each time the cores that run the model
# must forget the pages, too.
_RECEIVED = memoryview(bytearray(65_536))


class OneWrite(HttpToolsProtocol, asyncio.BufferedProtocol):
    """uvicorn's protocol, on a transport that gathers.

    The application is asked first whether it would refuse a request whatever its body says
    (``refused``): then the answer goes out at once, and the body is skipped.
    """

    _refused = False

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the event loop puts what has come: it is taken out before anything else comes."""
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what has come."""
        self.data_received(bytes(_RECEIVED[:nbytes]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(Gathering(transport, self.loop))

    def on_headers_complete(self) -> None:
        """Refuse a request, or start it."""
        answer = self._refusal()
        self._refused = answer is not None
        if answer is None:
            super().on_headers_complete()
        else:
            self.transport.write(answer)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request, or give the body out."""
        if self._refused:
            self.on_response_complete()
        else:
            super().on_message_complete()

    def _refusal(self) -> Optional[bytes]:
        """What refuses a request; None for all that needs uvicorn's care."""
        if self.cycle is not None and not self.cycle.response_complete:  # it must wait for its turn
            return None
        if self.expect_100_continue or not self.parser.should_keep_alive():
            return None
        app: Any = self.config.app
        refusal: Optional[bytes] = app.refused(self.parser.get_method(), self.url, self.headers)
        return refusal


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

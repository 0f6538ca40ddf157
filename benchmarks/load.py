"""A load generator: raw HTTP/1.1 on non-blocking sockets, in closed and open loops.

A request is one prepared byte string; answers are parsed by httptools, which is C. The server
shares the cores, so every result includes the CPU that this process used; asyncio would use half as
much again.
"""

from __future__ import annotations

import itertools
import json
import random
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools
import numpy as np

_MOST_CONNECTIONS = 12_000
_SEED = 20261125
WARM_UP = 0.2  # of the time of a closed loop, before it
_PATIENCE = 10.0  # seconds to wait for outstanding answers after the end
_Done = Callable[[int, int], None]  # status (0: no answer), 1 if there was a Retry-After


@dataclass
class Load:
    """The result of a load: ``latencies`` of the answered requests, in seconds."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    with_retry_after: int = 0
    unanswered: int = 0
    """Requests of an open loop without an answer at its end."""
    seconds: float = 0.0
    client: float = 0.0
    """Cores that the load generator used."""

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float | None:
        """A percentile of the latencies in ms; None without answers."""
        if not self.latencies:
            return None
        return float(np.percentile(self.latencies, percent)) * 1000


def text_body(text: str) -> object:
    """The request body that fdeploy's server reads."""
    return {"text": text}


def requests_of(
    texts: Sequence[str], path: str, body: Callable[[str], object] = text_body
) -> list[bytes]:
    """One request per text, as bytes; ``body`` gives its JSON value."""
    bodies = [json.dumps(body(text)).encode() for text in texts]
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return [f"{head}content-length: {len(each)}\r\n\r\n".encode() + each for each in bodies]


def closed_loop(
    port: int, requests: Sequence[bytes], clients: int, seconds: float, *, least: int, most: float
) -> Load:
    """Load a server with clients that each send a request when the previous one is answered.

    The warm-up, a fifth of ``seconds``, is not counted. The load runs longer than ``seconds`` if
    fewer than ``least`` answers have arrived, but at most ``most`` seconds. At the end it waits for
    the outstanding requests.
    """
    with closing(_Sockets(port)) as sockets:
        return _Closed(sockets, requests).run(clients, seconds, least, most)


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, *, settle: float, wait: bool
) -> Load:
    """Load a server with requests at random times (Poisson), without waiting for answers.

    Latencies count from when a request was due; those of the first ``settle`` seconds are not
    counted. With ``wait``, the load waits for all counted requests; otherwise only answers within
    the time count.
    """
    with closing(_Sockets(port)) as sockets:
        return _Open(sockets, requests, wait=wait).run(rate, seconds, settle)


class _Sockets:
    """All connections and their selector; ``step`` handles the events that are ready."""

    def __init__(self, port: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.idle: list[_Connection] = []
        self.open: set[_Connection] = set()
        self._port = port

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self.open):
            connection.close()
        self.selector.close()

    def send(self, request: bytes, done: _Done) -> None:
        """Send on an idle connection or a new one; call ``done(0, 0)`` at the connection limit."""
        if self.idle:
            self.idle.pop().send(request, done)
        elif len(self.open) < _MOST_CONNECTIONS:
            _Connection(self, self._port).send(request, done)
        else:
            done(0, 0)

    def step(self, timeout: float) -> None:
        """Handle events; wait at most ``timeout`` seconds for the first."""
        for key, events in self.selector.select(timeout):
            key.data(events)


class _Connection:
    """One connection with one request at a time."""

    def __init__(self, sockets: _Sockets, port: int) -> None:
        self._sockets = sockets
        self._socket = socket.socket()
        self._socket.settimeout(0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect_ex(("127.0.0.1", port))
        self._parser = httptools.HttpResponseParser(self)
        self._done: _Done = lambda _status, _retry: None
        self._retry = 0
        sockets.open.add(self)
        sockets.selector.register(self._socket, selectors.EVENT_READ, self._ready)

    def send(self, request: bytes, done: _Done) -> None:
        """Send a request; it is small enough for one ``send`` once the connection is up."""
        self._done, self._retry = done, 0
        try:
            self._socket.send(request)
        except BlockingIOError:
            self._request = request
            self._sockets.selector.modify(self._socket, selectors.EVENT_WRITE, self._ready)
        except OSError:
            self._end()

    def close(self) -> None:
        self._sockets.open.discard(self)
        self._sockets.selector.unregister(self._socket)
        self._socket.close()

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._sockets.selector.modify(self._socket, selectors.EVENT_READ, self._ready)
            self.send(self._request, self._done)
            return
        try:
            data = self._socket.recv(65536)
        except OSError:
            data = b""
        if data:
            self._parser.feed_data(data)
        else:
            self._end()

    def _end(self) -> None:
        """The server closed the connection; a request on it gets no answer."""
        self.close()
        if self in self._sockets.idle:
            self._sockets.idle.remove(self)
        else:
            self._done(0, 0)

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry = 1

    def on_message_complete(self) -> None:
        if self._parser.should_keep_alive():
            self._sockets.idle.append(self)
        else:
            self.close()
        self._done(self._parser.get_status_code(), self._retry)


class _Closed:
    def __init__(self, sockets: _Sockets, requests: Sequence[bytes]) -> None:
        self._sockets = sockets
        self._requests = itertools.cycle(requests)
        self._load = Load()
        self._under_way = 0
        self._counting = self._over = False

    def run(self, clients: int, seconds: float, least: int, most: float) -> Load:
        for _ in range(clients):
            self._ask()
        self._until(time.perf_counter() + seconds * WARM_UP)
        self._counting = True
        began, used = time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - began) < most:
            if passed >= seconds and len(self._load.latencies) >= least:
                break
            self._sockets.step(0.02)
        self._over = True
        self._load.seconds = time.perf_counter() - began
        self._load.client = (time.process_time() - used) / self._load.seconds
        end = time.perf_counter() + _PATIENCE
        while self._under_way and time.perf_counter() < end:
            self._sockets.step(0.02)
        return self._load

    def _until(self, moment: float) -> None:
        while time.perf_counter() < moment:
            self._sockets.step(0.02)

    def _ask(self) -> None:
        started = time.perf_counter()
        self._under_way += 1

        def done(status: int, _retry: int) -> None:
            self._under_way -= 1
            if self._over:
                return
            if self._counting:
                self._load.statuses[status] += 1
                if status == HTTPStatus.OK:
                    self._load.latencies.append(time.perf_counter() - started)
            self._ask()

        self._sockets.send(next(self._requests), done)


class _Open:
    def __init__(self, sockets: _Sockets, requests: Sequence[bytes], *, wait: bool) -> None:
        self._sockets = sockets
        self._requests = itertools.cycle(requests)
        self._wait = wait
        self._load = Load()
        self._waiting = 0  # counted requests without an answer
        self._under_way = 0  # all requests without an answer
        self._counting = False  # whether answers count now, if only the time decides

    def run(self, rate: float, seconds: float, settle: float) -> Load:
        chance = random.Random(_SEED)  # noqa: S311  # the times of requests are not secret
        began = due = time.perf_counter()
        used = 0.0
        counted_from = 0.0
        while due < began + settle + seconds:
            now = time.perf_counter()
            if not counted_from and now >= began + settle:
                counted_from, used = now, time.process_time()
                self._counting = True
            while due <= now:
                self._send(due, counted=due >= began + settle)
                due += chance.expovariate(rate)
            self._sockets.step(max(0.0, due - time.perf_counter()))
        self._counting = False
        self._load.seconds = time.perf_counter() - counted_from
        self._load.client = (time.process_time() - used) / self._load.seconds
        end = time.perf_counter() + _PATIENCE
        while self._wait and self._waiting and time.perf_counter() < end:
            self._sockets.step(0.02)
        self._load.unanswered = self._under_way
        return self._load

    def _send(self, due: float, *, counted: bool) -> None:
        self._waiting += counted
        self._under_way += 1

        def done(status: int, retry: int) -> None:
            self._waiting -= counted
            self._under_way -= 1
            if counted if self._wait else self._counting:
                self._load.statuses[status] += 1
                self._load.with_retry_after += retry
                if status == HTTPStatus.OK:
                    self._load.latencies.append(time.perf_counter() - due)

        self._sockets.send(next(self._requests), done)

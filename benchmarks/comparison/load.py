"""The load: raw HTTP/1.1 over asyncio, in closed and open loops, with its own cost told.

A request is one prepared string of bytes; an answer goes through httptools, which is C. What this
process takes of the cores while it loads stands in every result, since the server shares them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools
import numpy as np

_MOST_CONNECTIONS = 12_000
_SEED = 20261125
_Done = Callable[[int, int], None]  # status, 0 without an answer; 1 with a Retry-After


@dataclass
class Load:
    """What a load met: ``latencies`` of the answered requests, in seconds."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    with_retry_after: int = 0
    unanswered: int = 0
    """Requests of an open loop that had no answer at its end."""
    seconds: float = 0.0
    client: float = 0.0
    """Cores that the load itself took."""

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float | None:
        """In milliseconds."""
        if not self.latencies:
            return None
        return float(np.percentile(self.latencies, percent)) * 1000


def requests_of(texts: Sequence[str], path: str) -> list[bytes]:
    """A request for each text, as bytes."""
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return [f"{head}content-length: {len(each)}\r\n\r\n".encode() + each for each in bodies]


def closed_loop(
    port: int, requests: Sequence[bytes], clients: int, seconds: float, *, least: int, most: float
) -> Load:
    """Each client sends its next request when the last one is answered.

    A warm-up of a fifth is not counted. The load goes on beyond ``seconds`` until ``least`` answers
    have come, but for ``most`` seconds only. Requests under way at the end are waited for.
    """
    return asyncio.run(_Closed(port, requests, clients).run(seconds, least, most))


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, *, settle: float, wait: bool
) -> Load:
    """Requests come at random moments (Poisson), whether or not those before are answered.

    Latencies count from the moment at which a request was due. Those of the first ``settle``
    seconds are not counted. With ``wait``, latencies of all counted requests are waited for, else
    what is answered within the time is what counts.
    """
    return asyncio.run(_Open(port, requests).run(rate, seconds, settle, wait=wait))


class _Connection(asyncio.Protocol):
    """One connection with one request under way at a time; ``done(status, retry)`` ends it."""

    def __init__(self) -> None:
        self.done: _Done = lambda _status, _retry: None
        self._renew()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # what TCP gives
        self.transport = transport
        self.closed = False

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True
        self.done(0, 0)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry = 1

    def on_message_complete(self) -> None:
        status, retry = self._parser.get_status_code(), self._retry
        if not self._parser.should_keep_alive():
            self.transport.close()
            self.closed = True
        self._renew()
        self.done(status, retry)

    def send(self, request: bytes, done: _Done) -> None:
        self.done = done
        self.transport.write(request)

    def _renew(self) -> None:
        self._retry = 0
        self._parser = httptools.HttpResponseParser(self)


async def _connect(port: int) -> _Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
    return connection


class _Closed:
    def __init__(self, port: int, requests: Sequence[bytes], clients: int) -> None:
        self._port = port
        self._requests = itertools.cycle(requests)
        self._clients = clients
        self._load = Load()
        self._counting = self._over = False

    async def run(self, seconds: float, least: int, most: float) -> Load:
        clients = [asyncio.create_task(self._client()) for _ in range(self._clients)]
        await asyncio.sleep(seconds / 5)
        self._counting = True
        began, used = time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - began) < most:
            if passed >= seconds and len(self._load.latencies) >= least:
                break
            await asyncio.sleep(0.02)
        self._over = True
        self._load.seconds = time.perf_counter() - began
        self._load.client = (time.process_time() - used) / self._load.seconds
        await asyncio.gather(*clients)
        return self._load

    async def _client(self) -> None:
        connection = await _connect(self._port)
        loop = asyncio.get_running_loop()
        while not self._over:
            if connection.closed:
                connection = await _connect(self._port)
            answered: asyncio.Future[tuple[int, int]] = loop.create_future()
            started = time.perf_counter()
            connection.send(next(self._requests), _once(answered))
            status, _retry = await answered
            if self._counting and not self._over:
                self._load.statuses[status] += 1
                if status == HTTPStatus.OK:
                    self._load.latencies.append(time.perf_counter() - started)
        connection.transport.abort()


def _once(answered: asyncio.Future[tuple[int, int]]) -> _Done:
    def done(status: int, retry: int) -> None:
        if not answered.done():
            answered.set_result((status, retry))

    return done


class _Open:
    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port = port
        self._requests = itertools.cycle(requests)
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._load = Load()
        self._waiting = 0  # counted requests without an answer
        self._under_way = 0  # all requests without one
        self._counting = False  # answers that come now, where only the time counts
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float, settle: float, *, wait: bool) -> Load:
        chance = random.Random(_SEED)  # noqa: S311  # when requests come is no secret
        began = due = time.perf_counter()
        used = 0.0
        counted_from = 0.0
        while due < began + settle + seconds:
            now = time.perf_counter()
            if not counted_from and now >= began + settle:
                counted_from, used = now, time.process_time()
                self._counting = True
            if due > now:
                await asyncio.sleep(due - now)
                continue
            self._send(due, counted=due >= began + settle, by_request=wait)
            due += chance.expovariate(rate)
            if now - due > 0:
                await asyncio.sleep(0)
        self._counting = False
        self._load.seconds = time.perf_counter() - counted_from
        self._load.client = (time.process_time() - used) / self._load.seconds
        for _ in range(500 if wait else 0):
            if not self._waiting:
                break
            await asyncio.sleep(0.02)
        self._load.unanswered = self._under_way
        for task in list(self._connecting):
            task.cancel()
        for connection in self._open:
            connection.transport.abort()
        return self._load

    def _send(self, due: float, *, counted: bool, by_request: bool) -> None:
        self._waiting += counted
        self._under_way += 1

        def done(status: int, retry: int) -> None:
            self._waiting -= counted
            self._under_way -= 1
            if counted if by_request else self._counting:
                self._load.statuses[status] += 1
                self._load.with_retry_after += retry
                if status == HTTPStatus.OK:
                    self._load.latencies.append(time.perf_counter() - due)

        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._use(connection, done)
                return
        if len(self._open) + len(self._connecting) < _MOST_CONNECTIONS:
            task = asyncio.create_task(self._connect(done))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        else:
            done(0, 0)

    async def _connect(self, done: _Done) -> None:
        try:
            connection = await _connect(self._port)
        except OSError:
            done(0, 0)
            return
        self._open.add(connection)
        self._use(connection, done)

    def _use(self, connection: _Connection, done: _Done) -> None:
        told = False

        def once(status: int, retry: int) -> None:
            nonlocal told
            if told:
                return
            told = True
            if connection.closed:
                self._open.discard(connection)
            else:
                self._idle.append(connection)
            done(status, retry)

        connection.send(next(self._requests), once)

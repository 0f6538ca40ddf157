"""Sends requests: a closed loop with so many clients, or an open loop at a rate.

In a **closed loop** each client sends its next request when the last one is answered, so the
server sets the pace; this finds the highest throughput. In an **open loop** requests are due at a
fixed rate, whether or not earlier ones are answered, as those of independent callers are. Latency
counts from when a request was due, not from when a client was free to send it: otherwise a server
that stalls would delay its own measurement and look fast ("coordinated omission"; the technique is
that of wrk2, https://github.com/giltene/wrk2).

Threads are enough: a client waits for its answer most of the time, and the load generator measures
the share of a core that it takes itself.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fastai_deploy.load.measure import NO_ANSWER, TIMEOUT, Level, Sample, level_of

OPEN_CLIENTS = 64  # requests that an open loop may have open at once
_WARM_UP, _WARM_UP_SHARE = 1.0, 0.2  # seconds of a level, and its largest share of the level
_DEAD = 10  # requests in a row without an answer, after which no more are sent
_TICK = 0.25  # seconds


class Connection(Protocol):
    """One client's way to the model; not shared by threads."""

    def ask(self, text: str) -> str:
        """Send a text and return the outcome (see ``Sample``). Raises nothing."""

    def abort(self) -> None:
        """End the request in progress and close the connection; called by another thread."""


@dataclass(frozen=True)
class Load:
    """One level: ``rate`` is None for a closed loop. ``requests`` and ``seconds`` bound it."""

    clients: int
    seconds: float
    requests: int | None = None
    rate: float | None = None

    @property
    def warm_up(self) -> float:
        """The seconds at the beginning whose requests are left out."""
        return min(_WARM_UP, _WARM_UP_SHARE * self.seconds)


@dataclass(frozen=True)
class Measured:
    """A level as far as it came. ``dead``: the server stopped answering."""

    level: Level
    dead: bool
    interrupted: bool


@dataclass
class _Shared:
    """What the clients of a level share; ``next`` of a count is atomic in CPython."""

    texts: Sequence[str]
    began: float
    warm: float  # when the warm-up ends
    deadline: float
    stop: threading.Event = field(default_factory=threading.Event)
    turns: itertools.count[int] = field(default_factory=itertools.count)
    counted: itertools.count[int] = field(default_factory=itertools.count)
    unanswered: int = 0
    dead: bool = False

    def seen(self, outcome: str) -> None:
        """Stop when requests are not answered any more."""
        self.unanswered = self.unanswered + 1 if outcome in (NO_ANSWER, TIMEOUT) else 0
        if self.unanswered >= _DEAD:
            self.dead = True
            self.stop.set()


def run(
    load: Load,
    texts: Sequence[str],
    connect: Callable[[], Connection],
    *,
    tick: Callable[[Level], None] = lambda _level: None,
    clock: Callable[[], float] = time.perf_counter,
    own_cpu: Callable[[], float] | None = time.process_time,
) -> Measured:
    """Run one level and measure it; Ctrl-C ends it early and keeps what was measured.

    ``tick`` gets the figures so far several times a second. ``own_cpu`` counts the seconds of
    processor time of this process, None if they are not those of the load generator alone.
    """
    connections = [connect() for _ in range(load.clients)]
    samples: list[list[Sample]] = [[] for _ in connections]
    began = clock()
    shared = _Shared(texts, began, began + load.warm_up, began + load.seconds)
    client = _closed if load.rate is None else _open
    threads = [
        threading.Thread(target=client, args=(load, shared, each, into, clock), daemon=True)
        for each, into in zip(connections, samples, strict=True)
    ]
    before = own_cpu() if own_cpu else 0.0

    def level() -> Level:
        done = [sample for each in samples for sample in tuple(each)]
        elapsed = max(clock() - began, 1e-9)
        until = min(load.seconds, max((sample.ended for sample in done), default=0.0))
        cpu = (own_cpu() - before) / elapsed if own_cpu else None
        warm_up = 0.0 if until <= load.warm_up else load.warm_up
        return level_of(
            done, clients=load.clients, rate=load.rate, warm_up=warm_up, until=until, cpu=cpu
        )

    interrupted = False
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK)
                tick(level())
    except KeyboardInterrupt:
        interrupted = True
        shared.stop.set()
    finally:
        for connection in connections:
            connection.abort()
    return Measured(level(), shared.dead, interrupted)


def _closed(
    load: Load,
    shared: _Shared,
    connection: Connection,
    into: list[Sample],
    clock: Callable[[], float],
) -> None:
    while not shared.stop.is_set():
        sent = clock()
        if sent >= shared.deadline:
            return
        is_counted = sent >= shared.warm and load.requests is not None
        if is_counted and next(shared.counted) >= (load.requests or 0):
            return
        _ask(shared, connection, into, sent, clock)


def _open(
    load: Load,
    shared: _Shared,
    connection: Connection,
    into: list[Sample],
    clock: Callable[[], float],
) -> None:
    rate = load.rate or 1.0
    skipped = int(load.warm_up * rate)
    while not shared.stop.is_set():
        slot = next(shared.counted)
        due = shared.began + slot / rate
        if due >= shared.deadline or (
            load.requests is not None and slot >= skipped + load.requests
        ):
            return
        if shared.stop.wait(max(0.0, due - clock())):
            return
        _ask(shared, connection, into, due, clock)


def _ask(
    shared: _Shared,
    connection: Connection,
    into: list[Sample],
    due: float,
    clock: Callable[[], float],
) -> None:
    outcome = connection.ask(shared.texts[next(shared.turns) % len(shared.texts)])
    ended = clock()
    if shared.stop.is_set() and outcome in (NO_ANSWER, TIMEOUT):
        return  # it was ended, so this says nothing about the server
    into.append(Sample(due - shared.began, ended - due, outcome))
    shared.seen(outcome)

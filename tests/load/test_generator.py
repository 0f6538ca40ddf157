"""The load generator, on connections made up for the test and on a real server."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fastai_deploy.errors import InvocationError
from fastai_deploy.load.connections import HttpConnection, bodies_of
from fastai_deploy.load.generator import Connection, Load, run
from fastai_deploy.load.measure import NO_ANSWER, OK, Level
from fastai_deploy.targets.base import Route


@dataclass
class Clock:
    """A clock that only the connections move on."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scripted:
    """A connection whose answers take as long as the script says."""

    clock: Clock
    seconds: Iterator[tuple[float, str]]
    asked: list[str] = field(default_factory=list)

    def ask(self, text: str) -> str:
        self.asked.append(text)
        taken, outcome = next(self.seconds)
        self.clock.now += taken
        return outcome

    def abort(self) -> None:
        pass


def always(seconds: float, outcome: str = OK) -> Iterator[tuple[float, str]]:
    while True:
        yield seconds, outcome


def test_a_closed_loop_sends_when_the_last_answer_is_there() -> None:
    clock = Clock()
    connection = Scripted(clock, always(0.1))
    measured = run(
        Load(clients=1, seconds=5), ["a", "b"], lambda: connection, clock=clock, own_cpu=None
    )
    assert connection.asked[:4] == ["a", "b", "a", "b"]
    assert 39 <= measured.level.requests <= 41  # 10 a second for 4 s; the first second is warm-up
    assert measured.level.throughput == pytest.approx(10, rel=0.05)
    assert measured.level.p99_ms == pytest.approx(100)
    assert not measured.dead


def test_the_number_of_requests_is_a_bound() -> None:
    clock = Clock()
    connection = Scripted(clock, always(0.25))
    measured = run(Load(clients=1, seconds=60, requests=7), ["a"], lambda: connection, clock=clock)
    assert measured.level.requests == 7
    assert measured.level.warm_up == 4


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    """One stall of two seconds delays the requests after it, which all show that."""
    clock = Clock()
    stalls = iter([(0.0, OK)] * 20 + [(2.0, OK)] + [(0.0, OK)] * 1000)

    class Stalling(Scripted):
        def ask(self, text: str) -> str:
            outcome = super().ask(text)
            if self.clock.now < 2:
                self.clock.now += 0.1  # the next one is due, so nothing waits
            return outcome

    connection = Stalling(clock, stalls)
    measured = run(
        Load(clients=1, seconds=4, rate=10), ["a"], lambda: connection, clock=clock, own_cpu=None
    )
    level = measured.level
    assert level.max_ms == pytest.approx(2000, rel=0.01)
    late = [each for each in level.distribution if each.to_ms > 100]
    # A closed loop would have seen one slow answer; here nineteen later requests waited, too.
    assert sum(each.requests for each in late) > 15


def test_a_dead_server_ends_the_level() -> None:
    clock = Clock()
    answers = iter([(0.25, OK)] * 14 + [(0.25, NO_ANSWER)] * 1000)
    connection = Scripted(clock, answers)
    measured = run(Load(clients=1, seconds=60), ["a"], lambda: connection, clock=clock)
    assert measured.dead
    assert not measured.interrupted
    assert measured.level.errors == {NO_ANSWER: 10}
    assert measured.level.requests - measured.level.failed == 10


def test_ctrl_c_keeps_what_was_measured() -> None:
    clock = Clock()
    begun, ended = threading.Event(), threading.Event()

    class Hanging(Scripted):
        def ask(self, text: str) -> str:
            if self.clock.now > 3:
                begun.set()
                ended.wait()
                return NO_ANSWER
            return super().ask(text)

        def abort(self) -> None:
            ended.set()

    def tick(_level: Level) -> None:
        begun.wait()
        raise KeyboardInterrupt

    connection = Hanging(clock, always(0.1))
    measured = run(Load(clients=1, seconds=60), ["a"], lambda: connection, clock=clock, tick=tick)
    assert measured.interrupted
    assert measured.level.requests > 15
    assert measured.level.errors == {}


class Server(ThreadingHTTPServer):
    """A server whose answers a test decides; counts the connections."""

    daemon_threads = True
    answer: Callable[[int], tuple[int, dict[str, object]]]
    asked = 0
    opened = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.opened += 1

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        assert set(json.loads(self.rfile.read(size))) == {"text"}
        self.server.asked += 1
        status, body = self.server.answer(self.server.asked)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        if status == 500:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving(answer: Callable[[int], tuple[int, dict[str, object]]]) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as server:
        server.answer = staticmethod(answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def connecting(server: Server, route: Route | None = None) -> Callable[[], Connection]:
    found = route or Route(f"http://127.0.0.1:{server.server_port}/classify", lambda _body: {})
    bodies = bodies_of(["one text"])
    return lambda: HttpConnection(found, bodies)


def test_each_client_keeps_its_connection() -> None:
    with serving(lambda _asked: (200, {"label": "good"})) as server:
        measured = run(
            Load(clients=3, seconds=60, requests=30),
            ["one text"],
            connecting(server),
            clock=Ticking(),
        )
        assert measured.level.requests == 30
        assert measured.level.errors == {}
        assert server.opened == 3


class Ticking:
    """A clock that moves on by 10 ms whenever it is read, so that a test never waits."""

    def __init__(self) -> None:
        self.reads = Counter[str]()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            self.reads["all"] += 1
            return self.reads["all"] / 100


def test_errors_are_counted_by_status_and_not_sent_again() -> None:
    answers: dict[int, tuple[int, dict[str, object]]] = {
        1: (429, {}),
        2: (503, {}),
        3: (424, {"OriginalStatusCode": 503}),
        4: (500, {}),
    }
    with serving(lambda asked: answers.get(asked % 5, (200, {}))) as server:
        connection = connecting(server)()
        outcomes = [connection.ask("one text") for _ in range(10)]
        connection.abort()
        assert outcomes == ["429", "503", "503", "500", OK] * 2
        assert server.asked == 10
        assert server.opened == 3  # a connection that the server closed is opened again


def test_nothing_is_sent_to_another_program() -> None:
    def refuse() -> None:
        raise InvocationError("not ours", hint="none")

    with serving(lambda _asked: (200, {})) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        connection = connecting(server, Route(url, lambda _body: {}, refuse))()
        assert connection.ask("one text") == NO_ANSWER
        assert server.asked == 0


def test_without_a_server_there_is_no_answer() -> None:
    with serving(lambda _asked: (200, {})) as server:
        connect = connecting(server)
    measured = run(Load(clients=2, seconds=60), ["one text"], connect)
    assert measured.dead
    assert set(measured.level.errors) <= {NO_ANSWER}

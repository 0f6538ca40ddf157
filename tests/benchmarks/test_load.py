from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load import closed_loop, open_loop, requests_of

TEXTS = ["one", "two words"]


class Answerer(BaseHTTPRequestHandler):
    """Refuses every third request; closes the connection after every fifth."""

    protocol_version = "HTTP/1.1"
    texts: list[str]
    numbers: Iterator[int]

    def do_POST(self) -> None:
        number = next(self.numbers)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.texts.append(body["text"])
        refused = number % 3 == 0
        self.send_response(503 if refused else 200)
        if refused:
            self.send_header("Retry-After", "1")
        if number % 5 == 0:
            self.send_header("connection", "close")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    kind = type("Counting", (Answerer,), {"texts": [], "numbers": itertools.count(1)})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_a_closed_loop_counts_answers_and_refusals(server: ThreadingHTTPServer) -> None:
    requests = requests_of(TEXTS, "/any")
    met = closed_loop(server.server_port, requests, 2, 0.2, least=30, most=30.0)
    assert len(met.latencies) == met.statuses[200] >= 30
    assert met.statuses[503] == pytest.approx(met.statuses[200] / 2, abs=2)
    assert set(met.statuses) == {200, 503}
    assert met.rate == len(met.latencies) / met.seconds
    assert set(server.RequestHandlerClass.texts) == set(TEXTS)  # type: ignore[attr-defined]


def test_an_open_loop_sends_what_is_due_and_waits_for_it(server: ThreadingHTTPServer) -> None:
    requests = requests_of(TEXTS, "/any")
    met = open_loop(server.server_port, requests, 200.0, 0.5, settle=0.1, wait=True)
    assert met.unanswered == 0
    assert set(met.statuses) == {200, 503}
    assert met.with_retry_after == met.statuses[503]
    # As many as the seed says, however slow the machine is.
    assert sum(met.statuses.values()) == pytest.approx(100, abs=30)


def test_an_unreachable_server_gives_no_answer() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answerer) as gone:
        port = gone.server_port
    met = open_loop(port, requests_of(TEXTS, "/any"), 100.0, 0.2, settle=0.0, wait=True)
    assert not met.latencies
    assert set(met.statuses) == {0}

"""A server's answers against the learner's own, asked over HTTP as the comparison does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.comparison.answers import Answers, answers_right, check
from benchmarks.comparison.competitors.base import Competitor, Failed, Launch, Site
from benchmarks.comparison.models import Known

KNOWN = (
    Known("dull", {"bad": 0.9, "good": 0.1}, "bad"),
    Known("fine", {"bad": 0.4, "good": 0.6}, "bad"),
    Known("superb", {"bad": 0.0, "good": 1.0}, "good"),
)


def test_labels_accuracy_and_differences() -> None:
    found = Answers.of(
        [{"bad": 0.8, "good": 0.2}, {"bad": 0.6, "good": 0.4}, {"bad": 0.0, "good": 1.0}], KNOWN
    )
    assert (found.texts, found.changed, found.accuracy) == (3, 1, 1.0)
    assert found.worst == pytest.approx(0.2)
    assert found.mean == pytest.approx(0.1)
    assert found.mean < found.p99 <= found.worst


def test_without_true_labels_there_is_no_accuracy() -> None:
    known = (Known("dull", {"bad": 0.9, "good": 0.1}),)
    assert Answers.of([{"bad": 0.9, "good": 0.1}], known).accuracy is None


def _never(_site: Site) -> Launch:
    raise AssertionError


COMPETITOR = Competitor(
    "any",
    "Any",
    "A server with a format of its own.",
    _never,
    path="/classify",
    body=lambda text: {"input": [text]},
    read=lambda body: {each["label"]: each["score"] for each in body["data"]},
)


@contextmanager
def answering(answers: Mapping[str, Mapping[str, float]]) -> Iterator[int]:
    """The port of a server with these probabilities by text; 500 for other texts."""

    class Answerer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = answers.get(request["input"][0]) if self.path == "/classify" else None
            scores = [{"label": label, "score": p} for label, p in (found or {}).items()]
            body = json.dumps({"data": scores}).encode()
            self.send_response(200 if found else 500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answerer) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_server_with_the_learners_answers_passes() -> None:
    with answering({each.text: each.probabilities for each in KNOWN}) as port:
        assert answers_right(port, COMPETITOR, KNOWN[0])
        found = check(port, COMPETITOR, KNOWN)
    assert (found.changed, found.worst) == (0, 0.0)
    assert found.accuracy == pytest.approx(2 / 3)


def test_a_server_with_other_labels_is_not_measured() -> None:
    turned = {each.text: {"bad": 1.0, "good": 0.0} for each in KNOWN}
    with answering(turned) as port:
        assert not answers_right(port, COMPETITOR, KNOWN[2])
        with pytest.raises(Failed, match="2 of 3 labels are wrong"):
            check(port, COMPETITOR, KNOWN)


def test_a_server_that_leaves_out_an_answer_is_not_measured() -> None:
    with answering({KNOWN[0].text: KNOWN[0].probabilities}) as port, pytest.raises(Failed) as found:
        check(port, COMPETITOR, KNOWN)
    assert str(found.value).startswith("500")

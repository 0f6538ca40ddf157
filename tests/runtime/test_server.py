"""The real server process over real HTTP: its answers."""

from __future__ import annotations

import http.client
import json
import os
import queue
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.runtime.bundles import PANIC, WORDS, TinyBundle, panicking, wordpiece, write_bundle
from tests.runtime.server_process import Reply, ServerProcess, ask, serving, until

MEGABYTE = 1_000_000
NOISE = 1e-6
UNTAKEABLE = "untakeable"


@dataclass(frozen=True)
class Tiny:
    """A tiny bundle and the server that serves it."""

    bundle: TinyBundle
    server: ServerProcess

    def right(self, answer: Any, text: str) -> bool:
        """Whether an answer is correct for this text."""
        expected = pytest.approx(self.bundle.expected(text), abs=NOISE)
        return bool(answer["probabilities"] == expected)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    folder = tmp_path_factory.mktemp("server")
    bundle = write_bundle(folder / "bundle", rows_left_out=1, tokenizer=untakeable_tokenizer())
    with serving(
        folder / "bundle",
        folder / "announced",
        *("--alias", "/ask=/invocations", "--alias", "/-/healthz=/ping"),
        environ={"FDEPLOY_VERSION": "3f2a9c01b7de"},
    ) as server:
        yield Tiny(bundle, server)


def untakeable_tokenizer() -> Any:
    """A tokenizer whose last word has no row in the embedding, so that the model fails on it."""
    tokenizer = wordpiece()
    tokenizer.add_tokens([UNTAKEABLE])
    return tokenizer


def test_further_paths_of_a_route(tiny: Tiny) -> None:
    text = "a great film"
    answer = tiny.server.request("POST", "/ask", json.dumps({"text": text}).encode())
    assert answer.status == 200
    assert tiny.right(answer.json, text)
    assert tiny.server.request("GET", "/-/healthz").json == tiny.server.request("GET", "/ping").json
    refused = tiny.server.request("GET", "/ask")
    assert (refused.status, refused.headers["allow"]) == (405, "POST")


def test_it_announces_its_pid_and_port(tiny: Tiny) -> None:
    announced = json.loads(tiny.server.announced.read_text())
    assert announced == {"pid": tiny.server.process.pid, "port": tiny.server.port}


def test_it_listens_on_loopback_only(tiny: Tiny) -> None:
    connections = psutil.Process(tiny.server.process.pid).net_connections()
    listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    assert listening == [("127.0.0.1", tiny.server.port)]


def test_ping(tiny: Tiny) -> None:
    reply = tiny.server.request("GET", "/ping")
    assert reply.status == 200
    assert reply.json == {
        "status": "ready",
        "model": {"name": "tiny", "version": "3f2a9c01b7de"},
    }
    assert tiny.server.request("HEAD", "/ping").body == b""


def test_one_text(tiny: Tiny) -> None:
    reply = tiny.server.post({"text": "a great film"})
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json
    assert tiny.right(answer, "a great film")
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["score"] == answer["probabilities"][answer["label"]]
    assert answer["truncated"] is False
    assert answer["model"] == {"name": "tiny", "version": "3f2a9c01b7de", "precision": "fp32"}


def test_a_batch_with_bad_items(tiny: Tiny) -> None:
    texts = ["a great film", 7, "no", None, f"the {UNTAKEABLE} film", "so poor"]
    reply = tiny.server.post({"texts": texts, "top_k": 3})
    assert reply.status == 200
    codes = [answer.get("error", {}).get("code") for answer in reply.json]
    assert codes == [None, "invalid_request", None, "invalid_request", "model_error", None]
    for place in (0, 2, 5):
        assert tiny.right(reply.json[place], str(texts[place]))


def test_top_k(tiny: Tiny) -> None:
    assert len(tiny.server.post({"text": "no", "top_k": 1}).json["probabilities"]) == 1


def test_a_text_that_the_model_cannot_take(tiny: Tiny) -> None:
    reply = tiny.server.post({"text": UNTAKEABLE}, **{"x-request-id": "lookup-1"})
    assert (reply.status, reply.code) == (500, "model_error")
    assert reply.headers["x-request-id"] == "lookup-1"

    def defects() -> list[str]:
        found = [json.loads(line) for line in tiny.server.log if '"defect"' in line]
        return [each["error"] for each in found if each["request"] == "lookup-1"]

    until(defects)  # another thread reads the log, perhaps after the answer
    assert all(defects())


def test_a_text_on_which_the_tokenizer_panics_fails_alone(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", tokenizer=panicking())
    with serving(bundle.folder, tmp_path / "announced") as server:
        reply = server.post({"texts": ["no", PANIC]})
        assert reply.status == 200
        assert reply.json[0]["probabilities"] == pytest.approx(bundle.expected("no"), abs=NOISE)
        assert reply.json[1]["error"]["code"] == "model_error"
        alone = server.post({"text": PANIC})
        assert (alone.status, alone.code) == (500, "model_error")
        assert server.post({"text": "no"}).status == 200


def test_plain_text(tiny: Tiny) -> None:
    body = "caf\u00e9 film".encode("latin-1")
    reply = tiny.server.request(
        "POST", "/invocations", body, {"content-type": "text/plain; charset=iso-8859-1"}
    )
    assert tiny.right(reply.json, "caf\u00e9 film")


@pytest.mark.parametrize("kind", ["application/jsonlines", "application/x-ndjson"])
def test_json_lines_are_answered_line_by_line(tiny: Tiny, kind: str) -> None:
    lines = ['{"text": "a great film"}', "not json", '{"texts": ["no", "yes"]}', '{"text": 1}']
    reply = tiny.server.request(
        "POST", "/invocations", "\n".join(lines).encode(), {"content-type": kind}
    )
    assert (reply.status, reply.headers["content-type"]) == (200, kind)
    assert reply.body.endswith(b"\n")
    first, second, third, fourth = map(json.loads, reply.body.decode().splitlines())
    assert tiny.right(first, "a great film")
    assert second["error"]["code"] == "invalid_json"
    assert tiny.right(third[0], "no")
    assert tiny.right(third[1], "yes")
    assert fourth["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"a great film", {}, 400, "invalid_json"),
        (b"", {}, 400, "invalid_json"),
        (b"[" * 100_000, {}, 400, "invalid_json"),
        (b'{"text": 1}', {}, 422, "invalid_request"),
        (b'{"text": "a"}', {"content-type": "text/html"}, 415, "unsupported_media_type"),
        (b'{"text": "a"}', {"content-encoding": "gzip"}, 415, "unsupported_media_type"),
        (json.dumps({"texts": ["a"] * 1_001}).encode(), {}, 413, "too_large"),
    ],
)
def test_requests_of_the_wrong_kind(
    tiny: Tiny, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    reply = tiny.server.request("POST", "/invocations", body, headers)
    assert (reply.status, reply.code) == (status, code)
    assert set(reply.json["error"]) == {"code", "message", "hint"}


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("POST", "/invocations/", 404, None),
        ("GET", "/invocations", 405, "POST"),
        ("DELETE", "/ping", 405, "GET, HEAD"),
    ],
)
def test_routes(tiny: Tiny, method: str, path: str, status: int, allow: str | None) -> None:
    reply = tiny.server.request(method, path)
    assert (reply.status, reply.headers.get("allow")) == (status, allow)


def test_a_body_of_7_megabytes_is_refused_and_the_connection_lives_on(tiny: Tiny) -> None:
    connection = tiny.server.connect()
    reply = ask(connection, "POST", "/invocations", b" " * 7 * MEGABYTE)
    assert (reply.status, reply.code) == (413, "too_large")
    body = json.dumps({"text": "no"}).encode()
    assert tiny.right(ask(connection, "POST", "/invocations", body).json, "no")
    connection.close()


def test_a_body_without_a_length_is_limited_as_well(tiny: Tiny) -> None:
    small = ask_in_chunks(tiny.server, [b'{"text": ', b'"no"}'])
    assert tiny.right(small.json, "no")
    assert ask_in_chunks(tiny.server, [b" " * MEGABYTE] * 7).status == 413


def ask_in_chunks(server: ServerProcess, chunks: list[bytes]) -> Reply:
    return server.request("POST", "/invocations", iter(chunks))


def test_a_far_too_large_body_is_not_read(tiny: Tiny) -> None:
    connection = tiny.server.connect()
    connection.putrequest("POST", "/invocations")
    connection.putheader("content-length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_text_of_a_megabyte(tiny: Tiny) -> None:
    text = "the plot is thin but " * (MEGABYTE // 21)
    answer = tiny.server.post({"text": text}).json
    assert answer["truncated"] is True
    assert tiny.right(answer, text)


def test_a_megabyte_without_a_space(tiny: Tiny) -> None:
    assert tiny.right(tiny.server.post({"text": "x" * MEGABYTE}).json, "x" * MEGABYTE)


def test_a_thousand_texts(tiny: Tiny) -> None:
    texts = [" ".join(WORDS[: 1 + number % 60]) for number in range(1_000)]
    answers = tiny.server.post({"texts": texts}).json
    assert all(tiny.right(answer, text) for answer, text in zip(answers, texts, strict=True))


def test_each_of_many_clients_gets_its_own_answer(tiny: Tiny) -> None:
    texts = [
        " ".join(WORDS[(number * 7 + place) % len(WORDS)] for place in range(1 + number % 25))
        for number in range(400)
    ]
    idle = queue.SimpleQueue[http.client.HTTPConnection]()
    for _ in range(8):
        idle.put(tiny.server.connect())

    def client(text: str) -> Reply:
        connection = idle.get()
        try:
            body = json.dumps({"text": text}).encode()
            return ask(connection, "POST", "/invocations", body)
        finally:
            idle.put(connection)

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(client, texts))
    for _ in range(8):
        idle.get().close()
    assert {reply.status for reply in replies} == {200}
    assert all(tiny.right(reply.json, text) for reply, text in zip(replies, texts, strict=True))


def test_a_request_id_is_echoed_only_where_it_is_harmless(tiny: Tiny) -> None:
    echoed = tiny.server.post({"text": "no"}, **{"x-request-id": "abc-1"})
    replaced = tiny.server.post({"text": "no"}, **{"x-request-id": "a b\u00e4"})
    assert echoed.headers["x-request-id"] == "abc-1"
    assert len(replaced.headers["x-request-id"]) == 16


def test_metrics_count(tiny: Tiny) -> None:
    before = tiny.server.metric("fdeploy_texts_total")
    tiny.server.post({"texts": ["no", "yes"]})
    assert tiny.server.metric("fdeploy_texts_total") == before + 2
    assert tiny.server.metric('fdeploy_requests_total{status="200"}') > 0
    assert tiny.server.metric("fdeploy_model_runs_total") > 0


def test_bytes_that_are_not_http(tiny: Tiny) -> None:
    with socket.create_connection(("127.0.0.1", tiny.server.port)) as connection:
        connection.sendall(b"\x16\x03\x01 a great film\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert tiny.server.request("GET", "/ping").status == 200


def test_the_log_is_json_without_a_word_of_the_users(tiny: Tiny) -> None:
    tiny.server.post({"text": "xyzzy plugh"})
    tiny.server.request("POST", "/invocations", b"xyzzy plugh")
    tiny.server.post({"text": f"xyzzy {UNTAKEABLE}"})
    tiny.server.request("GET", "/xyzzy")
    known = {"ready", "request", "defect"}
    until(lambda: known <= {json.loads(line)["event"] for line in tiny.server.log})
    assert "xyzzy" not in "".join(tiny.server.log)
    assert os.fspath(tiny.bundle.folder.parent) not in "".join(tiny.server.log)


def test_a_connection_dropped_halfway_does_no_harm(tiny: Tiny) -> None:
    connection = tiny.server.connect()
    connection.putrequest("POST", "/invocations")
    connection.putheader("content-length", "100")
    connection.endheaders(b'{"text": ')
    connection.close()
    assert tiny.right(tiny.server.post({"text": "no"}).json, "no")


def test_requests_in_a_row_on_one_connection(tiny: Tiny) -> None:
    connection: http.client.HTTPConnection = tiny.server.connect()
    for text in ("no", "a great film", "no"):
        body = json.dumps({"text": text}).encode()
        assert tiny.right(ask(connection, "POST", "/invocations", body).json, text)
    connection.close()


def test_many_short_texts_in_a_small_body(tiny: Tiny) -> None:
    answers = tiny.server.post({"texts": ["no"] * 200, "top_k": 1}).json
    assert len(answers) == 200
    assert all(answer["label"] == answers[0]["label"] for answer in answers)


def test_a_repeated_header_is_read_as_one(tiny: Tiny) -> None:
    connection = tiny.server.connect()
    connection.putrequest("POST", "/invocations")
    for kind in ("application/json", "text/plain"):
        connection.putheader("content-type", kind)
    connection.putheader("content-length", "2")
    connection.endheaders(b"no")
    assert connection.getresponse().status == 415
    connection.close()


def test_who_hangs_up_before_the_body_is_complete_is_counted(tiny: Tiny) -> None:
    before = tiny.server.metric('fdeploy_requests_total{status="499"}')
    connection = tiny.server.connect()
    connection.putrequest("POST", "/invocations")
    connection.putheader("content-length", "100")
    connection.endheaders(b'{"text": ')
    connection.close()
    until(lambda: tiny.server.metric('fdeploy_requests_total{status="499"}') == before + 1)

"""The local gateway over real HTTP: requests and answers."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.packaging.lambda_zip import build_lambda_package
from tests.gateway.conftest import GatewayProcess, Start
from tests.gateway.servers import Received, Reply, Server, echo, refusing


def test_the_right_key_gets_an_answer(gateway: GatewayProcess, model: Server) -> None:
    answer = gateway.client().send('{"text": "a fine film"}')
    assert (answer.status, answer.json["label"]) == (200, "a fine film")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    (received,) = model.received
    assert "x-api-key" not in received.headers


@pytest.mark.parametrize(
    ("content_type", "body", "label"),
    [
        ("text/plain", "söß".encode(), "söß"),
        ("text/plain; charset=iso-8859-1", "söß".encode("latin-1"), "söß"),
        ("application/x-www-form-urlencoded", b"text=a+b%26c", "a b&c"),
        ("application/x-www-form-urlencoded", b'{"text": "like curl -d"}', "like curl -d"),
        ("text/plain;charset=UTF-8", b'{"text": "like fetch()"}', "like fetch()"),
        ("text/plain", b'{"texts": "like a template"', '{"texts": "like a template"'),
        (None, '{"text": "no type, söß"}'.encode(), "no type, söß"),
        ("application/json", b'{"text": "\\ud83d\\ude00"}', "😀"),
    ],
)
def test_every_way_to_send_a_text(
    gateway: GatewayProcess, content_type: str | None, body: bytes, label: str
) -> None:
    answer = gateway.client().send(body, content_type=content_type)
    assert (answer.status, answer.json["label"]) == (200, label)


def test_a_list_is_answered_in_order(gateway: GatewayProcess) -> None:
    answer = gateway.client().send('{"texts": ["b", "a", "c"]}')
    assert [item["label"] for item in answer.json] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (("application/json", b""), 400, "invalid_json"),
        (("application/json", b"not JSON"), 400, "invalid_json"),
        (("application/json", b'{"text": "\xff"}'), 400, "invalid_json"),
        (("application/json", b'{"text": "a", "text": "b"}'), 400, "invalid_json"),
        (("application/json", b"[" * 900), 400, "invalid_json"),
        (("application/json", b'{"txt": "a"}'), 422, "invalid_request"),
        (("application/json", b'{"text": 1}'), 422, "invalid_request"),
        (("application/json", b'{"text": "' + b"a" * 1_000 + b'"}'), 413, "too_large"),
        (("application/json", b"a" * 5_000_000), 413, "too_large"),
        (("text/plain", b'{"text": "a", "text": "b"}'), 400, "invalid_json"),
        (("text/plain", b'{"text": 1}'), 422, "invalid_request"),
        (("image/png", b"\x89PNG"), 415, "unsupported_media_type"),
        (("application/x-ndjson", b'{"text": "a"}'), 415, "unsupported_media_type"),
        (("multipart/form-data; boundary=x", b"--x"), 415, "unsupported_media_type"),
    ],
)
def test_a_bad_request_never_reaches_the_model(
    gateway: GatewayProcess,
    model: Server,
    sent: tuple[str, bytes],
    status: int,
    code: str,
) -> None:
    answer = gateway.client().send(sent[1], content_type=sent[0])
    assert (answer.status, answer.code) == (status, code)
    assert model.received == []


def test_a_chunked_body_is_limited_too(gateway: GatewayProcess, model: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    headers = {"x-api-key": gateway.key, "content-type": "application/json"}
    chunks = iter([b'{"text": "', *[b"a" * 100] * 20, b'"}'])
    connection.request("POST", "/classify", chunks, headers, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (413, "too_large")
    connection.request(
        "POST", "/classify", iter([b'{"text":', b'"b"}']), headers, encode_chunked=True
    )
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["label"]) == (200, "b")
    connection.close()
    assert len(model.received) == 1


def test_other_paths_are_not_found(gateway: GatewayProcess) -> None:
    answer = gateway.client().send(path="/other")
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(gateway: GatewayProcess, method: str) -> None:
    answer = gateway.client().send(method=method)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"


def test_a_method_that_http_does_not_have_is_refused(gateway: GatewayProcess) -> None:
    answer = gateway.client().send(method="BREW")
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/", "/classify", "/nowhere"])
def test_head_is_answered_wherever_get_is(start: Start, tmp_path: Path, path: str) -> None:
    package = tmp_path / "lambda.zip"
    shown = {"openapi.json": b'{"openapi": "3.1.0"}', "page.html": "<p>söß</p>".encode()}
    package.write_bytes(build_lambda_package(shown))
    client = start(package=str(package), page=True).client()
    get = client.send(None, method="GET", path=path, with_key=False)
    head = client.send(None, method="HEAD", path=path, with_key=False)
    assert (head.status, head.body) == (get.status, b"")
    own = {"x-request-id", "date"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in get.headers.items() if k not in own
    }
    assert int(head.headers["content-length"]) == len(get.body)


def test_health_needs_no_key_and_no_model(gateway: GatewayProcess, model: Server) -> None:
    answer = gateway.client().send(None, method="GET", path="/health", with_key=False)
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert model.received == []


def test_a_preflight_needs_no_key(gateway: GatewayProcess) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = gateway.client().send(None, method="OPTIONS", headers=headers, with_key=False)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-api-key" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("arguments", [{}, {"with_key": False}, {"path": "/x"}, {"method": "PUT"}])
def test_every_answer_has_cors_headers(gateway: GatewayProcess, arguments: dict[str, Any]) -> None:
    answer = gateway.client().send(headers={"Origin": "https://app.example"}, **arguments)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["vary"] == "origin"


def test_the_models_own_refusal_is_passed_on(gateway: GatewayProcess, model: Server) -> None:
    said = {"error": {"code": "invalid_request", "message": "said", "hint": "by the model"}}
    model.script = refusing(422, said)
    answer = gateway.client().send()
    assert (answer.status, answer.json) == (422, said)


def test_a_failing_model_has_its_own_error(gateway: GatewayProcess, model: Server) -> None:
    model.script = refusing(500, b"Traceback (most recent call last): my-private-diary")
    answer = gateway.client().send()
    assert (answer.status, answer.code) == (500, "model_error")
    assert b"Traceback" not in answer.body
    assert "my-private-diary" not in gateway.log


def test_many_clients_get_their_own_answers(gateway: GatewayProcess, model: Server) -> None:
    together = threading.Barrier(8)

    def wait_for_the_others(received: Received) -> Reply:
        together.wait(30)
        return echo(received)

    model.script = wait_for_the_others
    texts = [f"text {number}" for number in range(8)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(lambda text: gateway.client().send(json.dumps({"text": text})), texts)
        )
    assert [answer.json["label"] for answer in answers] == texts
    assert len({answer.headers["x-request-id"] for answer in answers}) == 8


def test_a_connection_serves_many_requests(gateway: GatewayProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.connect()
    first = connection.sock
    for text, key in (("a", gateway.key), ("b", "wrong"), ("c", gateway.key)):
        connection.request(
            "POST",
            "/classify",
            json.dumps({"text": text}),
            {"x-api-key": key, "content-type": "text/plain"},
        )
        response = connection.getresponse()
        response.read()
        assert response.status == (403 if key == "wrong" else 200)
    assert connection.sock is first
    connection.close()


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    def request(text: str, *more: str) -> bytes:
        head = [
            "POST /classify HTTP/1.1",
            "host: 127.0.0.1",
            f"x-api-key: {gateway.key}",
            "content-type: text/plain",
            f"content-length: {len(text)}",
            *more,
        ]
        return ("\r\n".join(head) + "\r\n\r\n" + text).encode()

    answer = gateway.client().raw(request("first") + request("second", "connection: close"))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert 0 < answer.index(b'"first"') < answer.index(b'"second"')


def test_expect_100_continue_is_answered(gateway: GatewayProcess) -> None:
    head = (
        "POST /classify HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "content-type: text/plain\r\ncontent-length: 2\r\n"
        "expect: 100-continue\r\nconnection: close\r\nx-api-key: {}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head.format(gateway.key).encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100")
        connection.sendall(b"hi")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head.format("wrong").encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 403")


def test_base64_is_between_gateway_and_function_only(start: Start, model: Server) -> None:
    gateway = start(max_body=5_000_000)
    text = base64.b64encode(bytes(range(256)) * 10_000).decode()
    answer = gateway.client().send(
        f"text={text.replace('+', '%2B')}", content_type="application/x-www-form-urlencoded"
    )
    assert (answer.status, answer.json["label"] == text) == (200, True)
    assert json.loads(model.received[0].body) == {"text": text}


def test_what_lambda_cannot_take_is_too_large(start: Start, model: Server) -> None:
    gateway = start(max_body=6_000_000)
    body = b'{"text": "' + b"a" * 5_000_000 + b'"}'  # base64 makes it larger than 6 MB
    answer = gateway.client().send(body, content_type=None)
    assert (answer.status, answer.code) == (413, "too_large")
    assert gateway.client().send(body).status == 200
    assert len(model.received) == 1

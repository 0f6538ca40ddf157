"""Attacks on the local gateway, each with the expected answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gateway.conftest import GatewayProcess, Start
from tests.gateway.servers import Server


def closed(gateway: GatewayProcess, model: Server) -> None:
    """No request reached the model, and no log, announcement or command line contains the key."""
    assert model.received == []
    assert gateway.key not in gateway.log
    assert gateway.key not in gateway.announce.read_text()
    command = Path(f"/proc/{gateway.process.pid}/cmdline")
    if command.exists():
        assert gateway.key not in command.read_text()


def test_no_key(gateway: GatewayProcess, model: Server) -> None:
    answer = gateway.client().send(with_key=False)
    assert (answer.status, answer.code) == (403, "forbidden")
    closed(gateway, model)


@pytest.mark.parametrize(
    "change", [str.lower, str.swapcase, lambda key: key[:-1], lambda key: key + "x"]
)
def test_a_wrong_key(gateway: GatewayProcess, model: Server, change: object) -> None:
    assert callable(change)
    answer = gateway.client(change(gateway.key)).send()
    assert (answer.status, answer.code) == (403, "forbidden")
    closed(gateway, model)


@pytest.mark.parametrize(
    "path",
    ["/classify?x-api-key={}", "/classify?api_key={}", "/classify?x-api-key={}&x-api-key={}"],
)
def test_a_key_in_the_url_does_not_count(gateway: GatewayProcess, model: Server, path: str) -> None:
    answer = gateway.client().send(path=path.format(gateway.key, gateway.key), with_key=False)
    assert (answer.status, answer.code) == (403, "forbidden")
    closed(gateway, model)


@pytest.mark.parametrize("name", ["authorization", "x-api-key2", "cookie", "X-API_KEY"])
def test_a_key_in_another_header_does_not_count(
    gateway: GatewayProcess, model: Server, name: str
) -> None:
    answer = gateway.client().send(headers={name: gateway.key}, with_key=False)
    assert answer.code == "forbidden"
    closed(gateway, model)


def raw_request(*lines: str, body: str = '{"text": "a"}') -> bytes:
    head = [*lines, f"content-length: {len(body)}", "connection: close"]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode("latin-1")


def test_two_keys_are_refused(gateway: GatewayProcess, model: Server) -> None:
    key = f"x-api-key: {gateway.key}"
    for lines in ((key, key), (key, "x-api-key: other"), ("x-api-key: other", key)):
        answer = gateway.client().raw(
            raw_request("POST /classify HTTP/1.1", "host: 127.0.0.1", *lines)
        )
        assert answer.startswith(b"HTTP/1.1 403")
    closed(gateway, model)


@pytest.mark.parametrize(
    "target",
    [
        "/classify/../classify",
        "/x/../classify",
        "//classify",
        "/classify/",
        "/classify//",
        "/./classify",
        "/classify/..",
        "/%63lassify",
        "/classify%2f",
        "/classify%00",
        "/classify;a=b",
        "/CLASSIFY",
        "/%2e%2e/classify",
        "/..%5cclassify",
        "http://evil.example/classify",
        "*",
    ],
)
def test_path_tricks_are_not_found(gateway: GatewayProcess, model: Server, target: str) -> None:
    data = raw_request(f"POST {target} HTTP/1.1", "host: 127.0.0.1", f"x-api-key: {gateway.key}")
    answer = gateway.client().raw(data)
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 403"))
    closed(gateway, model)


@pytest.mark.parametrize(
    "line",
    [
        "origin: https://app.example\rset-cookie: a=b",
        "origin: https://app.example\x00",
        "origin : https://app.example",
        "bad header",
        "content-length: 3",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: gzip",
    ],
)
def test_malformed_headers_are_refused(gateway: GatewayProcess, model: Server, line: str) -> None:
    data = raw_request("POST /classify HTTP/1.1", "host: 127.0.0.1", line, "x-api-key: wrong")
    answer = gateway.client().raw(data)
    assert b"set-cookie" not in answer.lower()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403", b"HTTP/1.1 501"))
    closed(gateway, model)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil.example", "null", "*", "\x7f", "é"]
)
def test_another_origin_is_not_repeated(
    gateway: GatewayProcess, model: Server, origin: str
) -> None:
    data = raw_request("POST /classify HTTP/1.1", "host: 127.0.0.1", f"origin: {origin}")
    answer = gateway.client().raw(data)
    assert b"access-control-allow-origin" not in answer
    closed(gateway, model)


def test_html_in_a_text_stays_json(gateway: GatewayProcess) -> None:
    script = "<script>alert(1)</script>"
    answer = gateway.client().send(json.dumps({"text": script}))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json["label"] == script


def test_html_in_an_unknown_path_or_key_is_not_repeated(gateway: GatewayProcess) -> None:
    script = "<script>alert(1)</script>"
    assert script.encode() not in gateway.client().send(path="/%3Cscript%3E").body
    assert b"<script>" not in gateway.client().send(json.dumps({script: 1})).body


HOST = "host: 127.0.0.1"


@pytest.mark.parametrize(
    "lines",
    [
        [HOST, "a: " + "b" * 200_000],
        [HOST, *(f"a{number}: {number}" for number in range(9_000))],
        [HOST, "b" * 70_000 + ": a"],
    ],
    ids=["one", "many", "name"],
)
def test_long_headers_are_refused(gateway: GatewayProcess, model: Server, lines: list[str]) -> None:
    answer = gateway.client().raw(raw_request("POST /classify HTTP/1.1", *lines))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"
    closed(gateway, model)


ROUTES = ("GET /", "GET /openapi.json", "GET /health", "OPTIONS /classify", "POST /classify")


@pytest.mark.parametrize("route", [*ROUTES, "HEAD /health", "GET /nowhere", "PUT /classify"])
@pytest.mark.parametrize(
    "lines",
    [
        ["host: evil.example"],
        ["host: 127.0.0.1.evil.example:{port}"],
        ["host: localhost.evil.example"],
        ["host: 10.0.0.1:{port}"],
        ["host: 127.0.0.1@evil.example"],
        ["host: [::2]:{port}"],
        ["host: 127.0.0.1:{port}", "origin: http://evil.example"],
        ["host: localhost:{port}", "origin: null"],
        ["host: localhost:{port}", "origin: http://localhost:1"],
        ["host: localhost:{port}", "origin: https://app.example.evil.example"],
        ["host: localhost:{port}", "origin: http://localhost:{port}", "origin: http://x.example"],
    ],
    ids=", ".join,
)
def test_a_foreign_host_or_origin_is_refused(
    gateway: GatewayProcess, model: Server, route: str, lines: list[str]
) -> None:
    key = f"x-api-key: {gateway.key}"
    sent = [line.format(port=gateway.port) for line in lines]
    answer = gateway.client().raw(raw_request(f"{route} HTTP/1.1", *sent, key))
    assert answer.startswith(b"HTTP/1.1 403 ")
    if not route.startswith("HEAD"):
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == "forbidden"
    closed(gateway, model)


@pytest.mark.parametrize(
    "lines",
    [
        ["host: 127.0.0.1:{port}"],
        ["host: 127.8.9.1"],
        ["HOST: LocalHost.:{port}"],
        ["host: [::1]:{port}"],
        ["host: localhost:{port}", "origin: http://localhost:{port}"],
        ["host: 127.0.0.1:{port}", "origin: http://localhost:{port}"],
        ["host: 127.0.0.1:{port}", "origin: https://app.example"],
    ],
    ids=", ".join,
)
def test_this_machine_and_allowed_origins_are_answered(
    gateway: GatewayProcess, lines: list[str]
) -> None:
    sent = [line.format(port=gateway.port) for line in lines]
    key = f"x-api-key: {gateway.key}"
    answer = gateway.client().raw(raw_request("POST /classify HTTP/1.1", *sent, key))
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("lines", [[], [HOST, HOST], ["host:"]], ids=["none", "two", "empty"])
def test_a_request_names_one_host(gateway: GatewayProcess, model: Server, lines: list[str]) -> None:
    answer = gateway.client().raw(raw_request("POST /classify HTTP/1.1", *lines))
    assert answer.startswith(b"HTTP/1.1 400 ")
    closed(gateway, model)


def test_a_proxy_is_named_in_the_settings(start: Start) -> None:
    gateway = start(allowed_hosts=("Hub.Example",))
    key = f"x-api-key: {gateway.key}"
    for lines in (
        ["host: hub.example", "origin: https://hub.example"],
        ["host: 127.0.0.1:8888", "origin: https://hub.example"],
    ):
        answer = gateway.client().raw(raw_request("POST /classify HTTP/1.1", *lines, key))
        assert answer.startswith(b"HTTP/1.1 200 ")
    other = raw_request("POST /classify HTTP/1.1", "host: x.hub.example", key)
    assert gateway.client().raw(other).startswith(b"HTTP/1.1 403 ")


def test_garbage_is_refused(gateway: GatewayProcess, model: Server) -> None:
    assert gateway.client().raw(b"\x16\x03\x01\x02\x00\x01").startswith(b"HTTP/1.1 400")
    closed(gateway, model)


def test_deep_and_odd_encodings(gateway: GatewayProcess, model: Server) -> None:
    client = gateway.client()
    assert client.send(b'{"text": ' + b"[" * 400 + b"]" * 400 + b"}").status in (400, 422)
    assert client.send(
        '{"text": "a"}'.encode("utf-16"), content_type="application/json"
    ).status in (
        400,
        415,
    )
    assert client.send(b"a", content_type="text/plain; charset=rot13").status in (400, 415)
    assert client.send(b"a", headers={"content-encoding": "gzip"}).status == 415
    closed(gateway, model)


def test_a_new_key_counts_at_once(start: Start) -> None:
    gateway = start()
    (key_file,) = (Path(path) for path in gateway.config.key_files)
    assert gateway.client().send().status == 200
    key_file.write_text("n" * 40)
    assert gateway.client().send().status == 403
    assert gateway.client("n" * 40).send().status == 200
    key_file.unlink()
    assert gateway.client("n" * 40).send().status == 403

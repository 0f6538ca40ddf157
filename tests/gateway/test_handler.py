"""The Lambda handler on events of all three kinds."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote_plus

import pytest

from fastai_deploy.runtime.gateway.endpoint import GatewaySettings
from tests.gateway.aws_events import KINDS, REQUEST_ID, Builder, function_url, http, rest
from tests.gateway.fakes import ANSWER, FakeContext, FakeRuntime, World

SECRET = "my-private-diary"


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Builder:
    builder: Builder = request.param
    return builder


def test_an_answer_is_passed_on(kind: Builder) -> None:
    world = World()
    response = world.answer(kind())
    assert response.status == 200
    assert response.text.encode() == ANSWER
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"] == REQUEST_ID
    assert world.runtime.calls == [
        {
            "EndpointName": "demo-dev",
            "ContentType": "application/json",
            "Accept": "application/json",
            "Body": b'{"text": "a fine film"}',
        }
    ]


@pytest.mark.parametrize(
    ("content_type", "body", "sent"),
    [
        ("application/json", b'{"texts": ["a", "b"], "top_k": 1}', None),
        ("application/json; charset=utf-8", '{"text": "é"}'.encode(), None),
        (None, b'{"text": "no type"}', None),
        ("text/plain", "söß".encode(), {"text": "söß"}),
        ("text/plain; charset=iso-8859-1", "söß".encode("latin-1"), {"text": "söß"}),
        ("text/plain", b"", {"text": ""}),
        # The content type that fetch() gives to a string.
        ("text/plain;charset=UTF-8", b' {"text": "a", "top_k": 1}', None),
        ("text/plain; charset=utf-16", '{"texts": ["a"]}'.encode("utf-16"), {"texts": ["a"]}),
        ("text/plain", b"{smiles} and more", {"text": "{smiles} and more"}),
        ("application/x-www-form-urlencoded", b"text=a+b%26c", {"text": "a b&c"}),
        ("application/x-www-form-urlencoded", b"text=", {"text": ""}),
        (
            "application/x-www-form-urlencoded; charset=UTF-8",
            b"texts=a&texts=%C3%A9&top_k=2",
            {"texts": ["a", "é"], "top_k": 2},
        ),
        (
            "application/x-www-form-urlencoded",
            b"text=a&top_k=00" + b"9" * 300_000,
            {"text": "a", "top_k": 10**18},
        ),
        # The content type that `curl -d '{"text": "..."}'` sends.
        ("application/x-www-form-urlencoded", b'{"text": "a=b&c"}', None),
    ],
)
def test_what_reaches_the_endpoint_is_json(
    kind: Builder, content_type: str | None, body: bytes, sent: Any
) -> None:
    world = World()
    headers = {} if content_type is None else {"content-type": content_type}
    event = kind(base64.b64encode(body).decode(), headers=headers, is_base64=True)
    assert world.answer(event).status == 200
    (call,) = world.runtime.calls
    assert call["ContentType"] == "application/json"
    assert json.loads(call["Body"]) == (json.loads(body) if sent is None else sent)


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({}, None, 400, "invalid_json"),
        ({}, "not JSON", 400, "invalid_json"),
        ({}, '{"text": "a", "text": "b"}', 400, "invalid_json"),
        ({}, "[" * 5_000, 400, "invalid_json"),
        ({}, "\ud800", 400, "invalid_json"),
        ({}, '{"text": 1}', 422, "invalid_request"),
        ({}, '{"txt": "a"}', 422, "invalid_request"),
        ({}, '{"text": "a", "top_k": 0}', 422, "invalid_request"),
        ({}, "[]", 422, "invalid_request"),
        ({}, json.dumps({"texts": ["a"] * 1_001}), 413, "too_large"),
        ({}, json.dumps({"text": "a" * 1_048_576}), 413, "too_large"),
        ({"Content-Type": "image/png"}, "x", 415, "unsupported_media_type"),
        ({"Content-Type": "text/html"}, "x", 415, "unsupported_media_type"),
        ({"Content-Type": "application/jsonlines"}, '{"text": "a"}', 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-ndjson"}, '{"text": "a"}', 415, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, '{"text": "a"}', 415, "unsupported_media_type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "x", 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "", 422, "invalid_request"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "a=b", 422, "invalid_request"),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            "text=a&text=b",
            422,
            "invalid_request",
        ),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            "text=a&top_k=many",
            422,
            "invalid_request",
        ),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "text=%ff", 400, "invalid_json"),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            "&".join(["texts=a"] * 1_002),
            413,
            "too_large",
        ),
    ],
)
def test_a_bad_request_costs_nothing(
    kind: Builder, headers: dict[str, str], body: str | None, status: int, code: str
) -> None:
    world = World()
    response = world.answer(kind(body, headers=headers))
    assert (response.status, response.code) == (status, code)
    assert world.runtime.calls == []


def test_damaged_base64_is_a_bad_request() -> None:
    response = World().answer(rest("not base64!", is_base64=True))
    assert (response.status, response.code) == (400, "invalid_json")


def test_a_list_of_nothing_but_bad_items_costs_nothing() -> None:
    world = World()
    response = world.answer(rest('{"texts": [1, null]}'))
    assert response.status == 200
    assert [item["error"]["code"] for item in response.json] == ["invalid_request"] * 2
    assert world.runtime.calls == []


def test_the_body_limit_is_exact() -> None:
    world = World(settings=GatewaySettings("demo-dev", max_body=14))
    assert world.answer(rest('{"text": "aa"}')).status == 200
    assert world.answer(rest('{"text": "aaa"}')).status == 413


def test_the_route_is_a_setting(kind: Builder) -> None:
    world = World(settings=GatewaySettings("demo-dev", route="/v1/sentiment"))
    assert world.answer(kind(path="/v1/sentiment")).status == 200
    assert world.answer(kind(path="/classify")).code == "not_found"


@pytest.mark.parametrize(
    "path", ["/", "", "/classify/", "/classify/x", "/../classify", "/health/x"]
)
def test_other_paths_are_not_found(kind: Builder, path: str) -> None:
    world = World()
    response = world.answer(kind(path=path))
    assert (response.status, response.code) == (404, "not_found")
    assert world.entries[0]["route"] == "none"


def test_a_custom_domain_may_have_a_base_path() -> None:
    event = rest()
    event["path"] = "/text/classify"
    assert World().answer(event).status == 200


def test_a_proxy_resource_is_routed_by_its_path() -> None:
    event = rest()
    event["resource"] = "/{proxy+}"
    assert World().answer(event).status == 200


def test_an_http_api_may_have_a_default_route_and_stage() -> None:
    event = http(stage="$default")
    event["routeKey"] = event["requestContext"]["routeKey"] = "$default"
    assert World().answer(event).status == 200
    staged = http(stage="prod")
    staged["routeKey"] = "$default"
    assert World().answer(staged).status == 200


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/", "/classify", "/nowhere"])
def test_head_is_answered_like_get_and_has_no_body(kind: Builder, path: str) -> None:
    shown = {"openapi.json": b'{"openapi": "3.1.0"}', "page.html": "<p>söß</p>".encode()}
    get = World(documents=shown).answer(kind(None, method="GET", path=path))
    head = World(documents=shown).answer(kind(None, method="HEAD", path=path))
    assert head.text == ""
    length = {"content-length": str(len(get.text.encode()))}
    assert (head.status, head.headers) == (get.status, get.headers | length)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "BREW"])
def test_other_methods_are_not_allowed(kind: Builder, method: str) -> None:
    response = World().answer(kind(method=method))
    assert (response.status, response.code) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST, OPTIONS"


def test_health_asks_no_endpoint(kind: Builder) -> None:
    world = World()
    response = world.answer(kind(None, method="GET", path="/health"))
    assert (response.status, response.json) == (200, {"status": "ok"})
    assert world.runtime.calls == []


def test_a_preflight_is_answered(kind: Builder) -> None:
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-api-key",
    }
    response = World().answer(kind(None, method="OPTIONS", headers=headers))
    assert (response.status, response.text) == (204, "")
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert response.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert "x-api-key" in response.headers["access-control-allow-headers"]
    assert response.headers["vary"] == "origin"


@pytest.mark.parametrize("body", ['{"text": "a"}', "not JSON"])
def test_answers_and_errors_have_cors_headers(kind: Builder, body: str) -> None:
    world = World()
    ours = world.answer(kind(body, headers={"Origin": "https://app.example"}))
    assert ours.headers["access-control-allow-origin"] == "https://app.example"
    assert "retry-after" in ours.headers["access-control-expose-headers"]
    other = world.answer(kind(body, headers={"Origin": "https://evil.example"}))
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "origin"


def test_cors_may_be_open_or_off() -> None:
    origin = {"Origin": "https://evil.example"}
    everyone = World(settings=GatewaySettings("demo-dev", cors_origins=("*",)))
    assert everyone.answer(rest(headers=origin)).headers["access-control-allow-origin"] == "*"
    nobody = World(settings=GatewaySettings("demo-dev"))
    assert not any("access" in name for name in nobody.answer(rest(headers=origin)).headers)


def test_the_log_says_what_happened_and_nothing_of_the_text(kind: Builder) -> None:
    world = World()
    world.answer(kind(json.dumps({"texts": [SECRET, SECRET, 3]})))
    world.answer(kind(f'{{"{SECRET}": 1}}'))
    world.answer(kind(path=f"/{quote_plus(SECRET)}"))
    world.answer(kind(headers={"Content-Type": SECRET, "x-api-key": SECRET}))
    world.answer(kind(method=SECRET))
    answered, unknown_key, unknown_path, *_ = world.entries
    assert SECRET not in world.log.getvalue().lower()
    assert answered["request_id"] == REQUEST_ID
    assert answered["lambda_request_id"] == FakeContext().aws_request_id
    assert (answered["status"], answered["texts"], answered["attempts"]) == (200, 2, 1)
    assert answered["bytes"] == len(json.dumps({"texts": [SECRET, SECRET, 3]}))
    assert (unknown_key["status"], unknown_key["code"]) == (422, "invalid_request")
    assert unknown_path["status"] == 404


@pytest.mark.parametrize("request_id", [None, 7, "", "a\r\nset-cookie: b", "é", "x" * 129, "a b"])
def test_an_odd_request_id_is_not_repeated(request_id: object) -> None:
    event = rest()
    event["requestContext"]["requestId"] = request_id
    assert World().answer(event).headers["x-request-id"] == "-"


def test_the_log_line_carries_metrics() -> None:
    world = World()
    world.answer(rest("not JSON"))
    (entry,) = world.entries
    (directive,) = entry["_aws"]["CloudWatchMetrics"]
    assert entry["_aws"]["Timestamp"] == 1_700_000_000_000
    assert directive["Namespace"] == "fdeploy"
    for name in directive["Dimensions"][0]:
        assert isinstance(entry[name], str)
    for metric in directive["Metrics"]:
        assert isinstance(entry[metric["Name"]], (int, float))
    assert (entry["Requests"], entry["ClientErrors"], entry["ServerErrors"]) == (1, 1, 0)


def test_texts_are_logged_when_they_are_asked_for() -> None:
    world = World(settings=GatewaySettings("demo-dev", log_text=True))
    world.answer(rest(json.dumps({"text": SECRET})))
    assert world.entries[0]["text"] == [SECRET]


def test_a_defect_is_answered_and_logged_without_its_words() -> None:
    class Broken(FakeContext):
        def get_remaining_time_in_millis(self) -> int:
            raise LookupError(SECRET)

    world = World()
    response = world.answer(rest(), Broken())
    assert (response.status, response.code) == (500, "internal")
    assert response.headers["x-request-id"] == REQUEST_ID
    (entry,) = world.entries
    assert entry["error"] == "LookupError"
    assert "get_remaining_time_in_millis" in entry["where"][-1]
    assert SECRET not in world.log.getvalue() + response.text


def test_an_answer_survives_a_closed_log() -> None:
    world = World()
    world.log.close()
    assert world.answer(rest()).status == 200


@pytest.mark.parametrize("answer", [b"<html>", b"", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_json_is_a_defect(answer: bytes) -> None:
    response = World(FakeRuntime(answer)).answer(rest())
    assert (response.status, response.code) == (500, "internal")


def test_an_answer_too_large_for_lambda_is_refused() -> None:
    quotes = json.dumps(["a"] * 1_300_000, separators=(",", ":")).encode()
    assert len(quotes) < 6 * 1024 * 1024 < len(json.dumps(quotes.decode()))
    response = World(FakeRuntime(quotes)).answer(rest())
    assert (response.status, response.code) == (413, "too_large")


def test_settings_come_from_the_environment() -> None:
    environ = {
        "FDEPLOY_ENDPOINT": "demo-dev",
        "FDEPLOY_ROUTE": "/x",
        "FDEPLOY_MAX_BODY": "10",
        "FDEPLOY_CORS_ORIGINS": "https://a.example, https://b.example",
        "FDEPLOY_TIMEOUT_MS": "5000",
        "FDEPLOY_LOG_TEXT": "on",
    }
    assert GatewaySettings.from_environment(environ) == GatewaySettings(
        "demo-dev", "/x", 10, ("https://a.example", "https://b.example"), 5_000, log_text=True
    )
    assert GatewaySettings.from_environment({"FDEPLOY_ENDPOINT": "e"}) == GatewaySettings("e")


def test_a_function_url_is_told_apart() -> None:
    world = World()
    world.answer(function_url())
    assert world.entries[0]["event"] == "function-url"

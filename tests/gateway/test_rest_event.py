"""The event that the local gateway builds has the shape that AWS documents."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from fastai_deploy.runtime.gateway import events
from fastai_deploy.targets.local.gateway.requests import HttpRequest, rest_event
from tests.gateway.aws_events import rest

KEY = "0123456789abcdefghij0123456789abcdefghij"
REQUEST = HttpRequest(
    method="POST",
    path="/classify",
    query="a=1&a=2&b=",
    headers=(("host", "127.0.0.1:8000"), ("content-type", "application/json"), ("x-api-key", KEY)),
    body=b'{"text": "caf\xc3\xa9"}',
    source_ip="127.0.0.1",
    http_version="1.1",
    request_id="c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
    key_id="a1b2c3d4e5",
    stage="dev",
    arrived=datetime(2026, 11, 21, 20, 13, 5, tzinfo=timezone.utc),
)


def test_it_has_the_documented_fields() -> None:
    event, documented = rest_event(REQUEST), rest()
    assert set(event) == set(documented)
    assert set(event["requestContext"]) == set(documented["requestContext"])
    assert set(documented["requestContext"]["identity"]) <= set(event["requestContext"]["identity"])


def test_it_says_what_was_sent() -> None:
    event = rest_event(REQUEST)
    assert event["queryStringParameters"] == {"a": "2", "b": ""}
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": [""]}
    context = event["requestContext"]
    assert context["identity"]["apiKey"] == KEY
    assert context["identity"]["apiKeyId"] == "a1b2c3d4e5"
    assert context["requestTime"] == "21/Nov/2026:20:13:05 +0000"
    assert context["requestTimeEpoch"] == 1_795_291_985_000
    assert context["path"] == "/classify", "as with a custom domain: the URL has no stage in it"
    assert event["headers"]["x-amzn-trace-id"].startswith("Root=1-6b01")


def test_a_client_does_not_choose_where_it_comes_from() -> None:
    headers = (("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "gopher"))
    event = rest_event(replace(REQUEST, headers=headers))
    assert event["headers"]["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
    assert event["multiValueHeaders"]["x-forwarded-proto"] == ["http"]


def test_repeated_headers_are_all_there() -> None:
    event = rest_event(replace(REQUEST, headers=(("a", "1"), ("a", "2"))))
    assert event["headers"]["a"] == "2"
    assert event["multiValueHeaders"]["a"] == ["1", "2"]


@pytest.mark.parametrize(
    ("content_type", "body", "is_base64"),
    [
        ("application/json", b'{"text": "a"}', False),
        ("Application/JSON; charset=utf-8", b'{"text": "a"}', False),
        ("text/plain", b"a", False),
        ("application/xml", b"<a/>", False),
        ("application/javascript", b"a", False),
        ("text/plain; charset=latin-1", b"caf\xe9", True),
        ("application/x-www-form-urlencoded", b"text=a", True),
        (None, b'{"text": "a"}', True),
        ("application/octet-stream", b"\x00", True),
        ("application/json", b"", False),
    ],
)
def test_the_body_is_base64_unless_it_is_text(
    content_type: str | None, body: bytes, *, is_base64: bool
) -> None:
    headers = () if content_type is None else (("content-type", content_type),)
    event = rest_event(replace(REQUEST, headers=headers, body=body))
    assert event["isBase64Encoded"] is is_base64
    if is_base64:
        assert base64.b64decode(event["body"]) == body
    assert events.read(event).body() == body

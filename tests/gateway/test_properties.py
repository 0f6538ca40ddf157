"""For any event: a valid proxy response, one log line, never an exception."""

from __future__ import annotations

import base64
import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.aws_events import KINDS
from tests.gateway.fakes import World

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
KNOWN_KEYS = st.sampled_from(
    (
        "version",
        "body",
        "headers",
        "httpMethod",
        "isBase64Encoded",
        "multiValueHeaders",
        "path",
        "rawPath",
        "requestContext",
        "resource",
        "routeKey",
    )
)
CONTENT_TYPES = st.sampled_from(
    (
        "application/json",
        "application/json; charset=utf-16",
        "text/plain",
        "text/plain; charset=latin-1",
        "application/x-www-form-urlencoded",
        "application/x-ndjson",
        "",
    )
)


def check(event: Any) -> None:
    world = World()
    response = world.answer(event)  # also checks that it is a valid proxy response
    if response.status >= 400:
        assert response.code
    assert len(world.entries) == 1
    assert world.entries[0]["status"] == response.status


@settings(deadline=None)
@given(JSON)
def test_garbage(event: Any) -> None:
    check(event)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(KNOWN_KEYS, JSON))
def test_real_events_with_garbage_in_them(kind: Any, changes: dict[str, Any]) -> None:
    check({**copy.deepcopy(kind()), **changes})


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(TEXT, JSON), st.sampled_from(("http", "identity")))
def test_garbage_in_the_context(kind: Any, garbage: dict[str, Any], place: str) -> None:
    event = kind()
    event["requestContext"] = {**event["requestContext"], **garbage, place: garbage}
    check(event)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.binary(max_size=200), CONTENT_TYPES | TEXT)
def test_any_bytes_of_any_type(kind: Any, body: bytes, content_type: str) -> None:
    encoded = base64.b64encode(body).decode()
    check(kind(encoded, headers={"content-type": content_type}, is_base64=True))


@settings(deadline=None)
@given(st.sampled_from(KINDS), TEXT, TEXT, TEXT)
def test_any_method_path_and_origin(kind: Any, method: str, path: str, origin: str) -> None:
    check(kind(method=method, path=path, headers={"origin": origin, "content-type": origin}))

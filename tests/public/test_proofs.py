"""``create-api`` fails if the API admits a caller it should reject, or the reverse."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from fastai_deploy.api_docs.smoke_tests import Reply, check_preflight, check_throttle
from fastai_deploy.errors import DeployError
from fastai_deploy.progress import Event, Step

OURS = "https://app.example"
Answer = Callable[[str], Mapping[str, str]]


def cors(origin: str, methods: str = "POST, OPTIONS") -> dict[str, str]:
    return {"access-control-allow-origin": origin, "access-control-allow-methods": methods}


def preflight(answer: Answer, *origins: str, status: int = 204) -> list[Event]:
    told: list[Event] = []

    def send(method: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        assert (method, body) == ("OPTIONS", None)
        assert "x-api-key" in headers["access-control-request-headers"]
        return Reply(status, answer(headers["origin"]), b"")

    check_preflight(send, origins, told.append)
    return told


def test_the_origins_of_the_settings_may_call_and_no_others() -> None:
    (step,) = preflight(lambda origin: cors(origin) if origin == OURS else {}, OURS)
    assert isinstance(step, Step)
    assert OURS in step.message
    preflight(lambda _origin: cors("*"), "*")
    preflight(lambda _origin: {})


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda _origin: {}, 204),
        (lambda _origin: cors("https://other.example"), 204),
        (lambda origin: cors(origin, "GET"), 204),
        (cors, 403),
    ],
)
def test_an_origin_that_is_kept_out(answer: Answer, status: int) -> None:
    with pytest.raises(DeployError, match=r"app\.example cannot call"):
        preflight(answer, OURS, status=status)


@pytest.mark.parametrize("answer", [cors, lambda _origin: cors("*")])
def test_an_origin_that_is_let_in(answer: Answer) -> None:
    with pytest.raises(DeployError, match="any origin"):
        preflight(answer)


def throttle(reply: Callable[[int], Reply], burst: int = 10) -> tuple[int, str]:
    """The number of requests sent, and the message."""
    sent: list[bytes | None] = []
    told: list[Event] = []

    def send(method: str, _headers: Mapping[str, str], body: bytes | None) -> Reply:
        assert method == "POST"
        sent.append(body)
        return reply(len(sent))

    check_throttle(send, rate=5, burst=burst, at_once=4, report=told.append)
    (step,) = told
    assert isinstance(step, Step)
    return len(sent), step.message


ADMITTED = Reply(422, {}, b"{}")
THROTTLED = Reply(429, {"retry-after": "1"}, json.dumps({"error": {"code": "throttled"}}).encode())


def test_it_asks_until_one_is_too_many() -> None:
    sent, told = throttle(lambda number: THROTTLED if number > 10 else ADMITTED)
    assert sent == 12
    assert "429" in told


def test_it_says_when_none_was_too_many_and_when_it_did_not_try() -> None:
    sent, told = throttle(lambda _number: ADMITTED)
    assert sent == 44
    assert "not reached with 44 requests in a row" in told
    assert throttle(lambda _number: ADMITTED, burst=5_000) == (
        0,
        "rate limit (5/s, 5000 at once) not tested: it would take too many requests",
    )


@pytest.mark.parametrize(
    "reply",
    [
        Reply(429, {}, THROTTLED.body),
        Reply(429, {"retry-after": "soon"}, THROTTLED.body),
        Reply(429, {"retry-after": "1"}, b"Too many"),
        Reply(429, {"retry-after": "1"}, b'{"error": {"code": "quota_exceeded"}}'),
    ],
)
def test_a_refusal_that_is_not_the_contracts(reply: Reply) -> None:
    with pytest.raises(DeployError, match="throttled request"):
        throttle(lambda _number: reply)

"""What API Gateway and Lambda do around a handler, whatever the handler does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fastai_deploy.runtime.error_responses import RequestError
from fastai_deploy.targets.local.gateway.function import MAX_PAYLOAD, Handler, Integration

GOOD = {"statusCode": 200, "headers": {"a": "b"}, "body": "{}", "isBase64Encoded": False}


def invoke(
    handler: Handler, *, event: Mapping[str, Any] | None = None, timeout_ms: int = 30_000
) -> Mapping[str, Any]:
    with ThreadPoolExecutor(1) as pool:
        integration = Integration(handler, pool, concurrency=1, timeout_ms=timeout_ms)
        return asyncio.run(integration.invoke({} if event is None else event))


def refused(handler: Handler, **arguments: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        invoke(handler, **arguments)
    return caught.value


def test_a_response_is_passed_on() -> None:
    assert invoke(lambda _event, _context: GOOD) == GOOD


def test_a_handler_gets_the_event_as_json_and_a_context() -> None:
    seen: list[Any] = []

    def handler(event: Any, context: Any) -> dict[str, Any]:
        seen.extend([event, context.get_remaining_time_in_millis(), context.aws_request_id])
        return GOOD

    invoke(handler, event={"pair": (1, 2)}, timeout_ms=20_000)
    event, remaining, request_id = seen
    assert event == {"pair": [1, 2]}
    assert 0 < remaining <= 20_000
    assert len(request_id) == 36


@pytest.mark.parametrize(
    "response",
    [
        None,
        [],
        "text",
        {},
        {**GOOD, "statusCode": 42},
        {**GOOD, "statusCode": "ok"},
        {**GOOD, "headers": None},
        {**GOOD, "headers": {"a": 1}},
        {**GOOD, "body": {"label": "x"}},
    ],
)
def test_a_malformed_response_is_a_defect(response: Any) -> None:
    error = refused(lambda _event, _context: response)
    assert (error.status, error.code) == (500, "internal")


def test_a_handler_that_never_ends_is_a_timeout() -> None:
    released = threading.Event()

    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        released.wait(30)
        return GOOD

    async def ask(pool: ThreadPoolExecutor) -> RequestError:
        integration = Integration(handler, pool, concurrency=1, timeout_ms=50)
        try:
            with pytest.raises(RequestError) as caught:
                await integration.invoke({})
        finally:
            released.set()
        return caught.value

    with ThreadPoolExecutor(1) as pool:
        error = asyncio.run(ask(pool))
    assert (error.status, error.code) == (504, "timeout")


def test_a_slot_is_free_again_after_a_failure() -> None:
    calls = iter([ZeroDivisionError(), None])

    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        error = next(calls)
        if error is not None:
            raise error
        return GOOD

    async def ask_twice(pool: ThreadPoolExecutor) -> Mapping[str, Any]:
        integration = Integration(handler, pool, concurrency=1, timeout_ms=30_000)
        with pytest.raises(ZeroDivisionError):
            await integration.invoke({})
        return await integration.invoke({})

    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(ask_twice(pool)) == GOOD


def test_an_event_above_6_mb_is_too_large() -> None:
    error = refused(lambda _event, _context: GOOD, event={"body": "a" * MAX_PAYLOAD})
    assert (error.status, error.code) == (413, "too_large")

"""A body is read up to its limit and no further."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from fastai_deploy.runtime.error_responses import RequestError
from fastai_deploy.targets.local.gateway.requests import RequestBody


class Sender:
    """Sends ``chunks`` chunks of ten bytes, or an endless number of them."""

    def __init__(self, chunks: int | None) -> None:
        self._chunks = chunks
        self.sent = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        self.sent += 1
        return {"type": "http.request", "body": b"a" * 10, "more_body": self.sent != self._chunks}


async def silence() -> MutableMapping[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def nobody() -> MutableMapping[str, Any]:
    return {"type": "http.disconnect"}


def read(sender: Any, limit: int, *headers: tuple[str, str], seconds: float = 30.0) -> bytes:
    return asyncio.run(RequestBody(sender, headers, seconds=seconds).read(limit))


def refused(
    sender: Any, limit: int, *headers: tuple[str, str], seconds: float = 30.0
) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(sender, limit, *headers, seconds=seconds)
    return caught.value


def test_a_body_may_come_in_pieces() -> None:
    assert read(Sender(3), 30) == b"a" * 30


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    endless = Sender(None)
    assert refused(endless, 25).code == "too_large"
    assert endless.sent == 3


@pytest.mark.parametrize("length", ["26", "99999999999999999999"])
def test_a_body_that_says_it_is_too_large_is_not_read(length: str) -> None:
    sender = Sender(3)
    assert refused(sender, 25, ("content-length", length)).code == "too_large"
    assert sender.sent == 0


def test_an_invalid_content_length_is_ignored() -> None:
    assert read(Sender(1), 10, ("content-length", "²")) == b"a" * 10


def test_a_body_that_never_comes_is_not_waited_for() -> None:
    error = refused(silence, 25, seconds=0.01)
    assert (error.status, error.code) == (504, "timeout")


def test_half_a_body_from_a_lost_client_is_discarded() -> None:
    error = refused(nobody, 25)
    assert (error.status, error.code) == (408, "timeout")

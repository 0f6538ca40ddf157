"""The errors of the contract that the server itself answers with."""

from __future__ import annotations

from typing import Sequence

from .request_error import RequestError


def too_large(limit: int) -> RequestError:
    """The body is above ``limit`` bytes."""
    message = f"the body is larger than {limit} bytes"
    return RequestError(413, "too_large", message, "send fewer or shorter texts in one request")


def compressed() -> RequestError:
    """The body has a Content-Encoding."""
    return RequestError(415, "unsupported_media_type", "the body is compressed", "send it as it is")


def not_found() -> RequestError:
    """No such route."""
    return RequestError(404, "not_found", "there is no such route", "POST to /invocations")


def method_not_allowed(allowed: Sequence[str]) -> RequestError:
    """The route exists, the method does not."""
    return RequestError(
        405, "method_not_allowed", "this route does not take this method", f"use {allowed[0]}"
    )


def overloaded(retry_after: int) -> RequestError:
    """The queue is full; ``retry_after`` in seconds."""
    hint = f"try again after {retry_after} s"
    return RequestError(503, "overloaded", "the model has too much to do", hint, retry_after)


def closing() -> RequestError:
    """The server is about to end."""
    return RequestError(503, "not_ready", "the model server is ending", "try again after 1 s", 1)


def timed_out() -> RequestError:
    """No answer in time."""
    return RequestError(504, "timeout", "the model gave no answer in time", "send shorter requests")


def internal() -> RequestError:
    """A defect; the reason goes to the log, never to the client."""
    return RequestError(
        500, "internal", "the server failed on this request", "its log has the reason"
    )

"""The contract's error responses that the model server sends."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence


class RequestError(Exception):
    """A request that gets an error as its answer, with the status and body.

    ``retry_after`` is in seconds, for the ``Retry-After`` header of 429 and 503.
    """

    def __init__(
        self, status: int, code: str, message: str, hint: str, retry_after: Optional[int] = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after

    def body(self) -> Dict[str, Any]:
        """The error as the contract formats it."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


def too_large(limit: int) -> RequestError:
    """The body is larger than ``limit`` bytes."""
    message = f"the body is larger than {limit} bytes"
    return RequestError(413, "too_large", message, "send fewer or shorter texts in one request")


def compressed() -> RequestError:
    """The body has a Content-Encoding."""
    return RequestError(
        415, "unsupported_media_type", "the body is compressed", "send it uncompressed"
    )


def bad_http() -> RequestError:
    """The bytes are not HTTP."""
    return RequestError(
        400, "bad_request", "the request is not well-formed HTTP", "send HTTP/1.1, without TLS"
    )


def no_host() -> RequestError:
    """No ``Host``, or more than one."""
    return RequestError(
        400, "bad_request", "the request needs exactly one Host header", "send Host: 127.0.0.1"
    )


def foreign_host() -> RequestError:
    """``Host`` names another machine, as it does for a web page that uses DNS rebinding."""
    return RequestError(
        403,
        "forbidden",
        "the Host header does not name this machine",
        "call 127.0.0.1 or localhost, or add the name to allowed_hosts under [api] in fdeploy.toml",
    )


def foreign_origin() -> RequestError:
    """A page of another origin made the request."""
    return RequestError(
        403,
        "forbidden",
        "pages of this origin may not call this server",
        "add the origin to cors_origins under [api] in fdeploy.toml",
    )


def late_request(seconds: float) -> RequestError:
    """The rest of the request did not arrive in time."""
    return RequestError(
        408,
        "timeout",
        f"the rest of the request did not arrive within {seconds:g} s",
        "send the request again",
    )


def headers_too_large(limit: int) -> RequestError:
    """The request line and the headers are above ``limit`` bytes together."""
    return RequestError(
        431,
        "headers_too_large",
        f"the request line and the headers are larger than {limit} bytes",
        "send fewer or shorter headers",
    )


def too_many_connections() -> RequestError:
    """All connections that this server may have are open and busy."""
    hint = "try again after 1 s, on fewer connections"
    return RequestError(503, "overloaded", "too many connections are open", hint, 1)


def too_much_in_bodies() -> RequestError:
    """Incomplete bodies already take all the memory that they may."""
    hint = "try again after 1 s, or send smaller requests"
    return RequestError(503, "overloaded", "too many large requests are arriving", hint, 1)


def not_found() -> RequestError:
    """No such route."""
    return RequestError(404, "not_found", "there is no such route", "POST to /invocations")


def method_not_allowed(allowed: Sequence[str]) -> RequestError:
    """The route exists, the method does not."""
    return RequestError(
        405, "method_not_allowed", "this route does not support this method", f"use {allowed[0]}"
    )


def overloaded(retry_after: int) -> RequestError:
    """The queue is full; ``retry_after`` in seconds."""
    hint = f"try again after {retry_after} s"
    return RequestError(503, "overloaded", "the model is overloaded", hint, retry_after)


def closing() -> RequestError:
    """The server is shutting down."""
    return RequestError(
        503, "not_ready", "the model server is shutting down", "try again after 1 s", 1
    )


def timed_out() -> RequestError:
    """No answer in time."""
    return RequestError(504, "timeout", "the model did not answer in time", "send shorter requests")


def internal() -> RequestError:
    """A defect; the reason goes to the log, never to the client."""
    return RequestError(
        500, "internal", "the server failed on this request", "its log has the reason"
    )

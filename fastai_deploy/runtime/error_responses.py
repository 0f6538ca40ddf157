"""The error responses of the contract, worded once for everything that sends them.

The model server, the gateway, API Gateway's template and the local gateway take them from here, so
that the same fault reads the same wherever it is found. ``contract.ERRORS`` lists the codes.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

KEY_HINT = "send the key in the header x-api-key"


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


def too_large_for_the_model() -> RequestError:
    """The model server takes no request of this size."""
    return RequestError(
        413, "too_large", "the request is too large for the model", "send fewer texts at once"
    )


def answer_too_large() -> RequestError:
    """The answer is above what Lambda may send."""
    return RequestError(
        413,
        "too_large",
        "the answer to so many texts is too large",
        'send fewer texts in one request, or "top_k"',
    )


def no_key() -> RequestError:
    """No API key, or a wrong one."""
    return RequestError(403, "forbidden", "the request has no valid API key", KEY_HINT)


def throttled(message: str, retry_after: int = 1) -> RequestError:
    """Above the rate; ``message`` says which, ``retry_after`` is in seconds."""
    return RequestError(429, "throttled", message, _again(retry_after), retry_after)


def quota_exceeded(message: str, hint: str, retry_after: Optional[int] = None) -> RequestError:
    """Above the quota; ``hint`` says when the next period begins."""
    return RequestError(429, "quota_exceeded", message, hint, retry_after)


def not_found(route: str = "/invocations") -> RequestError:
    """No such route; ``route`` is the one that there is."""
    return RequestError(404, "not_found", "there is no such route", f"send POST {route}")


def method_not_allowed(allowed: Sequence[str]) -> RequestError:
    """The route exists, the method does not."""
    return RequestError(
        405,
        "method_not_allowed",
        "this route does not support this method",
        f"use {' or '.join(allowed)}",
    )


def overloaded(retry_after: int = 1) -> RequestError:
    """Too much at once; ``retry_after`` in seconds."""
    return RequestError(
        503, "overloaded", "the model is overloaded", _again(retry_after), retry_after
    )


def not_ready() -> RequestError:
    """The endpoint is not up."""
    return RequestError(503, "not_ready", "the model is not up", _again(5), 5)


def closing() -> RequestError:
    """The server is shutting down."""
    return RequestError(
        503, "not_ready", "the model server is shutting down", "try again after 1 s", 1
    )


def timed_out() -> RequestError:
    """No answer in time."""
    return RequestError(
        504, "timeout", "the model did not answer in time", "send less text in one request"
    )


def late_body() -> RequestError:
    """The body did not arrive in time."""
    return RequestError(504, "timeout", "the body did not arrive in time", "send the request again")


def model_error() -> RequestError:
    """The model failed; the reason is in its log."""
    return RequestError(
        500,
        "model_error",
        "the model failed on this request",
        "the endpoint's log has the reason",
    )


def internal() -> RequestError:
    """A defect; the reason goes to the log, never to the client."""
    return RequestError(
        500,
        "internal",
        "the request could not be answered because of a defect",
        "the log has the reason, under the x-request-id",
    )


def _again(seconds: int) -> str:
    return f"try again after {seconds} s"

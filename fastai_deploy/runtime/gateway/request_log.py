"""One line of JSON per request: for people, for queries, and for CloudWatch's metrics.

The line is in CloudWatch's embedded metric format, so metrics cost no call. It contains nothing
that a user sent: no text, no header, no path. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from typing import Any, Dict, Mapping, TextIO

from ..contract import Json, RequestError
from .failures import ErrorResponse, internal

NAMESPACE = "fdeploy"
_CLIENT_ERROR = 400
_SERVER_ERROR = 500
_METRICS = (
    ("Requests", "Count"),
    ("Texts", "Count"),
    ("RequestBytes", "Bytes"),
    ("Latency", "Milliseconds"),
    ("ClientErrors", "Count"),
    ("ServerErrors", "Count"),
)


def line(endpoint: str, facts: Mapping[str, Json], *, now: float) -> str:
    """The log line of a request; ``facts`` needs ``status``, ``ms``, ``bytes`` and ``texts``.

    ``now`` is in seconds since 1970.
    """
    status = int(facts["status"])
    metrics = [{"Name": name, "Unit": unit} for name, unit in _METRICS]
    directive = {"Namespace": NAMESPACE, "Dimensions": [["Endpoint"]], "Metrics": metrics}
    entry: Dict[str, Json] = {
        **facts,
        "_aws": {"Timestamp": int(now * 1_000), "CloudWatchMetrics": [directive]},
        "Endpoint": endpoint,
        "Requests": 1,
        "Texts": facts["texts"],
        "RequestBytes": facts["bytes"],
        "Latency": facts["ms"],
        "ClientErrors": int(_CLIENT_ERROR <= status < _SERVER_ERROR),
        "ServerErrors": int(status >= _SERVER_ERROR),
    }
    return json.dumps(entry, separators=(",", ":")) + "\n"


def write(stream: TextIO, text: str) -> None:
    """Write a whole line at once; a failure to log never loses an answer."""
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()


def failure(error: Exception) -> ErrorResponse:
    """The error response for an exception, with facts for the log.

    For a defect the log gets its location, but not the exception's message, which may repeat what a
    user sent.
    """
    if isinstance(error, ErrorResponse):
        return error
    if isinstance(error, RequestError):
        return ErrorResponse(error)
    frames: Any = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return internal({"error": type(error).__name__, "where": where})

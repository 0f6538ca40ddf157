"""Faults that the double injects into calls on request, in the protocol of the call.

    throttle   the service asks for fewer requests        reset   the connection breaks off first
    deny       access denied                              lost    done, but the answer never comes
    unwell     a server error                             hang    no answer until the client leaves
    expire     the credentials have expired

A call is what boto3 does for one operation, its own retries included; it keeps one
``amz-sdk-invocation-id``, so a fault can hit the first attempt, or all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.aws_double.operation import CBOR, JSON, QUERY, REST_XML, Operation, Request

ANSWERS = {
    "throttle": (400, "ThrottlingException", "Rate exceeded"),
    "expire": (400, "ExpiredToken", "The security token included in the request is expired"),
    "deny": (403, "AccessDenied", "User: somebody is not authorized to perform this action"),
    "unwell": (500, "InternalFailure", "An internal error occurred"),
}
SILENT = ("reset", "lost", "hang")
_SIGNED = "%Y%m%dT%H%M%SZ"  # the form of X-Amz-Date
_ALLOWED = timedelta(minutes=5)
_S3_THROTTLE = (503, "SlowDown", "Please reduce your request rate.")


@dataclass
class Fault:
    """``kind`` happens to the call number ``call`` of fdeploy, or to each that the names match.

    ``attempts`` is how many attempts of a call are hit; all when 0. ``times`` is how many calls
    are hit; all when 0.
    """

    kind: str
    call: int = 0
    service: str = ""
    operation: str = ""
    attempts: int = 0
    times: int = 0


@dataclass(frozen=True)
class Call:
    """One call of the journal; ``attempts`` is how often it was sent."""

    number: int
    service: str
    operation: str
    attempts: int
    fault: str = ""


@dataclass
class Journal:
    """The calls of one account, in order, and what is to go wrong with them."""

    faults: list[Fault] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)

    def fate(self, operation: Operation, request: Request) -> str:
        """Count the call, and say what happens to it: a kind of fault, or nothing."""
        if "fdeploy/" not in request.headers.get("user-agent", ""):
            return ""
        identity = request.headers.get("amz-sdk-invocation-id") or f"plain-{len(self.calls)}"
        before = self.calls.get(identity)
        number = before.number if before else len(self.calls) + 1
        attempts = before.attempts + 1 if before else 1
        kind = self._kind(operation, number, attempts, before)
        shown = kind or (before.fault if before else "")
        self.calls[identity] = Call(number, operation.service, operation.name, attempts, shown)
        return kind

    def _kind(self, operation: Operation, number: int, attempts: int, before: Call | None) -> str:
        for fault in self.faults:
            if fault.call and fault.call != number:
                continue
            if fault.service and fault.service != operation.service:
                continue
            if fault.operation and fault.operation != operation.name:
                continue
            if fault.attempts and attempts > fault.attempts:
                continue
            if fault.times and before is None:
                hit = sum(1 for call in self.calls.values() if call.fault == fault.kind)
                if hit >= fault.times:
                    continue
            if before is not None and not before.fault:
                continue
            return fault.kind
        return ""

    def told(self) -> list[dict[str, Any]]:
        """The calls as JSON."""
        return [asdict(call) for call in self.calls.values()]


def answer(kind: str, operation: Operation) -> tuple[int, Mapping[str, str], bytes]:
    """The error answer of a fault, as the service would write it."""
    status, code, words = ANSWERS[kind]
    if operation.protocol == REST_XML and kind == "throttle":
        status, code, words = _S3_THROTTLE
    if operation.protocol == QUERY and kind == "throttle":
        code = "Throttling"
    return _refusal(operation, status, code, words)


def skewed(
    operation: Operation, request: Request, now: datetime
) -> tuple[int, Mapping[str, str], bytes] | None:
    """The refusal of a request whose signature is of another time than ``now``; None if it is good.

    S3 allows 15 minutes (Amazon S3 API: "Error responses", RequestTimeTooSkewed), other services 5
    (IAM user guide: "Troubleshoot signed requests").
    """
    signed = request.headers.get("x-amz-date", "")
    if not signed:
        return None
    at = datetime.strptime(signed, _SIGNED).replace(tzinfo=timezone.utc)
    if operation.protocol == REST_XML:
        if abs(now - at) <= 3 * _ALLOWED:
            return None
        words = "The difference between the request time and the current time is too large."
        return _refusal(operation, 403, "RequestTimeTooSkewed", words)
    if abs(now - at) <= _ALLOWED:
        return None
    earlier = at < now
    limit = now - _ALLOWED if earlier else now + _ALLOWED
    words = (
        f"Signature {'expired' if earlier else 'not yet current'}: {signed} is "
        f"{'now earlier' if earlier else 'still later'} than {limit:{_SIGNED}} "
        f"({now:{_SIGNED}} {'-' if earlier else '+'} 5 min.)"
    )
    code = "SignatureDoesNotMatch" if operation.protocol == QUERY else "InvalidSignatureException"
    return _refusal(operation, 403, code, words)


def _refusal(
    operation: Operation, status: int, code: str, words: str
) -> tuple[int, Mapping[str, str], bytes]:
    """An error in the protocol of a call."""
    if operation.protocol == QUERY:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
            f"<Message>{words}</Message></Error><RequestId>double</RequestId></ErrorResponse>"
        )
        return status, {"content-type": "text/xml"}, body.encode()
    if operation.protocol == REST_XML:
        body = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
        return status, {"content-type": "application/xml"}, body.encode()
    if operation.protocol == CBOR:
        return (
            status,
            {"content-type": "application/cbor"},
            _cbor({"__type": code, "message": words}),
        )
    kind_of_json = (
        "application/x-amz-json-1.1" if operation.protocol == JSON else "application/json"
    )
    headers = {"content-type": kind_of_json, "x-amzn-errortype": code}
    return status, headers, json.dumps({"__type": code, "message": words}).encode()


def _cbor(values: Mapping[str, str]) -> bytes:
    """A map of short texts in CBOR (RFC 8949)."""

    def text(value: str) -> bytes:
        data = value.encode()
        return bytes([0x78, len(data)]) + data

    return bytes([0xA0 + len(values)]) + b"".join(text(k) + text(v) for k, v in values.items())

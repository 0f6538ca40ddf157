"""Checks of a new API in addition to the goldens, made from outside as a stranger would.

refused     requests without the key are refused (each target checks this itself)
preflight   pages of the allowed origins may call the API, and no others (CORS)
throttled   above the rate limit, the answer is 429 with a Retry-After header
"""

from __future__ import annotations

import http
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastai_deploy.errors import DeployError
from fastai_deploy.progress import Reporter, Step

_FOREIGN = "https://not-allowed.invalid"
_ANY = "https://any.invalid"
_MOST_BURST = 500  # the most requests that a check may send
_WRONG = b"[]"  # counted by the usage plan, but refused before it costs anything
_AGAIN = "run fdeploy teardown, then fdeploy up"


@dataclass(frozen=True)
class Reply:
    """An answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# (method, headers, body) -> the API's answer. Raises InvocationError if there is none.
Send = Callable[[str, Mapping[str, str], bytes | None], Reply]


def check_preflight(send: Send, origins: Sequence[str], report: Reporter) -> None:
    """Send CORS preflight requests, as a browser does. Raises DeployError."""
    open_to_all = "*" in origins
    for origin in [_ANY] if open_to_all else origins:
        reply = send("OPTIONS", _preflight(origin), None)
        allowed = reply.headers.get("access-control-allow-origin")
        methods = reply.headers.get("access-control-allow-methods", "")
        if reply.status not in (200, 204) or allowed not in (origin, "*") or "POST" not in methods:
            raise DeployError(
                f"CORS: pages of {origin} cannot call the API: their preflight was answered "
                f"{reply.status} without the expected headers",
                hint=_AGAIN,
            )
    if not open_to_all:
        allowed = send("OPTIONS", _preflight(_FOREIGN), None).headers.get(
            "access-control-allow-origin"
        )
        if allowed in (_FOREIGN, "*"):
            raise DeployError("CORS: pages of any origin can call the API", hint=_AGAIN)
    if open_to_all:
        allowed = "any origin may"
    else:
        allowed = f"{', '.join(origins)} may" if origins else "no other origin may"
    report(Step(f"CORS: {allowed} call the API"))


def _preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }


def check_throttle(send: Send, *, rate: float, burst: int, at_once: int, report: Reporter) -> None:
    """Send more than a burst of cheap requests, until one is refused.

    Reports if that would take too many requests, or if none is refused. Raises DeployError if the
    refusal is not in the contract's form.
    """
    if burst > _MOST_BURST:
        report(
            Step(
                f"rate limit ({rate:g}/s, {burst} at once) not tested: "
                "it would take too many requests"
            )
        )
        return
    headers = {"content-type": "application/json"}
    sent = 0
    with ThreadPoolExecutor(at_once, thread_name_prefix="proof") as pool:
        while sent < 4 * burst + at_once:
            replies = list(pool.map(lambda _: send("POST", headers, _WRONG), range(at_once)))
            sent += at_once
            refused = [r for r in replies if r.status == http.HTTPStatus.TOO_MANY_REQUESTS]
            if refused:
                _check_refusal(refused[0])
                report(Step(f"rate limit: above {burst} requests at once, the API answers 429"))
                return
    report(
        Step(f"rate limit ({rate:g}/s, {burst} at once) not reached with {sent} requests in a row")
    )


def _check_refusal(reply: Reply) -> None:
    try:
        code = json.loads(reply.body)["error"]["code"]
    except (ValueError, TypeError, KeyError):
        code = "no error of the contract"
    if code != "throttled" or not reply.headers.get("retry-after", "").isdecimal():
        raise DeployError(
            f"a throttled request was answered {code}, or without Retry-After", hint=_AGAIN
        )

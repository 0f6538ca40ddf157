"""What an API must show before it counts as made, beside the goldens: asked as a stranger would.

refused     without the key nobody gets an answer (each target asks that itself)
preflight   pages of the allowed origins may call, and no others
throttled   above the rate the answer is 429, with a Retry-After
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
_MOST_BURST = 500  # requests that a proof may cost
_WRONG = b"[]"  # counted by the usage plan, refused before it costs anything
_AGAIN = "run fdeploy teardown, then fdeploy up"


@dataclass(frozen=True)
class Reply:
    """An answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# (method, headers, body) -> the API's answer. Raises InvocationError where there is none.
Send = Callable[[str, Mapping[str, str], bytes | None], Reply]


def check_preflight(send: Send, origins: Sequence[str], report: Reporter) -> None:
    """Ask as a browser does before it calls. Raises DeployError."""
    open_to_all = "*" in origins
    for origin in [_ANY] if open_to_all else origins:
        reply = send("OPTIONS", _preflight(origin), None)
        allowed = reply.headers.get("access-control-allow-origin")
        methods = reply.headers.get("access-control-allow-methods", "")
        if reply.status not in (200, 204) or allowed not in (origin, "*") or "POST" not in methods:
            raise DeployError(
                f"a page of {origin} may not call the API: its preflight was answered "
                f"{reply.status}, and not with the CORS headers",
                hint=_AGAIN,
            )
    if not open_to_all:
        allowed = send("OPTIONS", _preflight(_FOREIGN), None).headers.get(
            "access-control-allow-origin"
        )
        if allowed in (_FOREIGN, "*"):
            raise DeployError("a page of any origin may call the API", hint=_AGAIN)
    told = "every page" if open_to_all else ", ".join(origins) or "no page of another origin"
    report(Step(f"may call the API from a browser: {told}"))


def _preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }


def check_throttle(send: Send, *, rate: float, burst: int, at_once: int, report: Reporter) -> None:
    """Send more than a burst of requests that cost nothing, until one is refused.

    Where that would be too many, or none is refused, it says so. Raises DeployError for a refusal
    that is not the contract's.
    """
    if burst > _MOST_BURST:
        report(Step(f"the throttle ({rate:g}/s, {burst} at once) was not tried: that is too much"))
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
                report(Step(f"more than {burst} requests at once are answered 429, not all"))
                return
    report(
        Step(f"{sent} requests in a row were not too many: the throttle is at {rate:g}/s, {burst}")
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

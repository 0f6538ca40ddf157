"""What the Lambda is told, and how it spends its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Tuple


@dataclass(frozen=True)
class GatewaySettings:
    """The settings of a gateway; ``max_body`` is in bytes, ``timeout_ms`` the Lambda's own."""

    endpoint: str
    route: str = "/classify"
    max_body: int = 1_048_576
    cors_origins: Tuple[str, ...] = ()
    timeout_ms: int = 29_000
    log_text: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> GatewaySettings:
        """Read the ``FDEPLOY_*`` variables.

        Raises KeyError when FDEPLOY_ENDPOINT is missing, ValueError for a number that is none.
        """
        return cls(
            endpoint=environ["FDEPLOY_ENDPOINT"],
            route=environ.get("FDEPLOY_ROUTE", cls.route),
            max_body=int(environ.get("FDEPLOY_MAX_BODY", cls.max_body)),
            cors_origins=tuple(environ.get("FDEPLOY_CORS_ORIGINS", "").replace(",", " ").split()),
            timeout_ms=int(environ.get("FDEPLOY_TIMEOUT_MS", cls.timeout_ms)),
            log_text=environ.get("FDEPLOY_LOG_TEXT", "").lower() in ("1", "on", "true", "yes"),
        )


@dataclass(frozen=True)
class TimeBudget:
    """How one request's time is spent, in seconds; the parts add up to less than the time-out.

    An attempt may begin until ``retry_until`` after the request came; each may take ``connect`` to
    connect and ``read`` to be answered. So quick failures are tried again, and a slow answer is
    waited for once.
    """

    connect: float
    read: float
    retry_until: float

    @classmethod
    def of(cls, timeout_ms: int) -> TimeBudget:
        """The budget of a request that may take ``timeout_ms``."""
        total = timeout_ms / 1_000
        usable = total - min(0.5, total / 10)  # the rest is for checking and answering
        window = min(2.0, usable / 4)
        return cls(connect=window / 2, read=usable - window, retry_until=window / 2)

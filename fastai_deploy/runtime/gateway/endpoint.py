"""Call the SageMaker endpoint: one client, one time budget, every failure an error response."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Tuple

from .. import error_responses
from ..contract import (
    JSON,
    Json,
)
from .failures import ErrorResponse, internal


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

        Raises KeyError if FDEPLOY_ENDPOINT is missing, ValueError for an invalid number.
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

    An attempt may begin until ``retry_until`` after the request arrived; each may take ``connect``
    to connect and ``read`` to be answered. So quick failures are retried, and a slow answer is
    awaited once.
    """

    connect: float
    read: float
    retry_until: float

    @property
    def usable(self) -> float:
        """Within how many seconds a request is answered; the rest is for checking and answering."""
        return self.retry_until + self.connect + self.read

    @classmethod
    def of(cls, timeout_ms: int) -> TimeBudget:
        """The budget of a request that may take ``timeout_ms``."""
        total = timeout_ms / 1_000
        usable = total - min(0.5, total / 10)
        window = min(2.0, usable / 4)
        return cls(connect=window / 2, read=usable - window, retry_until=window / 2)


# A Lambda may return 6 MB, with quotes escaped (AWS: Lambda quotas); the rest is for the headers.
MAX_ANSWER = 6 * 1024 * 1024 - 16 * 1024
_FIRST_PAUSE = 0.1


class Asked(Protocol):
    """What answers a checked request."""

    def invoke(self, body: bytes, *, deadline: float, ends: float, facts: Dict[str, Json]) -> bytes:
        """The answer to a JSON body; attempts begin until ``deadline``, in the gateway's clock.

        After ``ends`` nobody waits for the answer. Raises ErrorResponse. May add to ``facts``,
        which are logged.
        """
        ...


class Endpoint:
    """A SageMaker endpoint, called through ``client``, whose own retries are off.

    ``clock`` counts seconds; ``jitter`` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._name = name
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    def invoke(self, body: bytes, *, deadline: float, ends: float, facts: Dict[str, Json]) -> bytes:
        """The endpoint's answer to a JSON body; attempts begin until ``deadline``.

        The client's own time-outs see to ``ends``. Raises ErrorResponse. Adds the number of
        attempts to ``facts``.
        """
        del ends
        pause = _FIRST_PAUSE
        facts["attempts"] = 0
        while True:
            facts["attempts"] += 1
            try:
                response = self._client.invoke_endpoint(
                    EndpointName=self._name, ContentType=JSON, Accept=JSON, Body=body
                )
                answer = bytes(response["Body"].read())
            except Exception as error:
                # A model in the function itself needs no botocore, which takes long to import.
                from . import endpoint_errors  # noqa: PLC0415

                failure = endpoint_errors.of(error)
                wait = pause * (0.5 + self._jitter() / 2)
                if not failure.transient or self._clock() + wait > deadline:
                    raise failure from error
            else:
                return fitting(answer)
            self._sleep(wait)
            pause *= 2


def sagemaker_runtime(
    settings: GatewaySettings,
    *,
    connections: int = 1,
    proxies: Optional[Mapping[str, str]] = None,
    **options: Any,
) -> Any:
    """A ``sagemaker-runtime`` client within the time budget; ``options`` as in create_client.

    Its own retries are off, because they ignore the remaining time. ``connections`` is how many
    requests are sent at once (a Lambda handles one); without ``proxies``, those of the environment
    are used.
    """
    # Most of the cold start, and not needed where a fake client answers events.
    import botocore.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    # Now, and not when the first request fails.
    from . import endpoint_errors  # noqa: F401, PLC0415

    budget = TimeBudget.of(settings.timeout_ms)
    config = Config(
        connect_timeout=budget.connect,
        read_timeout=budget.read,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
        max_pool_connections=connections,
        proxies=proxies,
    )
    session = botocore.session.Session()
    return session.create_client("sagemaker-runtime", config=config, **options)


def fitting(answer: bytes) -> bytes:
    """The model's answer, if it is JSON and a Lambda may return it. Raises ErrorResponse."""
    if len(answer) + answer.count(b'"') + answer.count(b"\\") > MAX_ANSWER:
        raise ErrorResponse(error_responses.answer_too_large(), facts={"answer_bytes": len(answer)})
    try:
        json.loads(answer.decode("utf-8"))
    except (ValueError, RecursionError):
        raise internal({"error": "the model's answer is not JSON"}) from None
    return answer

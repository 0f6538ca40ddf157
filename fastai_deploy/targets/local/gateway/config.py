"""The configuration of a gateway process: a frozen record, stored as a JSON file."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fastai_deploy.errors import SettingsError

KEY_LENGTH = 40
PROBE = "x-fdeploy-probe"
"""Header of the requests with which fdeploy checks the API; its value is a key of the API."""

PROBE_ID = "probe-"
"""What the IDs of such requests begin with, so that logs and figures can leave them out."""

QuotaPeriod = Literal["DAY", "WEEK", "MONTH"]
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class GatewayConfig:
    """The settings of one gateway.

    ``endpoint_state`` is the file that names the live model server (``{"port": ...}``);
    ``key_files`` hold one key each. Both are read on every request. ``rate`` is in requests per
    second, ``max_body`` in bytes, ``timeout_ms`` the request timeout; ``concurrency`` is the number
    of concurrent invocations of the Lambda. ``package`` is the Lambda's zip, by default one without
    documents; ``page``: it contains a demo page for ``/``. ``allowed_hosts`` are accepted in
    addition to localhost and 127.0.0.1; ``log_file`` is where its output goes, which it rotates.
    """

    endpoint: str
    endpoint_state: str
    key_files: tuple[str, ...]
    route: str = "/classify"
    port: int = 0
    stage: str = "dev"
    rate: float = 50.0
    burst: int = 100
    quota: int | None = None
    quota_period: QuotaPeriod = "DAY"
    max_body: int = 1_048_576
    timeout_ms: int = 29_000
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    concurrency: int = 32
    log_text: bool = False
    package: str = ""
    page: bool = False
    log_file: str = ""

    def encode(self) -> bytes:
        """The record as JSON; the same record gives the same bytes."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> GatewayConfig:
        """Parse a record. Raises SettingsError if fdeploy did not write it."""
        try:
            values: dict[str, Any] = json.loads(data)
            for name in ("key_files", "cors_origins", "allowed_hosts"):
                values[name] = tuple(str(item) for item in values.get(name, ()))
            return cls(**values)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SettingsError(
                f"the gateway's configuration is damaged: {error}",
                hint="run fdeploy create-api, which rewrites it",
            ) from None


def new_key() -> str:
    """A new API key: 40 letters and digits (about 238 bits) from the system's random source.

    It is as long as API Gateway's keys. The caller stores it in a file of mode 0600.
    """
    return "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))

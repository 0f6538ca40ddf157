"""Lambda emulated: unpacks, imports and invokes the package that AWS would get."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import io
import json
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TextIO

from fastai_deploy import files
from fastai_deploy.packaging.lambda_zip import PACKAGE
from fastai_deploy.runtime import error_responses
from fastai_deploy.runtime.gateway import failures
from fastai_deploy.targets.local.gateway.config import GatewayConfig

_REGION = "us-east-1"  # only for the signature; nothing leaves this machine

Handler = Callable[[Any, Any], dict[str, Any]]


@dataclass(frozen=True)
class LambdaContext:
    """The context that Lambda passes to a handler; ``deadline`` is in monotonic seconds."""

    aws_request_id: str
    deadline: float
    function_name: str = "local"
    memory_limit_in_mb: str = "256"

    @classmethod
    def begin(cls, timeout_ms: int) -> LambdaContext:
        """The context of an invocation that starts now."""
        return cls(str(uuid.uuid4()), time.monotonic() + timeout_ms / 1_000)

    def get_remaining_time_in_millis(self) -> int:
        """The milliseconds until Lambda would end the invocation."""
        return max(0, int((self.deadline - time.monotonic()) * 1_000))


def unpack_package(package: bytes, folder: Path) -> Path:
    """Unpack a package into a subfolder named after its hash. Raises FileError.

    ``folder`` is emptied first, because Python would import what is in it and write caches there.
    """
    files.remove_tree(folder)
    home = folder / hashlib.sha256(package).hexdigest()[:12]
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        for name in archive.namelist():
            files.write(home / name, archive.read(name))
    return home


def load_handler(
    home: Path, config: GatewayConfig, *, endpoint_url: str, access_key: str, log: TextIO
) -> Handler:
    """Load the handler of an unpacked package, with a boto3 client that calls only this machine.

    Imports the package into the process. The client's credentials are made up, and it takes no
    settings from the environment.
    """
    sys.path.insert(0, str(home))
    gateway = importlib.import_module(f"{PACKAGE}.gateway.gateway")
    endpoint = importlib.import_module(f"{PACKAGE}.gateway.endpoint")
    settings = endpoint.GatewaySettings(
        endpoint=config.endpoint,
        route=config.route,
        max_body=config.max_body,
        cors_origins=config.cors_origins,
        timeout_ms=config.timeout_ms,
        log_text=config.log_text,
    )
    client = endpoint.sagemaker_runtime(
        settings,
        region_name=_REGION,
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key="none",  # noqa: S106 nobody checks it
        connections=config.concurrency,
        proxies={},
    )
    asked = endpoint.Endpoint(client, settings.endpoint)
    handler: Handler = gateway.Gateway(asked, settings, log=log).handle
    return handler


MAX_PAYLOAD = 6 * 1024 * 1024  # bytes of a Lambda request or response (AWS: Lambda quotas)


class Integration:
    """Runs a handler in ``pool``, which must have ``concurrency`` threads."""

    def __init__(
        self, handler: Handler, pool: Executor, *, concurrency: int, timeout_ms: int
    ) -> None:
        self._handler = handler
        self._pool = pool
        self._timeout_ms = timeout_ms
        self._slots = threading.BoundedSemaphore(concurrency)

    async def invoke(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the handler and return its response.

        Raises ErrorResponse: 503 if all slots are taken, 504 after the timeout (the handler's own
        comes first), 413 and 500 for payloads that Lambda or API Gateway would reject.
        """
        if not self._slots.acquire(blocking=False):
            raise failures.overloaded({"error": "concurrency"})
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor(self._pool, self._run, event)
        try:
            return await asyncio.wait_for(run, self._timeout_ms / 1_000)
        except asyncio.TimeoutError:
            raise failures.timeout({"error": "integration time-out"}) from None

    def _run(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Invoke the handler with JSON both ways, as API Gateway and Lambda do."""
        try:
            payload = json.dumps(event)
            if len(payload) > MAX_PAYLOAD:
                raise error_responses.too_large(MAX_PAYLOAD)
            context = LambdaContext.begin(self._timeout_ms)
            response = json.loads(json.dumps(self._handler(json.loads(payload), context)))
        finally:
            self._slots.release()
        if not _is_proxy_response(response):
            raise failures.internal({"error": "malformed proxy response"})
        return dict(response)


def _is_proxy_response(value: Any) -> bool:
    try:
        HTTPStatus(value["statusCode"])
        return isinstance(value["body"], str) and all(
            isinstance(part, str) for pair in value["headers"].items() for part in pair
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return False

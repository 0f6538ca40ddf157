"""The gateway process: its sockets and threads, start and shutdown."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from fastai_deploy import files
from fastai_deploy.errors import PortTaken
from fastai_deploy.packaging.lambda_zip import build_lambda_package
from fastai_deploy.runtime.host_check import HostCheck
from fastai_deploy.runtime.log import Log
from fastai_deploy.runtime.server import HttpServer, listen
from fastai_deploy.targets.local.gateway.app import GatewayApp
from fastai_deploy.targets.local.gateway.config import GatewayConfig
from fastai_deploy.targets.local.gateway.function import Integration, load_handler, unpack_package
from fastai_deploy.targets.local.gateway.sagemaker_runtime import (
    SageMakerRuntimeConfig,
    serve_sagemaker_runtime,
)
from fastai_deploy.targets.local.gateway.usage_plans import KeyRing, UsagePlan

_GRACE_SECONDS = 5  # time for requests in flight at shutdown


def serve(config: GatewayConfig, *, folder: Path, announce: Path, log: TextIO) -> None:
    """Serve until SIGTERM or SIGINT; ``announce`` is written when the server is ready.

    The Lambda package is unpacked below ``folder``. Raises PortTaken or FileError.
    """
    keys = KeyRing([Path(path) for path in config.key_files])
    keys.check()
    access_key = secrets.token_hex(10).upper()
    front_config = SageMakerRuntimeConfig(config.endpoint, Path(config.endpoint_state), access_key)
    # The emulated runtime ends before the threads, which may be waiting for it.
    with (
        _listen(config.port) as listener,
        ThreadPoolExecutor(config.concurrency, thread_name_prefix="function") as pool,
        serve_sagemaker_runtime(front_config) as endpoint_url,
    ):
        home = unpack_package(_package(config), folder)
        handler = load_handler(
            home, config, endpoint_url=endpoint_url, access_key=access_key, log=log
        )
        app = GatewayApp(
            config,
            keys=keys,
            plan=UsagePlan(
                rate=config.rate,
                burst=config.burst,
                quota=config.quota,
                period=config.quota_period,
                clock=time.monotonic,
                now=lambda: datetime.now(timezone.utc),
            ),
            integration=Integration(
                handler, pool, concurrency=config.concurrency, timeout_ms=config.timeout_ms
            ),
            log=log,
        )
        announcement = {"pid": os.getpid(), "port": listener.getsockname()[1]}
        text = json.dumps(announcement).encode()
        server = HttpServer(
            app,
            Log(log),
            ready=lambda: files.write(announce, text),
            grace=_GRACE_SECONDS,
            hosts=HostCheck(config.allowed_hosts, config.cors_origins),
            log_file=Path(config.log_file) if config.log_file else None,
        )
        server.run([listener])


def _package(config: GatewayConfig) -> bytes:
    if not config.package:
        return build_lambda_package()
    return files.read(Path(config.package))


def _listen(port: int) -> socket.socket:
    try:
        return listen(port)
    except OSError as error:
        raise PortTaken(
            f"the gateway cannot listen on port {port}: {error.strerror}",
            hint="set another port in [api] of fdeploy.toml; 0 picks a free one",
        ) from None

"""A Ray Serve application over the same server code: one replica, which uses every core.

Ray routes ``POST /``; what it hands over goes through the same batcher as on any other server, with
its bounded line. A replica whose model cannot be served takes the whole of Serve down: Ray would
otherwise report itself healthy while it starts the replica again and again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from . import hardware
from .app import App
from .batching import Batcher
from .bundle import ModelError
from .contract import Outcome
from .encoding import Encoded
from .loading import load
from .log import Log
from .session import plan
from .waiting_line import Capacity

_VERSION_VARIABLE = "FDEPLOY_VERSION"
_TIMEOUT = 60.0  # seconds; as long as InvokeEndpoint waits
_READERS = 2
_ONGOING = 1_000  # the batcher refuses long before, with a Retry-After that Ray has not
_SHUT_DOWN = (
    "import sys, ray; from ray import serve; "
    "ray.init(address=sys.argv[1], namespace='serve', log_to_driver=False); serve.shutdown()"
)


class Model:
    """A replica: loads and checks the model, then answers requests."""

    def __init__(self, folder: str) -> None:
        log = Log(sys.stderr)
        found = hardware.detect()
        planned = plan(found)
        try:
            loaded = load(
                Path(folder), found, planned.threads, version=os.environ.get(_VERSION_VARIABLE)
            )
        except ModelError as error:
            log("refused", reason=str(error))
            _shut_down()
            raise
        batcher: Batcher[Encoded, Outcome] = Batcher(
            loaded.predictor.run,
            loaded.predictor.limits,
            Capacity(loaded.tokens_per_second, max_backlog=_TIMEOUT),
            workers=planned.workers,
            deliver=self._deliver,
        )
        self._loop: Any = None
        readers = ThreadPoolExecutor(_READERS)
        self._app = App(loaded.predictor, batcher, readers, log, timeout=_TIMEOUT)
        log(
            "ready",
            threads=planned.threads,
            workers=planned.workers,
            goldens=loaded.goldens,
            deviation=loaded.deviation,
        )

    async def __call__(self, request: Request) -> Response:
        """Answer one request; ``/`` is what Ray makes of ``/invocations``."""
        self._loop = asyncio.get_running_loop()
        path = request.scope["path"]
        scope = {**request.scope, "path": "/invocations" if path == "/" else path}
        sent: List[Dict[str, Any]] = []

        async def send(message: Dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, request.receive, send)
        if not sent:  # the client is gone
            return Response(status_code=499)
        head, body = sent
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in head["headers"]
        }
        return Response(body["body"], head["status"], headers)

    def _deliver(self, callback: Any) -> None:
        self._loop.call_soon_threadsafe(callback)


def bind(folder: Path) -> Any:
    """The application for the unpacked artifact in ``folder``."""
    deployment = serve.deployment(
        Model,
        name="model",
        num_replicas=1,
        max_ongoing_requests=_ONGOING,
        ray_actor_options={"num_cpus": 0.1},
        health_check_period_s=5,
    )
    return deployment.bind(str(folder))


def _shut_down() -> None:
    """End Serve from outside: it waits for its replicas, of which this is one."""
    address = ray.get_runtime_context().gcs_address
    subprocess.Popen([sys.executable, "-c", _SHUT_DOWN, address], start_new_session=True)

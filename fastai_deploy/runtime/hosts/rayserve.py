"""Ray Serve: one replica, which uses every core and runs the model server's own app."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Tuple

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from ..app import App
from ..batching import Batcher
from ..contract import Encoded, Outcome
from ..loading import start
from ..log import Log
from ..request_queue import Capacity
from ..vendored import add_to_path

_TIMEOUT = 60.0  # seconds; as long as InvokeEndpoint waits
_READERS = 2


class Replica:
    """Loads and checks the model, then answers requests in one event loop.

    Raises ModelError, whose reason is then in the log.
    """

    def __init__(self, folder: Path) -> None:
        log = Log(sys.stderr)
        loaded, planned = start(folder, log)
        self._loop: Any = None
        batcher: Batcher[Encoded, Outcome] = Batcher(
            loaded.predictor.run,
            loaded.predictor.limits,
            Capacity(loaded.tokens_per_second, max_backlog=_TIMEOUT),
            workers=planned.workers,
            deliver=self._deliver,
        )
        readers = ThreadPoolExecutor(_READERS)
        self._app = App(loaded.predictor, batcher, readers, log, timeout=_TIMEOUT)

    async def answer(self, scope: Any, receive: Any) -> Tuple[int, Dict[str, str], bytes]:
        """Status, headers and body; ``/`` stands for ``/invocations``. 499 when the client left."""
        self._loop = asyncio.get_running_loop()
        path = scope["path"]
        sent: List[Dict[str, Any]] = []

        async def send(message: Dict[str, Any]) -> None:
            sent.append(message)

        await self._app({**scope, "path": "/invocations" if path == "/" else path}, receive, send)
        if not sent:
            return 499, {}, b""
        head, body = sent
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in head["headers"]
        }
        return head["status"], headers, body["body"]

    def _deliver(self, callback: Any) -> None:
        self._loop.call_soon_threadsafe(callback)


_ONGOING = 100_000  # no bound of Ray's: the batcher refuses before, with a Retry-After
_SHUT_DOWN_SECONDS = 60
_SHUT_DOWN = (
    "import sys, ray; from ray import serve; "
    "ray.init(address=sys.argv[1], namespace='serve', log_to_driver=False); serve.shutdown()"
)


class Model:
    """A replica. It is made in a process of its own, whose path has no wheels yet."""

    def __init__(self, folder: str) -> None:
        try:
            _see_gpus()
            add_to_path(Path(folder, "code"))

            self._replica = Replica(Path(folder))
        except Exception:
            _shut_down()
            raise

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        status, headers, body = await self._replica.answer(request.scope, request.receive)
        headers.pop("x-request-id", None)  # Ray sends the same
        return Response(body, status, headers)


def bind(folder: Path) -> Any:
    """The application for the unpacked artifact in ``folder``."""
    deployment = serve.deployment(
        Model,
        name="model",
        num_replicas=1,
        max_ongoing_requests=_ONGOING,
        # Ray need not count: nothing else runs in the container.
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(str(folder))


def _see_gpus() -> None:
    """Undo what older versions of Ray do to an actor that asks for no GPU: they hide all of them.

    It asks for none, because it could then not be placed on a machine without. Nothing else in the
    container wants one.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]


def _shut_down() -> None:
    """End Serve from outside: it waits for its replicas, of which this is one.

    And wait for that: what a replica has started ends with it.
    """
    address = ray.get_runtime_context().gcs_address
    with suppress(subprocess.TimeoutExpired):
        command = [sys.executable, "-c", _SHUT_DOWN, address]
        subprocess.run(command, timeout=_SHUT_DOWN_SECONDS, check=False)

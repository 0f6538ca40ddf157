"""A Ray Serve application that keeps fdeploy's own model server running beside Ray.

    client -> AWS's adapter (8080) ---------------------------> own server (RAYSERVE_BACKEND_URL)
    client -> Ray's proxy (8000) -> Model, one replica -------> own server

AWS's adapter asks the own server directly, as the model's ``Environment`` tells it. Its ``/ping``
is then the server's, which refuses connections until the model has answered its goldens; Ray's own
health check says nothing about the application. Whoever asks Ray instead gets the same answers.

A model that cannot be served shuts down all of Serve: Ray would otherwise start the replica again
and again, and report itself healthy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional

import httpx
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from ..codec import refuse
from ..error_responses import not_ready
from ..log import Log
from .own_server import OwnServer

# What AWS's adapter asks for.
_ALIASES = {"/": "/invocations", "/-/healthz": "/ping"}
_FORWARDED = ("content-type", "content-encoding", "x-request-id")
_RETURNED = ("content-type", "retry-after", "allow")
_ONGOING = 100_000  # no limit from Ray: the server refuses earlier, with a Retry-After
_SHUT_DOWN_SECONDS = 60
_SHUT_DOWN = (
    "import sys, ray; from ray import serve; "
    "ray.init(address=sys.argv[1], namespace='serve', log_to_driver=False); serve.shutdown()"
)


class Model:
    """The replica: it starts the server, and passes on what Ray receives."""

    def __init__(self, folder: str, port: int) -> None:
        stderr = _container_stderr()
        self._server = OwnServer(
            _command(Path(folder), port),
            Log(sys.stderr if stderr is None else os.fdopen(stderr, "w", encoding="utf-8")),
            _shut_down,
            environment=_environment(),
            stderr=stderr,
        )
        self._server.until_ready()
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            limits=httpx.Limits(max_connections=None),
            timeout=None,  # noqa: S113  # the server has one
            trust_env=False,
        )

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        try:
            answer = await self._client.request(
                request.method, request.url.path, content=await request.body(), headers=headers
            )
        except httpx.TransportError:  # it is being started again
            error = refuse(not_ready())
            again = {"content-type": error.content_type, "retry-after": str(error.retry_after)}
            return Response(error.body, error.status, again)
        kept = {name: answer.headers[name] for name in _RETURNED if name in answer.headers}
        return Response(answer.content, answer.status_code, kept)


def bind(folder: Path, port: int) -> Any:
    """The application for the unpacked artifact in ``folder``; its server listens on ``port``."""
    deployment = serve.deployment(
        Model,
        name="model",
        num_replicas=1,
        max_ongoing_requests=_ONGOING,
        # Ray need not count cores, because nothing else runs in the container.
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(str(folder), port)


def _command(folder: Path, port: int) -> List[str]:
    adapter = str(folder / "code" / "model_server.py")
    aliases = [f"--alias={path}={route}" for path, route in _ALIASES.items()]
    return [sys.executable, adapter, "--model-dir", str(folder), "--port", str(port), *aliases]


def _environment() -> Dict[str, str]:
    """The environment of the replica, without what hides all GPUs.

    Older versions of Ray hide them from an actor that requests none. It requests none, because
    otherwise it could not be placed on a machine without a GPU. Nothing else in the container needs
    one.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return {
        name: value
        for name, value in os.environ.items()
        if not (hidden and name == "CUDA_VISIBLE_DEVICES")
    }


def _container_stderr() -> Optional[int]:
    """The standard error of the container's first process; None if it cannot be had.

    A replica's own goes through a file, three of Ray's processes and a line that begins with the
    replica's name, which takes as long as the HTTP of a request.
    """
    try:
        return os.open("/proc/1/fd/2", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return None


def _shut_down() -> None:
    """Shut down Serve from another process, because it waits for its replicas, such as this one.

    Then wait, because processes that a replica has started end with it.
    """
    address = ray.get_runtime_context().gcs_address
    with suppress(subprocess.TimeoutExpired):
        command = [sys.executable, "-c", _SHUT_DOWN, address]
        subprocess.run(command, timeout=_SHUT_DOWN_SECONDS, check=False)

"""A Ray Serve application around the same server code: one replica, which uses every core.

Ray routes ``POST /``; its requests go through the same batcher as on any other server, with its
bounded queue. A replica whose model cannot be served shuts down all of Serve: Ray would otherwise
report itself healthy while it starts the replica again and again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from ..vendored import add_to_path

_ONGOING = 100_000  # no limit from Ray: the batcher refuses earlier, with a Retry-After
_SHUT_DOWN_SECONDS = 60
_SHUT_DOWN = (
    "import sys, ray; from ray import serve; "
    "ray.init(address=sys.argv[1], namespace='serve', log_to_driver=False); serve.shutdown()"
)


class Model:
    """A replica. It runs in its own process, whose path has no wheels yet."""

    def __init__(self, folder: str) -> None:
        try:
            _see_gpus()
            add_to_path(Path(folder, "code"))
            from .replica import Replica  # noqa: PLC0415  # needs the wheels

            self._replica = Replica(Path(folder))
        except Exception:
            _shut_down()
            raise

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        status, headers, body = await self._replica.answer(request.scope, request.receive)
        headers.pop("x-request-id", None)  # Ray sends the same header
        return Response(body, status, headers)


def bind(folder: Path) -> Any:
    """The application for the unpacked artifact in ``folder``."""
    deployment = serve.deployment(
        Model,
        name="model",
        num_replicas=1,
        max_ongoing_requests=_ONGOING,
        # Ray need not count cores, because nothing else runs in the container.
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(str(folder))


def _see_gpus() -> None:
    """Undo that older versions of Ray hide all GPUs from an actor that requests none.

    It requests none, because otherwise it could not be placed on a machine without a GPU. Nothing
    else in the container needs one.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]


def _shut_down() -> None:
    """Shut down Serve from another process, because it waits for its replicas, such as this one.

    Then wait, because processes that a replica has started end with it.
    """
    address = ray.get_runtime_context().gcs_address
    with suppress(subprocess.TimeoutExpired):
        command = [sys.executable, "-c", _SHUT_DOWN, address]
        subprocess.run(command, timeout=_SHUT_DOWN_SECONDS, check=False)

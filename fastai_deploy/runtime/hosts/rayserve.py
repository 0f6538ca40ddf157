"""A Ray Serve application over the same server code: one replica, which uses every core.

Ray routes ``POST /``; what it hands over goes through the same batcher as on any other server, with
its bounded line. A replica whose model cannot be served takes the whole of Serve down: Ray would
otherwise report itself healthy while it starts the replica again and again.
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
            from .replica import Replica  # noqa: PLC0415  # needs the wheels

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

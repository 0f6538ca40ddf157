"""The model server's app for a host that handles HTTP itself, such as Ray Serve."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Tuple

from ..app import App
from ..batching import Batcher
from ..contract import Encoded, Outcome
from ..loading import start
from ..log import Log
from ..request_queue import Capacity

_TIMEOUT = 60.0  # seconds; the time-out of InvokeEndpoint, if FDEPLOY_TIMEOUT names no other
_READERS = 2


class Replica:
    """Loads and checks the model, then answers requests in one event loop.

    Raises ModelError; its reason is then in the log.
    """

    def __init__(self, folder: Path) -> None:
        log = Log(sys.stderr)
        loaded, planned = start(folder, log)
        self._loop: Any = None
        timeout = float(os.environ.get("FDEPLOY_TIMEOUT", _TIMEOUT))
        batcher: Batcher[Encoded, Outcome] = Batcher(
            loaded.predictor.run,
            loaded.predictor.limits,
            Capacity(loaded.tokens_per_second, max_backlog=timeout),
            workers=planned.workers,
            deliver=self._deliver,
        )
        readers = ThreadPoolExecutor(_READERS)
        self._app = App(loaded.predictor, batcher, readers, log, timeout=timeout)

    async def answer(self, scope: Any, receive: Any) -> Tuple[int, Dict[str, str], bytes]:
        """Status, headers and body; ``/`` means ``/invocations``. 499: the client disconnected."""
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

"""The Lambda function: what is created once, and the handler that Lambda calls."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from typing import Any, Dict

from ..contract import Json
from . import events, request_log
from .endpoint import Endpoint, GatewaySettings, sagemaker_runtime
from .gateway import Gateway


def handler(event: Any, context: Any) -> Dict[str, Json]:
    """Answer an event; the gateway is created for the first one that needs it."""
    try:
        gateway = _gateway()
    except Exception as error:  # noqa: BLE001 a wrong setting, too, is answered and logged
        failure = request_log.failure(error)
        call = events.read(event)
        facts = {**failure.facts, "request_id": call.request_id, "reason": str(error)[:1_000]}
        request_log.write(sys.stdout, json.dumps(facts) + "\n")
        response = events.refuse(failure, {"x-request-id": call.request_id})
        return events.without_body(response) if call.method == "HEAD" else response
    return gateway.handle(event, context)


@functools.lru_cache(maxsize=1)
def _gateway() -> Gateway:
    settings = GatewaySettings.from_environment(os.environ)
    endpoint = Endpoint(sagemaker_runtime(settings), settings.endpoint)
    return Gateway(endpoint, settings, log=sys.stdout)


if os.environ.get("_HANDLER", "").endswith("gateway.handler"):
    # This is the function's handler, and not a model's. While Lambda loads the code it provides a
    # whole processor, so the client is created here and not while the first user waits. A failure
    # is retried, and reported, with the first event.
    with contextlib.suppress(Exception):
        _gateway()

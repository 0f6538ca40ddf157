"""One JSON request to a server on this machine, with the contract's errors translated."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastai_deploy.api_docs.smoke_tests import Reply
from fastai_deploy.errors import InvocationError, error_from_response

Json = Any
# Called when the connection is there and nothing was sent yet. Raises InvocationError where the
# other end is not the server that is meant: its port may be another program's by now.
Peer = Callable[[], None]

LOOPBACK = "127.0.0.1"


def post(
    url: str, request: Json, *, headers: Mapping[str, str], timeout: float, peer: Peer
) -> Json:
    """POST a request and return the answer; ``timeout`` is in seconds.

    Raises InvocationError with the server's code, message and hint, or when there is no answer.
    """
    every = {"content-type": "application/json", **headers}
    reply = send(url, "POST", every, json.dumps(request).encode(), timeout=timeout, peer=peer)
    if reply.status != http.HTTPStatus.OK:
        raise error_from_response(url, reply.status, reply.body) or InvocationError(
            f"{url} answered {reply.status}", hint="see docs/contract.md", status=reply.status
        )
    try:
        return json.loads(reply.body)
    except ValueError:
        raise InvocationError(f"{url} answered no JSON", hint="run fdeploy deploy") from None


def send(
    url: str,
    method: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    timeout: float,
    peer: Peer,
) -> Reply:
    """Send a request and return the answer, whatever it is. Raises InvocationError.

    ``peer`` is asked between connecting and sending. Before, the server could end and its port go
    to another program; after it, the connection is the server's.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.connect()
        peer()
        connection.request(method, parts.path, body, dict(headers))
        response = connection.getresponse()
        sent = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, sent, response.read())
    except TimeoutError:
        raise InvocationError(
            f"{url} did not answer within {timeout:g} s",
            hint="send less text at once",
            status=http.HTTPStatus.GATEWAY_TIMEOUT,
            answer_code="timeout",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        peer()  # says more, where it knows that the server has ended
        raise InvocationError(
            f"{url} does not answer: {error}",
            hint="the server is not running any more; run fdeploy up",
        ) from None
    finally:
        connection.close()

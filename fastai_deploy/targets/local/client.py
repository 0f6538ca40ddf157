"""Sends a JSON request to a server on this machine and translates the contract's errors."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastai_deploy.api_docs.smoke_tests import Reply
from fastai_deploy.errors import InvocationError, error_from_response

Json = Any
# Called after connecting and before sending. Raises InvocationError if the other end is not the
# intended server, because another program may have its port by now.
Peer = Callable[[], None]

LOOPBACK = "127.0.0.1"


def post(
    url: str, request: Json, *, headers: Mapping[str, str], timeout: float, peer: Peer
) -> Json:
    """POST a request and return the answer; ``timeout`` is in seconds.

    Raises InvocationError with the server's code, message and hint, or if there is no answer.
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
        raise InvocationError(
            f"the answer of {url} is not JSON", hint="run fdeploy deploy"
        ) from None


def send(
    url: str,
    method: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    timeout: float,
    peer: Peer,
) -> Reply:
    """Send a request and return the answer, whatever its status. Raises InvocationError.

    ``peer`` is called between connecting and sending: before connecting, the server could exit and
    its port go to another program; once connected, the connection is the server's.
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
            hint="send less text per request",
            status=http.HTTPStatus.GATEWAY_TIMEOUT,
            answer_code="timeout",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        peer()  # raises a better error if the server has exited
        raise InvocationError(
            f"{url} does not answer: {error}",
            hint="the server is no longer running; run fdeploy up",
        ) from None
    finally:
        connection.close()

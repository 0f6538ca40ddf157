"""One JSON request to a server on this machine, with the contract's errors translated."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastai_deploy.errors import InvocationError
from fastai_deploy.public.proofs import Reply
from fastai_deploy.refusal import refused

Json = Any


def post(url: str, request: Json, *, headers: Mapping[str, str], timeout: float) -> Json:
    """POST a request and return the answer; ``timeout`` is in seconds.

    Raises InvocationError with the server's code, message and hint, or when there is no answer.
    """
    status, data = exchange(url, request, headers=headers, timeout=timeout)
    if status != http.HTTPStatus.OK:
        raise refused(url, status, data) or InvocationError(
            f"{url} answered {status}", hint="see docs/contract.md", status=status
        )
    try:
        return json.loads(data)
    except ValueError:
        raise InvocationError(f"{url} answered no JSON", hint="run fdeploy deploy") from None


def exchange(
    url: str, request: Json, *, headers: Mapping[str, str], timeout: float
) -> tuple[int, bytes]:
    """POST a request and return status and body, whatever they are. Raises InvocationError."""
    body = json.dumps(request).encode()
    every = {"content-type": "application/json", **headers}
    reply = send(url, "POST", every, body, timeout=timeout)
    return reply.status, reply.body


def send(
    url: str, method: str, headers: Mapping[str, str], body: bytes | None, *, timeout: float
) -> Reply:
    """Send a request and return the answer, whatever it is. Raises InvocationError."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
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
        raise InvocationError(
            f"{url} does not answer: {error}",
            hint="the server is not running any more; run fdeploy up",
        ) from None
    finally:
        connection.close()

"""Connections of a load test: to an endpoint or API over HTTP, or to the model in this process."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from fastai_deploy.errors import InvocationError
from fastai_deploy.load.measure import NO_ANSWER, OK, TIMEOUT
from fastai_deploy.targets.base import Route

_SECONDS = 60.0  # that an answer may take; AWS's own limit (InvokeEndpoint)


class HttpConnection:
    """A client that keeps its connection open. Answers with 429 or 503 are not tried again."""

    def __init__(self, route: Route, bodies: Mapping[str, bytes]) -> None:
        parts = urlsplit(route.url)
        self._route, self._bodies = route, bodies
        self._path = parts.path
        host, port = parts.hostname or "", parts.port
        self._http = (
            http.client.HTTPSConnection(
                host, port, timeout=_SECONDS, context=ssl.create_default_context()
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=_SECONDS)
        )
        self._aborted = False

    def ask(self, text: str) -> str:
        """Send a text and return the outcome."""
        body = self._bodies[text]
        reused = self._http.sock is not None
        try:
            return self._exchange(body)
        except TimeoutError:
            self._http.close()
            return TIMEOUT
        except (OSError, http.client.HTTPException, InvocationError):
            self._http.close()
        # A server may close a connection that was kept open just when a request is sent.
        return self.ask(text) if reused and not self._aborted else NO_ANSWER

    def abort(self) -> None:
        """End the request in progress and close the connection."""
        self._aborted = True
        sock = self._http.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._http.close()

    def _exchange(self, body: bytes) -> str:
        if self._http.sock is None:
            self._http.connect()
            self._route.peer()  # nothing is sent to another program that has the port by now
        headers = {"content-type": "application/json", **self._route.headers(body)}
        self._http.request("POST", self._path, body, headers)
        response = self._http.getresponse()
        answer = response.read()
        status = _status(response.status, answer)
        return OK if status == HTTPStatus.OK else str(status)


def _status(status: int, answer: bytes) -> int:
    """The model server's own status: SageMaker wraps it in a ModelError, which has 424."""
    if status != HTTPStatus.FAILED_DEPENDENCY:
        return status
    try:
        return int(json.loads(answer)["OriginalStatusCode"])
    except (ValueError, TypeError, KeyError):
        return status


def bodies_of(texts: Sequence[str]) -> dict[str, bytes]:
    """The request of each text, written once."""
    return {text: json.dumps({"text": text}).encode() for text in texts}


class InProcess:
    """A client that asks a predictor in this process, without a server in between."""

    def __init__(self, predict: Callable[[Sequence[str]], Sequence[object]]) -> None:
        self._predict = predict

    def ask(self, text: str) -> str:
        """Answer a text."""
        answer = self._predict([text])[0]
        return str(answer.status) if hasattr(answer, "status") else OK

    def abort(self) -> None:
        """A run of the model cannot be ended; it takes no longer than a request."""


def bundle_predictor(folder: Path) -> Callable[[Sequence[str]], Sequence[object]]:
    """The model of a bundle, loaded and checked as the server does. Raises ModelError."""
    from fastai_deploy.runtime import hardware  # noqa: PLC0415 - NumPy, ONNX Runtime
    from fastai_deploy.runtime.loading import load  # noqa: PLC0415

    found = hardware.detect()
    planned = hardware.plan_threads(found)
    loaded = load(folder, found, planned.threads, most_runs=planned.workers)
    return loaded.predictor.predict

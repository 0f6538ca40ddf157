"""The SageMaker runtime emulated: InvokeEndpoint in front of the model server.

    POST /endpoints/{name}/invocations  -->  POST /invocations of the live model server

Errors follow the API reference of InvokeEndpoint: ValidationError for an unknown endpoint,
ServiceUnavailable if nothing answers, and ModelError (424) with the model server's own status and
message, or with status 0 if it takes longer than 60 s.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from fastai_deploy.errors import FileError
from fastai_deploy.targets.local.processes import Server, listens, read_server

MAX_BODY = 6 * 1024 * 1024  # bytes, the limit of InvokeEndpoint
MODEL_SECONDS = 60.0  # time a model has to answer
_LOOPBACK = "127.0.0.1"
_MOST_CONNECTIONS = 256  # more than the client's, which has one per concurrent invocation
_PATH = re.compile(r"/endpoints/([A-Za-z0-9-]{1,63})/invocations")
_FORWARDED = ("accept", "content-type", "x-amzn-sagemaker-custom-attributes")


@dataclass(frozen=True)
class SageMakerRuntimeConfig:
    """The configuration of the emulated runtime.

    ``access_key`` is the access key ID that requests must be signed with, so that other programs on
    this machine cannot bypass the gateway's key check. ``state`` is the file that names the live
    server, see ``processes.Server``.
    """

    endpoint: str
    state: Path
    access_key: str
    model_seconds: float = MODEL_SECONDS


@contextlib.contextmanager
def serve_sagemaker_runtime(config: SageMakerRuntimeConfig) -> Iterator[str]:
    """Serve the emulated runtime on a free port, in its own threads; yields its URL.

    At the end, requests in flight are aborted.
    """
    with _Server(config) as server:
        thread = threading.Thread(
            target=server.serve_forever, args=(0.05,), name="sagemaker-front", daemon=True
        )
        thread.start()
        try:
            yield f"http://{_LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.break_off()


class _Refused(Exception):
    """An error response of SageMaker."""

    def __init__(self, status: int, code: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = {"Message": message, **members}


class _Server(socketserver.ThreadingTCPServer):
    # Not http.server's class, which looks up this machine's name.
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, config: SageMakerRuntimeConfig) -> None:
        super().__init__((_LOOPBACK, 0), _Handler)
        self.config = config
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._asking: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Accept a connection, which takes a thread, only if there is room; else close it."""
        return self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, then release its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    @contextlib.contextmanager
    def asking(self, connection: http.client.HTTPConnection) -> Iterator[None]:
        """Track a connection to the model server while it is used."""
        with self._lock:
            self._asking.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._asking.discard(connection)
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that have disconnected; anything else is a bug and is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def break_off(self) -> None:
        """Abort requests that wait for the model server."""
        with self._lock:
            for connection in self._asking:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the kernel delays the body by 40 ms
    wbufsize = -1
    timeout = 120

    def do_POST(self) -> None:
        """InvokeEndpoint."""
        try:
            content_type, answer = self._invoke()
        except _Refused as refused:
            body = json.dumps(refused.body).encode()
            self._send(refused.status, "application/json", body, {"x-amzn-errortype": refused.code})
        else:
            variant = {"x-amzn-invoked-production-variant": "AllTraffic"}
            self._send(HTTPStatus.OK, content_type, answer, variant)

    def _invoke(self) -> tuple[str, bytes]:
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            raise _Refused(413, "RequestEntityTooLarge", f"the body is above {MAX_BODY} bytes")
        credential = f"Credential={self.server.config.access_key}/"
        if credential not in self.headers.get("authorization", ""):
            self.close_connection = True  # do not read the body of an unsigned request
            raise _Refused(403, "UnrecognizedClientException", "the request is not signed for here")
        body = self.rfile.read(int(length))
        match = _PATH.fullmatch(self.path)
        if match is None:
            raise _Refused(404, "UnknownOperationException", "there is no such operation")
        live = self._live_server() if match[1] == self.server.config.endpoint else None
        if live is None:
            raise _Refused(400, "ValidationError", f"Endpoint {match[1]} not found.")
        return self._ask_model(live, body)

    def _live_server(self) -> Server | None:
        """The live model server, read on every request because a deploy changes it."""
        try:
            return read_server(self.server.config.state, "run fdeploy deploy")[0]
        except FileError:
            return None

    def _ask_model(self, server: Server, body: bytes) -> tuple[str, bytes]:
        headers = {name: self.headers[name] for name in _FORWARDED if name in self.headers}
        seconds = self.server.config.model_seconds
        connection = http.client.HTTPConnection(_LOOPBACK, server.port, timeout=seconds)
        try:
            with self.server.asking(connection):
                connection.connect()
                if not listens(server):  # another program may have its port by now
                    raise ConnectionRefusedError("it does not run any more")
                connection.request("POST", "/invocations", body, headers)
                response = connection.getresponse()
                answer = response.read(MAX_BODY + 1)
        except TimeoutError:
            raise _model_error(0, "the invocation timed out") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Refused(503, "ServiceUnavailable", f"no model server: {error}") from None
        if len(answer) > MAX_BODY:
            raise _model_error(0, "the answer is too large")
        if not 200 <= response.status < 300:  # noqa: PLR2004 as HTTP has it
            raise _model_error(response.status, answer.decode("utf-8", "replace"))
        return response.headers.get("content-type", "application/octet-stream"), answer

    def _send(self, status: int, content_type: str, body: bytes, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": content_type, **more}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
        """Log nothing: the Lambda logs every request."""


def _model_error(status: int, said: str) -> _Refused:
    side = "client" if 400 <= status < 500 else "server"  # noqa: PLR2004 as HTTP has it
    return _Refused(
        424,
        "ModelError",
        f'Received {side} error ({status}) from primary with message "{said}"',
        OriginalStatusCode=status,
        OriginalMessage=said,
        LogStreamArn="",
    )

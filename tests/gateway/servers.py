"""Real HTTP servers that a test controls."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fastai_deploy.targets.local import processes


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


Script = Callable[[Received], Reply]


def echo(received: Received) -> Reply:
    """A model whose label is the text, so that each client recognizes its own answer."""
    request = json.loads(received.body)
    texts = request["texts"] if "texts" in request else [request["text"]]
    answers = [{"label": text, "score": 1.0} for text in texts]
    return Reply(body=json.dumps(answers if "texts" in request else answers[0]).encode())


def refusing(status: int, body: Any) -> Script:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _received: Reply(status, data)


class Server:
    """Answers every POST with the result of ``script``, and records the requests."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.received: list[Received] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.path, headers, body)
                outer.received.append(received)
                reply = outer.script(received)
                try:
                    self.send_response(reply.status)
                    for name, value in (
                        {"content-type": "application/json"} | dict(reply.headers)
                    ).items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(reply.body)))
                    self.end_headers()
                    self.wfile.write(reply.body)
                    self.wfile.flush()
                except OSError:
                    self.close_connection = True  # the client has given up

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> bytes:
        """The record that ``deploy`` writes for a running model server: this process and port."""
        return processes.Server.of("model server", os.getpid(), self.port).encode()

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()

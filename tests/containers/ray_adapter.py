"""Stands in for AWS's adapter where it cannot be had: port 8080, `/ping` and `/invocations`.

It asks what `sagemaker_serve.py` asks, where the same variable says; run as a file, in the image's
Python.
"""

from __future__ import annotations

import http.client
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_PORT = 8080
_BACKEND = urlsplit(os.environ.get("RAYSERVE_BACKEND_URL", "http://127.0.0.1:8000")).netloc


class Adapter(BaseHTTPRequestHandler):
    """One request to the backend for each that comes."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        self._forward("GET", "/-/healthz" if self.path == "/ping" else self.path, None, 5)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._forward("POST", "/" if self.path == "/invocations" else self.path, body, 60)

    def log_message(self, *_: object) -> None:
        pass

    def _forward(self, method: str, path: str, body: bytes | None, timeout: float) -> None:
        connection = http.client.HTTPConnection(_BACKEND, timeout=timeout)
        try:
            kind = self.headers.get("content-type", "application/json")
            connection.request(method, path, body, {"content-type": kind})
            answer = connection.getresponse()
            status, data = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            status, data = 503, b"{}"
        finally:
            connection.close()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as clients come."""

    request_queue_size = 128


if __name__ == "__main__":
    Server(("127.0.0.1", _PORT), Adapter).serve_forever()

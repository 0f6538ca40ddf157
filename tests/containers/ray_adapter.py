"""A replacement for AWS's adapter in front of Ray Serve: port 8080, `/ping` and `/invocations`.

As far as the image is known, `/ping` calls Ray's `/-/healthz` and `/invocations` goes to `/`.
"""

from __future__ import annotations

import http.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.containers.servers import PORT

_RAY = 8000


class Adapter(BaseHTTPRequestHandler):
    """One request to Ray for each that comes."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        self._forward("GET", "/-/healthz" if self.path == "/ping" else self.path, None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._forward("POST", "/" if self.path == "/invocations" else self.path, body)

    def log_message(self, *_: object) -> None:
        pass

    def _forward(self, method: str, path: str, body: bytes | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", _RAY, timeout=60)
        try:
            kind = self.headers.get("content-type", "application/json")
            connection.request(method, path, body, {"content-type": kind})
            answer = connection.getresponse()
            status, data = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            status, data = 502, b"{}"
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
    Server(("127.0.0.1", PORT), Adapter).serve_forever()

"""An HTTP client that sends exactly the bytes of a test."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SECONDS = 30


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        error = self.json["error"]
        assert set(error) == {"code", "message", "hint"}
        return str(error["code"])


class Client:
    """Calls a gateway with a key."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key

    def send(
        self,
        body: bytes | str | None = b'{"text": "hello"}',
        *,
        method: str = "POST",
        path: str = "/classify",
        headers: Mapping[str, str] | None = None,
        content_type: str | None = "application/json",
        with_key: bool = True,
    ) -> HttpAnswer:
        """One request on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_SECONDS)
        every = dict(headers or {})
        if with_key:
            every["x-api-key"] = self._key
        if content_type is not None and body is not None:
            every["content-type"] = content_type
        try:
            connection.request(method, path, body, every)
            response = connection.getresponse()
            sent = {name.lower(): value for name, value in response.getheaders()}
            return HttpAnswer(response.status, sent, response.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Everything that the gateway answers to some bytes before it closes the connection."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=_SECONDS) as connection:
            answer = bytearray()
            try:
                connection.sendall(data)
                while chunk := connection.recv(65_536):
                    answer += chunk
            except ConnectionError:
                pass  # the gateway did not read everything
        return bytes(answer)

"""The real model server as a process, whose log is read line by line."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

PATIENCE = 60.0  # seconds before a hanging test fails
MODULE = "fastai_deploy.runtime.server"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code."""
        return cast("str", self.json["error"]["code"])


class ServerProcess:
    """A server process; ``log`` holds its lines so far."""

    def __init__(self, process: subprocess.Popen[str], announced: Path) -> None:
        self.process = process
        self.announced = announced
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.port = 0

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next log line with this event. Fails if the process ends first."""
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            record: dict[str, Any] = json.loads(line)
            if record["event"] == event:
                return record
        raise AssertionError(f"no {event!r} in {self.log}")

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a new connection."""
        connection = self.connect()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def post(self, value: Any, **headers: str) -> Reply:
        """A JSON request to ``/invocations``."""
        return self.request("POST", "/invocations", json.dumps(value).encode(), headers)

    def metric(self, name: str) -> int:
        """A counter; 0 if it is missing."""
        for line in self.request("GET", "/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[-1])
        return 0

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code; the log is complete afterwards."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put(None)


def until(condition: Callable[[], object]) -> None:
    """Poll until the condition holds. Fails after ``PATIENCE``."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request on an open connection."""
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


@contextmanager
def started(
    folder: Path,
    announced: Path,
    *arguments: str,
    module: str = MODULE,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    descriptors: int | None = None,
    stdin: int | None = None,
) -> Iterator[ServerProcess]:
    """A server process, perhaps not ready yet; it ends with the block.

    ``descriptors`` limits its open files; ``stdin`` is that of ``Popen``.
    """
    limited = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh"] if descriptors else []
    command: Sequence[str] = [
        *limited,
        *(sys.executable, "-m", module),
        *("--model-dir", str(folder), "--announce", str(announced), *arguments),
    ]
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environ or {})},
        cwd=cwd,
    )
    server = ServerProcess(process, announced)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        server.wait()
        assert process.stderr is not None
        process.stderr.close()


@contextmanager
def serving(
    folder: Path, announced: Path, *arguments: str, **options: Any
) -> Iterator[ServerProcess]:
    """A server that is ready."""
    with started(folder, announced, *arguments, **options) as server:
        server.port = server.wait_for("ready")["port"]
        yield server

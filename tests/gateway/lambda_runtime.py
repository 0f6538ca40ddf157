"""AWS's own runtime client running a function's package, behind our own Runtime API.

    invoke --> RuntimeApi <--HTTP-- awslambdaric --import--> the unpacked zip --botocore--> front

Source: "Using the Lambda runtime API" in AWS's developer guide.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastai_deploy.packaging.lambda_zip import HANDLER

_SECONDS = 30
_VERSION = "/2018-06-01/runtime"


@dataclass
class _Invocation:
    event: Any
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    answered: queue.Queue[tuple[str, Any]] = field(default_factory=queue.Queue)


class RuntimeApi:
    """The Runtime API: passes events to the function and returns its answers."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[_Invocation | None] = queue.Queue()
        self._running: dict[str, _Invocation] = {}
        self.started = threading.Event()
        self.broken: list[Any] = []
        self.pid = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_GET(self) -> None:
                outer.started.set()
                invocation = outer._waiting.get()
                if invocation is None:
                    self.close_connection = True
                    return
                deadline = int((time.time() + _SECONDS) * 1_000)
                self._send(
                    200,
                    json.dumps(invocation.event).encode(),
                    {
                        "Lambda-Runtime-Aws-Request-Id": invocation.id,
                        "Lambda-Runtime-Deadline-Ms": str(deadline),
                        "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:x:0:function:demo",
                        "content-type": "application/json",
                    },
                )

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                *_, request_id, kind = self.path.split("/")
                if request_id in outer._running:
                    outer._running.pop(request_id).answered.put((kind, body))
                else:
                    outer.broken.append(body)
                    outer.started.set()
                self._send(202, b'{"status":"OK"}', {})

            def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            self._waiting.put(None)
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def invoke(self, event: Any) -> tuple[str, Any]:
        """``("response", answer)``, or ``("error", the report to Lambda)``."""
        invocation = _Invocation(event)
        self._running[invocation.id] = invocation
        self._waiting.put(invocation)
        return invocation.answered.get(timeout=_SECONDS)


@contextmanager
def function(
    package: bytes,
    folder: Path,
    environ: Mapping[str, str],
    log: Path,
    *,
    handler: str = HANDLER,
    python: str = sys.executable,
    limits: Mapping[int, int] = MappingProxyType({}),
    group: Path | None = None,
    read_only: bool = False,
) -> Iterator[RuntimeApi]:
    """The function in its own process, started as Lambda does; it ends with the block.

    ``limits`` are resource limits, such as ``resource.RLIMIT_AS``, with their values; ``group`` is
    a cgroup (v1) that the process joins. ``read_only`` mounts the code so, which needs root.
    """
    task = folder / "task"
    with zipfile.ZipFile(BytesIO(package)) as archive:
        archive.extractall(task)
    runtime = RuntimeApi()

    if read_only:
        subprocess.run(["mount", "--bind", task, task], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", task], check=True)

    def limited() -> None:
        if group is not None:
            (group / "tasks").write_text(str(os.getpid()))
        for which, value in limits.items():
            resource.setrlimit(which, (value, value))

    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(task),
        "LAMBDA_TASK_ROOT": str(task),
        "AWS_LAMBDA_RUNTIME_API": runtime.address,
        "AWS_LAMBDA_FUNCTION_NAME": "demo-dev-api",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/demo-dev-api",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "LAMBDAROLE",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "_HANDLER": handler,
        # Lambda's user may not write there.
        "PYTHONDONTWRITEBYTECODE": "1",
        **environ,
    }
    with log.open("wb") as file, runtime.serving():
        process = subprocess.Popen(
            [python, "-m", "awslambdaric", handler],
            env=environment,
            cwd=task,
            stdout=file,
            stderr=file,
            preexec_fn=limited,  # noqa: PLW1509 - before any thread of the child
        )
        runtime.pid = process.pid
        try:
            assert runtime.started.wait(_SECONDS), log.read_text()
            yield runtime
        finally:
            process.kill()
            process.wait()

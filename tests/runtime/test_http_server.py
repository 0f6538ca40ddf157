"""Real connections to the servers: closed in time, and limited in number and memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
import pytest

from fastai_deploy.runtime.connections import ConnectionLimits
from fastai_deploy.runtime.host_check import CLIENTS_VARIABLE
from fastai_deploy.runtime.log import Log
from fastai_deploy.runtime.server import HttpServer, listen
from tests.runtime.bundles import TinyBundle, write_bundle
from tests.runtime.server_process import PATIENCE, ServerProcess, serving, until

MEGABYTE = 1_000_000
DESCRIPTORS = 120


async def hello(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@contextmanager
def running(limits: ConnectionLimits) -> Iterator[int]:
    """A server in a thread; yields its port."""
    started = threading.Event()
    with listen(0) as listener:
        server = HttpServer(hello, Log(io.StringIO()), ready=started.set, grace=1, limits=limits)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        port = listener.getsockname()[1]
        thread.start()
        try:
            assert started.wait(PATIENCE)
            yield port
        finally:
            server.end()
            thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def everything(connection: socket.socket) -> bytes:
    """Everything received until the server closes the connection; fails if it never does."""
    with connection:
        received = b""
        while data := connection.recv(65_536):
            received += data
        return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET / HTT", b"HTTP/1.1 408"),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhal", b"HTTP/1.1 408"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200"),
    ],
)
def test_connections_are_ended_in_time(sent: bytes, status: bytes) -> None:
    limits = ConnectionLimits(10, silent=2, idle=2, head=2, body=2, refused=2)
    with running(limits) as port:
        connection = connect(port)
        connection.sendall(sent)
        assert everything(connection).startswith(status)


def test_a_head_of_80_megabytes_is_refused_at_once() -> None:
    with running(ConnectionLimits(10)) as port:
        connection = connect(port)
        with contextlib.suppress(OSError):  # the server does not read everything
            for _ in range(80):
                connection.sendall(b"GET / HTTP/1.1\r\na: " + b"b" * MEGABYTE)
        with contextlib.suppress(ConnectionError):
            assert everything(connection).startswith(b"HTTP/1.1 431 ")
        with connect(port) as other:
            other.sendall(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
            assert everything(other).endswith(b"hello\r\n0\r\n\r\n")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A model server that may open few files."""
    folder = tmp_path_factory.mktemp("few")
    bundle: TinyBundle = write_bundle(folder / "bundle")
    with serving(
        bundle.folder,
        folder / "announced",
        descriptors=DESCRIPTORS,
        environ={CLIENTS_VARIABLE: "{}"},
    ) as server:
        yield server


def test_more_connections_than_descriptors_do_no_harm(few: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            stack.enter_context(connect(few.port))
        until(lambda: few.post({"text": "no"}).status == 200)
        before = len(few.log)
        assert [few.post({"text": "no"}).status for _ in range(5)] == [200] * 5
        assert len(few.log) - before < 50
    assert few.post({"text": "no"}).status == 200


def test_busy_connections_beyond_the_bound_are_overload(few: ServerProcess) -> None:
    half = b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nhalf"
    with contextlib.ExitStack() as stack:
        for _ in range(DESCRIPTORS // 2):
            stack.enter_context(connect(few.port)).sendall(half)
        until(lambda: few.request("GET", "/ping").status == HTTPStatus.SERVICE_UNAVAILABLE)
        assert few.request("GET", "/ping").code == "overloaded"
    until(lambda: few.request("GET", "/ping").status == HTTPStatus.OK)


def test_unfinished_bodies_are_bounded_and_their_memory_is_given_back(few: ServerProcess) -> None:
    process = psutil.Process(few.process.pid)
    before = process.memory_info().rss
    body = b"x" * 5_900_000
    head = b"POST /invocations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 6000000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(connect(few.port))
            with contextlib.suppress(ConnectionError):
                connection.sendall(head + body)
        assert few.post({"text": "no"}).status == 200
        assert process.memory_info().rss - before < 150 * MEGABYTE
    until(lambda: process.memory_info().rss - before < 30 * MEGABYTE)


def test_the_model_server_checks_hosts_if_configured(few: ServerProcess) -> None:
    for path in ("/ping", "/metrics", "/invocations", "/nowhere"):
        refused = few.request("GET", path, headers={"host": "evil.example"})
        assert (refused.status, refused.code) == (403, "forbidden")
    refused = few.post({"text": "no"}, origin="https://evil.example")
    assert (refused.status, refused.code) == (403, "forbidden")
    assert few.post({"text": "no"}, host="localhost:1").status == 200


def test_a_log_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    code = (
        "import sys; from pathlib import Path; from fastai_deploy.runtime.log import LogRotation\n"
        "rotation = LogRotation(Path(sys.argv[1]), limit=1_000)\n"
        "for number in range(150):\n"
        "    print('a line', number, file=(sys.stdout, sys.stderr)[number % 2], flush=True)\n"
        "    rotation.rotate_if_large()\n"
    )
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-c", code, str(log)], stdout=file, stderr=file, check=True)
    assert sorted(os.listdir(tmp_path)) == ["server.log", "server.log.1"]
    lines = [*(tmp_path / "server.log.1").read_text().splitlines(), *log.read_text().splitlines()]
    assert lines == [f"a line {number}" for number in range(150 - len(lines), 150)]
    assert 1_000 <= (tmp_path / "server.log.1").stat().st_size < 1_020


@pytest.mark.parametrize(
    "swap", ["path.symlink_to(sys.argv[2])", "path.hardlink_to(sys.argv[2])", "os.mkfifo(path)"]
)
def test_rotation_does_not_touch_a_file_that_replaced_the_log(tmp_path: Path, swap: str) -> None:
    log, elsewhere = tmp_path / "server.log", tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from fastai_deploy.runtime.log import LogRotation\n"
        f"path = Path(sys.argv[1]); path.unlink(); {swap}\n"
        "print('a line', file=sys.stderr)\n"
        "LogRotation(path, limit=1).rotate_if_large()\n"
        "print('another', file=sys.stderr)\n"
    )
    with log.open("wb") as file:
        command = [sys.executable, "-c", code, str(log), str(elsewhere)]
        subprocess.run(command, stdout=file, stderr=file, check=True)
    assert elsewhere.read_text() == "mine"


def test_accept_errors_are_logged_once_a_minute() -> None:
    said = io.StringIO()
    server = HttpServer(hello, Log(said), ready=lambda: None, grace=1, limits=ConnectionLimits(10))
    with listen(0) as listener:

        async def fail() -> None:
            await server.startup([listener])
            loop = asyncio.get_running_loop()
            error = OSError(24, os.strerror(24))
            for _ in range(2_000):
                message = "socket.accept() out of system resource"
                loop.call_exception_handler({"message": message, "exception": error})
            for each in server.servers:
                each.close()

        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        asyncio.run(fail())
    (line,) = said.getvalue().splitlines()
    assert json.loads(line)["event"] == "accept_failed"
    assert json.loads(line)["reason"] == "EMFILE"

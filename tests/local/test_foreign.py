"""Foreign processes and ports: fdeploy never stops them, and sends them neither key nor text."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fastai_deploy import Client
from fastai_deploy.errors import InvocationError
from fastai_deploy.targets.local.processes import MARK, Processes, Server
from tests.local.stage import Stage

SLEEP = "import time; print(flush=True); time.sleep(600)"


class Listener:
    """Another program on a port; ``heard`` is everything that it received."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.heard = b""
        self._ended = False
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if self._ended:
                    return
                while data := connection.recv(65536):
                    self.heard += data
                    if b"\r\n\r\n" in self.heard:
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                        break

    def close(self) -> None:
        self._ended = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[Listener]:
    listener = Listener(port)
    try:
        yield listener
    finally:
        listener.close()


Start = Callable[..., psutil.Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a foreign program with the given arguments and environment."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        *arguments: str, environ: dict[str, str] | None = None, cwd: Path | None = None
    ) -> psutil.Process:
        process = subprocess.Popen(
            [sys.executable, "-c", SLEEP, *arguments],
            env={**os.environ, **(environ or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return psutil.Process(process.pid)

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def running(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def servers(stage: Stage) -> dict[str, Server]:
    """The records written when the servers were started, by kind."""
    found = (json.loads(path.read_bytes()) for path in (stage.local / "servers").glob("*.json"))
    return {values["kind"]: Server(**values) for values in found}


def end(server: Server) -> None:
    process = psutil.Process(server.pid)
    process.kill()
    psutil.wait_procs([process])


@pytest.fixture
def up(stage: Stage) -> Stage:
    stage.ok("up", str(stage.folder / "first"))
    return stage


@pytest.mark.parametrize("word", ["fdeploy_runtime.server", "fastai_deploy.targets.local.gateway"])
def test_a_process_with_the_same_words_is_left_alone(stage: Stage, start: Start, word: str) -> None:
    path = str(stage.local / "models" / "x")
    process = start("-m", word, "--model-dir", path, "--home", str(stage.local), path)
    assert stage.ok("status").out.count(str(process.pid)) == 0
    proof = stage.ok("teardown").result
    assert not any("process" in each for each in proof["found"])
    assert running(process)


def test_a_copy_of_a_servers_environment_is_left_alone(up: Stage, start: Start) -> None:
    server = servers(up)["model server"]
    original = psutil.Process(server.pid)
    process = start(environ={MARK: original.environ()[MARK]})
    proof = up.ok("teardown").result
    assert f"model server, process {server.pid}" in proof["deleted"]
    assert running(process)
    assert not running(original)
    assert up.ok("teardown").result["found"] == []


def test_a_process_that_has_a_servers_number_is_left_alone(stage: Stage, start: Start) -> None:
    """The process id was reused, and another program has the recorded port."""
    process = start()
    with listening() as listener:
        for path in [stage.local / "endpoint.json", *(stage.local / "servers").glob("*.json")]:
            values = json.loads(path.read_bytes())
            values.update(pid=process.pid, port=listener.port)
            path.write_text(json.dumps(values))
        assert stage("invoke", "a secret text").status == 10
        assert stage("invoke", "a secret text", "--api").status == 10
        status = stage.ok("status").result
        assert (status["endpoint_status"], status["url"], status["parts"]) == ("stopped", "", [])
        stage.ok("teardown")
        assert listener.heard == b""
    assert running(process)


def test_even_with_its_start_and_its_port(stage: Stage) -> None:
    """The test's own process, fully recorded, was not started as a server of the stage."""
    with listening() as listener:
        for kind in ("model server", "gateway"):
            server = Server.of(kind, os.getpid(), listener.port, "0" * 32)
            (stage.local / "servers" / f"{kind}.json").write_bytes(server.encode())
            if kind == "model server":
                state = {"name": "x", "version": "v", **json.loads(server.encode())}
                (stage.local / "endpoint.json").write_text(json.dumps(state))
        assert stage("invoke", "a secret text").status == 10
        assert stage("invoke", "a secret text", "--api").status == 10
        stage.ok("teardown")
        assert listener.heard == b""


def test_the_port_of_a_dead_server_gets_no_text_and_no_key(up: Stage) -> None:
    model, gateway = servers(up)["model server"], servers(up)["gateway"]
    end(model)
    with listening(model.port) as listener:
        error = up("invoke", "a secret text").error
        assert error["hint"].startswith("run fdeploy deploy")
        assert f"process {model.pid}, port {model.port}" in error["message"]
        assert "nothing was sent" in error["message"]
        # The gateway is running; it does not send the text anywhere either.
        assert up("invoke", "a secret text", "--api").error["exit_code"] == 10
        assert up.ok("status").result["endpoint_status"] == "stopped"
        assert up("create-api").status == 10
        assert listener.heard == b""
        up.ok("deploy")
        up.ok("invoke", "a text", "--api")
        assert listener.heard == b""
    end(gateway)
    with listening(gateway.port) as listener:
        error = up("invoke", "a secret text", "--api").error
        assert error["hint"].startswith("run fdeploy create-api")
        assert "nothing was sent" in error["message"]
        assert "nothing was sent" in up("open").error["message"]
        with pytest.raises(InvocationError, match="nothing was sent"):
            Client.of_stage(folder=up.dev.parents[1])
        assert up.ok("status").result["url"] == ""
        up.ok("key", "rotate")
        up.ok("create-api")
        up.ok("invoke", "a text", "--api")
        assert listener.heard == b""
        up.ok("teardown")
        assert listener.heard == b""


def test_an_address_that_was_written_into_a_record_gets_nothing(up: Stage) -> None:
    with listening() as listener:
        for name in ("deploy", "create-api"):
            path = up.dev / f"{name}.json"
            values = json.loads(path.read_bytes())
            values["url"] = f"http://127.0.0.1:{listener.port}/classify"
            path.write_text(json.dumps(values))
        for arguments in (["a secret text"], ["a secret text", "--api"]):
            up("invoke", *arguments)
        assert listener.heard == b""


def test_servers_are_found_though_the_folder_is_gone(up: Stage) -> None:
    recorded = servers(up)
    shutil.rmtree(up.home)
    proof = up.ok("teardown").result
    assert {each for each in proof["deleted"] if "process" in each} == {
        f"{kind}, process {server.pid}" for kind, server in recorded.items()
    }


def test_a_server_that_was_not_recorded_is_ended(stage: Stage, start: Start) -> None:
    """The command was killed after it started the server and before it wrote the record."""
    mark = f"model server:{'1' * 32}:{stage.local}"
    process = start(environ={MARK: mark}, cwd=stage.local)
    other = start(environ={MARK: f"{mark}-2"}, cwd=stage.local)
    proof = stage.ok("teardown").result
    assert f"model server, process {process.pid}" in proof["deleted"]
    assert not running(process)
    assert running(other)


def test_a_servers_own_child_is_ended_with_it(tmp_path: Path, start: Start) -> None:
    """A server leads a session, and its children belong to that session."""
    home = tmp_path / ".fdeploy" / "dev" / "local"
    (home / "servers").mkdir(parents=True)
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).wait()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: f"gateway:{'2' * 32}:{home}"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    server = Server.of("gateway", parent.pid, 1, "2" * 32)
    (home / "servers" / f"{server.token}.json").write_bytes(server.encode())
    copied = start(environ={MARK: f"gateway:{'2' * 32}:{home}"})
    processes = Processes(home, clock=time.monotonic, sleep=time.sleep)
    found = processes.running("gateway")
    try:
        assert len(found) == 2
        assert copied not in found
        assert processes.running("model server") == []
    finally:
        processes.stop(found)
        parent.communicate()
    assert processes.running() == []

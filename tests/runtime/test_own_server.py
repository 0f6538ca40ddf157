"""The model server that a host keeps running beside itself."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from fastai_deploy.runtime.bundle import ModelError
from fastai_deploy.runtime.hosts.own_server import OwnServer
from fastai_deploy.runtime.log import Log
from fastai_deploy.runtime.server import listen
from tests.runtime.bundles import TinyBundle, write_bundle
from tests.runtime.server_process import MODULE, PATIENCE, until


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBundle:
    return write_bundle(tmp_path / "bundle")


class Kept:
    """A server that is kept running, what was logged, and whether it was given up."""

    def __init__(self, folder: Path, port: int) -> None:
        self.given_up: queue.Queue[str] = queue.Queue()
        self._port = port
        self._written = io.StringIO()
        self.server = OwnServer(
            command(folder, port),
            Log(self._written),
            lambda: self.given_up.put("gave up"),
            environment=os.environ,
            pause=0.01,
        )

    @property
    def ends(self) -> list[int]:
        """The exit code of each end so far."""
        events = [json.loads(line) for line in self._written.getvalue().splitlines()]
        return [event["code"] for event in events if event["event"] == "server_ended"]

    def answers(self) -> bool:
        return answers(self._port)

    def process(self) -> psutil.Process:
        """The server; its own processes are children of this one."""
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):  # a zombie, or one that has just ended
                if str(self._port) in child.cmdline():
                    return child
        raise AssertionError("there is no server")


@contextmanager
def kept(folder: Path, port: int) -> Iterator[Kept]:
    """A server that is ended with the block."""
    found = Kept(folder, port)
    try:
        yield found
    finally:
        found.server.close()


def command(folder: Path, port: int) -> Sequence[str]:
    return [sys.executable, "-m", MODULE, "--model-dir", str(folder), "--port", str(port)]


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/ping", timeout=PATIENCE) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError):
        return False


def test_a_killed_server_is_started_again(tiny: TinyBundle, free_port: int) -> None:
    with kept(tiny.folder, free_port) as found:
        found.server.until_ready()
        assert found.answers()
        arguments = found.process().cmdline()
    announced = Path(arguments[arguments.index("--announce") + 1])
    assert not announced.parent.exists()
    assert not answers(free_port)
    assert found.given_up.empty()


def test_a_model_that_cannot_be_served(tiny: TinyBundle, free_port: int) -> None:
    with (tiny.folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with kept(tiny.folder, free_port) as found:
        with pytest.raises(ModelError, match="its log says why"):
            found.server.until_ready()
        assert found.given_up.get(timeout=PATIENCE)
        assert found.ends == [3]


def test_a_model_that_is_damaged_while_it_is_served(tiny: TinyBundle, free_port: int) -> None:
    with kept(tiny.folder, free_port) as found:
        found.server.until_ready()
        (tiny.folder / "model.onnx").unlink()
        found.process().kill()
        assert found.given_up.get(timeout=PATIENCE)
        assert found.ends == [-signal.SIGKILL, 3]


def test_a_port_that_stays_taken(tiny: TinyBundle) -> None:
    with listen(0) as other, kept(tiny.folder, other.getsockname()[1]) as found:
        assert found.given_up.get(timeout=PATIENCE)
        assert found.ends == [4] * 6


def test_a_port_that_is_taken_at_first(tiny: TinyBundle) -> None:
    with listen(0) as other:
        port = other.getsockname()[1]
        with kept(tiny.folder, port) as found:
            until(lambda: found.ends)
            other.close()
            found.server.until_ready()
            assert found.answers()


def test_the_server_ends_when_its_starter_is_killed(tiny: TinyBundle, free_port: int) -> None:
    starter = (
        "import sys, os, time; from fastai_deploy.runtime.hosts.own_server import OwnServer; "
        "from fastai_deploy.runtime.log import Log; "
        "server = OwnServer(sys.argv[1:], Log(sys.stderr), print, environment=os.environ); "
        "server.until_ready(); print('ready', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", starter, *command(tiny.folder, free_port)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (server,) = psutil.Process(process.pid).children()
        assert answers(free_port)
        process.kill()
    assert psutil.wait_procs([server], timeout=PATIENCE)[1] == []
    assert not answers(free_port)

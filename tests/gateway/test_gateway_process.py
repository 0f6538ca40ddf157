"""The local gateway as a process: how it starts, what it needs, how it stops."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from fastai_deploy.packaging.lambda_zip import build_lambda_package
from fastai_deploy.runtime.server import listen
from tests.gateway.conftest import MODULE, Start
from tests.gateway.servers import Received, Reply, Server, echo


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_it_listens_on_loopback_addresses_only(start: Start) -> None:
    gateway = start()
    process = psutil.Process(gateway.process.pid)
    listening = [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert len(listening) == 2
    assert gateway.port in {address.port for address in listening}


def test_it_takes_the_port_that_it_is_given(start: Start, free_port: int) -> None:
    assert start(port=free_port).port == free_port


def test_a_taken_port_is_said_clearly(start: Start, taken: int) -> None:
    with pytest.raises(AssertionError) as caught:
        start(port=taken)
    message, hint = str(caught.value).splitlines()[:2]
    assert f"port {taken}" in message
    assert "another port" in hint


def test_small_answers_do_not_wait_for_the_kernel() -> None:
    with listen(0) as listener:
        # asyncio sets TCP_NODELAY only on sockets with an explicit protocol.
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"endpoint": 1}'])
def test_a_bad_configuration_is_said_clearly(tmp_path: Path, content: bytes | None) -> None:
    config = tmp_path / "gateway.json"
    if content is not None:
        config.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", MODULE, "--config", str(config), "--announce", str(tmp_path / "a")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (3, 4)
    assert "Traceback" not in done.stdout + done.stderr
    assert "fdeploy create-api" in done.stdout or "does not exist" in done.stdout
    assert not (tmp_path / "a").exists()


def test_a_missing_key_file_is_said_clearly(start: Start, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="does not exist"):
        start(key_files=(str(tmp_path / "nothing"),))


def test_the_users_aws_settings_are_not_consulted(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "home/.aws"
    broken.mkdir(parents=True)
    (broken / "config").write_text("[this is no configuration")
    (broken / "credentials").write_text("[neither is this")
    environ = {
        "HOME": str(broken.parent),
        "AWS_PROFILE": "nobody",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "the-users-own",
        "AWS_MAX_ATTEMPTS": "many",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    gateway = start(environ=environ)
    assert gateway.client().send().status == 200
    assert "the-users-own" not in gateway.log


def test_it_runs_the_package_that_is_uploaded(start: Start, tmp_path: Path) -> None:
    gateway = start(environ={"PYTHONDONTWRITEBYTECODE": ""})
    assert gateway.client().send().status == 200
    (unpacked,) = Path(gateway.config.endpoint_state).with_name("lambda").iterdir()
    with zipfile.ZipFile(io.BytesIO(build_lambda_package())) as archive:
        archive.extractall(tmp_path / "expected")
    for path in (tmp_path / "expected").rglob("*.py"):
        mine = unpacked / path.relative_to(tmp_path / "expected")
        assert mine.read_bytes() == path.read_bytes()
        # Python writes bytecode beside the modules that it imports.
        assert list(mine.parent.glob(f"__pycache__/{mine.stem}.*.pyc"))


def test_it_ends_in_good_order(start: Start) -> None:
    gateway = start()
    assert gateway.client().send().status == 200
    assert gateway.end() == 0
    assert "Traceback" not in gateway.log


def test_what_is_in_flight_is_answered_before_the_end(start: Start, model: Server) -> None:
    arrived, opened = threading.Event(), threading.Event()

    def wait(received: Received) -> Reply:
        arrived.set()
        opened.wait(30)
        return echo(received)

    model.script = wait
    gateway = start()
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(gateway.client().send)
        assert arrived.wait(30)
        gateway.process.terminate()
        opened.set()
        assert answer.result().status == 200
    assert gateway.process.wait(20) == 0


def test_it_ends_though_the_model_never_answers(start: Start, model: Server) -> None:
    arrived, opened = threading.Event(), threading.Event()

    def wait(received: Received) -> Reply:
        arrived.set()
        opened.wait(60)
        return echo(received)

    model.script = wait
    gateway = start()
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(gateway.client().send)
        try:
            assert arrived.wait(30)
            assert gateway.end() == 0  # while the model still holds the request
        finally:
            opened.set()
        assert isinstance(answer.exception(), OSError) or answer.result().status >= 500


def test_the_announcement_is_complete_and_minimal(start: Start) -> None:
    gateway = start()
    announced = json.loads(gateway.announce.read_text())
    assert announced == {"pid": gateway.process.pid, "port": gateway.port}
    assert os.listdir(gateway.announce.parent).count("announce.json") == 1

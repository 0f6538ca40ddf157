"""The real server process: start, refusal to start, overload, and stop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import fastai_deploy.runtime
from fastai_deploy.runtime.server import listen
from tests.runtime.bundles import MAX_LENGTH, TinyBundle, write_bundle
from tests.runtime.server_process import Reply, ServerProcess, serving, started, until

LONG = "the " * MAX_LENGTH


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBundle:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def announced(tmp_path: Path) -> Path:
    return tmp_path / "announced"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """A bundle whose model takes about a tenth of a second for a long text."""
    folder = tmp_path_factory.mktemp("slow") / "bundle"
    return write_bundle(folder, layers=1_000, hidden=256, goldens=["the"])


def refusal(folder: Path, announced: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the reason of a server that does not start."""
    with started(folder, announced, *arguments) as server:
        reason = server.wait_for("refused")["reason"]
        assert not announced.exists()
        return server.wait(), reason


def test_a_tampered_file(tiny: TinyBundle, announced: Path) -> None:
    with (tiny.folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    status, reason = refusal(tiny.folder, announced)
    assert status == 3
    assert reason == "model.onnx does not match manifest.json: its SHA-256 differs"


def test_goldens_that_are_not_reproduced(tiny: TinyBundle, announced: Path) -> None:
    wrong = {**tiny.golden("a film that is long"), "probabilities": tiny.expected("a bad film")}
    tiny.write_goldens([tiny.golden("the"), wrong])
    status, reason = refusal(tiny.folder, announced)
    assert status == 3
    assert reason.startswith(
        "1 of 2 goldens are not reproduced; the first, 'a film tha...', is off"
    )


def test_no_model_there(tmp_path: Path, announced: Path) -> None:
    status, reason = refusal(tmp_path / "nowhere", announced)
    assert status == 3
    assert "manifest.json is missing" in reason


def test_a_port_that_is_taken(tiny: TinyBundle, announced: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, reason = refusal(tiny.folder, announced, "--port", str(port))
    assert status == 4
    assert reason == f"port {port} cannot be used: Address already in use"


def test_nowhere_to_announce(tiny: TinyBundle, tmp_path: Path) -> None:
    with started(tiny.folder, tmp_path / "no-such-folder" / "announced") as server:
        assert server.process.wait(60) == 2


def test_the_port_that_was_asked_for(tiny: TinyBundle, announced: Path, free_port: int) -> None:
    asked = ("--port", str(free_port), "--home", "/srv/project")
    with serving(tiny.folder, announced, *asked) as server:
        assert server.port == free_port


def held_back(tiny: TinyBundle) -> tuple[Path, bytes]:
    """Replace the manifest with a pipe, and return both; a server waits until it is written."""
    manifest = tiny.folder / "manifest.json"
    written = manifest.read_bytes()
    manifest.unlink()
    os.mkfifo(manifest)
    return manifest, written


def test_connections_are_refused_until_the_model_answers(
    tiny: TinyBundle, announced: Path, free_port: int
) -> None:
    manifest, written = held_back(tiny)
    with started(tiny.folder, announced, "--port", str(free_port)) as server:
        with manifest.open("wb") as file:  # which waits for the server to read it
            with (
                pytest.raises(ConnectionRefusedError),
                socket.create_connection(("127.0.0.1", free_port)),
            ):
                pass
            file.write(written)
        server.port = server.wait_for("ready")["port"]
        assert server.request("GET", "/ping").status == 200


def test_another_server_takes_the_port_during_the_load(
    tiny: TinyBundle, announced: Path, free_port: int
) -> None:
    manifest, written = held_back(tiny)
    with started(tiny.folder, announced, "--port", str(free_port)) as server:
        with manifest.open("wb") as file, listen(free_port):
            file.write(written)
            file.close()
            assert "cannot be used" in server.wait_for("refused")["reason"]
        assert server.wait() == 4


def test_a_server_ends_with_its_standard_input(tiny: TinyBundle, announced: Path) -> None:
    with serving(tiny.folder, announced, "--until-eof", stdin=subprocess.PIPE) as server:
        assert server.process.stdin is not None
        assert server.request("GET", "/ping").status == 200
        server.process.stdin.close()
        assert server.wait() == 0


def test_an_alias_of_no_route(tiny: TinyBundle, announced: Path) -> None:
    with started(tiny.folder, announced, "--alias", "/=/nowhere") as server:
        assert server.process.wait(60) == 2


def test_the_shipped_copy_serves_without_the_package(
    tiny: TinyBundle, announced: Path, tmp_path: Path
) -> None:
    runtime = Path(fastai_deploy.runtime.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "gateway")
    shutil.copytree(runtime, tmp_path / "code" / "fdeploy_runtime", ignore=ignored)
    with serving(
        tiny.folder,
        announced,
        module="fdeploy_runtime.server",
        environ={"PYTHONPATH": str(tmp_path / "code")},
        cwd=tmp_path,
    ) as server:
        answer = server.post({"text": "no"}).json
    assert answer["probabilities"] == pytest.approx(tiny.expected("no"), abs=1e-6)
    assert len(answer["model"]["version"]) == 12


def test_a_signal_stops_the_server_without_remains(tiny: TinyBundle, announced: Path) -> None:
    with serving(tiny.folder, announced) as server:
        idle = server.connect()
        idle.connect()
        first = psutil.Process(server.process.pid)
        whole = [first, *first.children(recursive=True)]
        server.terminate()
        assert server.wait() == 0
        idle.close()
        assert '"event": "ended"' in server.log[-1]
        assert not any(process.is_running() for process in whole)


def test_a_signal_lets_requests_in_flight_finish(slow: TinyBundle, announced: Path) -> None:
    with serving(slow.folder, announced) as server, ThreadPoolExecutor(3) as clients:
        answers = in_flight(server, clients, lambda: server.post({"text": LONG}))
        server.terminate()
        assert [answer.result().status for answer in answers] == [200, 200, 200]
        assert server.wait() == 0


def test_overload_is_refused_with_a_hint_when_to_come_back(
    slow: TinyBundle, announced: Path
) -> None:
    alias = ("--alias", "/=/invocations")
    with serving(slow.folder, announced, "--max-wait", "0", *alias) as server:
        names = [f"request-{number}" for number in range(24)]

        def ask(name: str) -> Reply:
            path = "/" if int(name[-1]) % 2 else "/invocations"
            body = json.dumps({"text": LONG}).encode()
            return server.request("POST", path, body, {"x-request-id": name})

        with ThreadPoolExecutor(12) as clients:
            replies = list(clients.map(ask, names))
        assert [reply.headers["x-request-id"] for reply in replies] == names
        refused = [reply for reply in replies if reply.status == 503]
        answered = [reply for reply in replies if reply.status == 200]
        assert len(refused) + len(answered) == 24
        assert refused
        assert answered
        assert {reply.code for reply in refused} == {"overloaded"}
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        assert server.post({"text": "no"}).status == 200
        assert server.metric("fdeploy_refused_total") == len(refused)
        assert server.metric('fdeploy_requests_total{status="503"}') == len(refused)


def test_an_answer_that_does_not_come_in_time(slow: TinyBundle, announced: Path) -> None:
    with serving(slow.folder, announced, "--timeout", "0.01") as server:
        reply = server.post({"text": LONG})
        assert (reply.status, reply.code) == (504, "timeout")


def test_who_hangs_up_is_not_waited_for(slow: TinyBundle, announced: Path) -> None:
    patient = ("--timeout", "900", "--max-wait", "900")
    with serving(slow.folder, announced, *patient) as server, ThreadPoolExecutor(3) as clients:
        answers = in_flight(server, clients, lambda: server.post({"text": LONG}))
        waiting = server.connect()
        waiting.request("POST", "/invocations", json.dumps({"texts": [LONG] * 500}).encode())
        until(lambda: server.metric("fdeploy_queued_texts") > 100)
        waiting.close()
        until(lambda: server.metric('fdeploy_requests_total{status="499"}'))
        assert [answer.result().status for answer in answers] == [200, 200, 200]
        assert server.post({"text": "no"}).status == 200
        assert server.metric("fdeploy_queued_texts") == 0


def in_flight(
    server: ServerProcess, clients: ThreadPoolExecutor, request: Callable[[], Reply]
) -> list[Future[Reply]]:
    """Three requests: one is being answered and two wait (or the machine is so slow that all are
    answered, and there is nothing to see)."""
    answers = [clients.submit(request) for _ in range(3)]
    until(lambda: server.metric("fdeploy_queued_texts") == 2 or all(map(Future.done, answers)))
    return answers


def test_two_servers_side_by_side(tiny: TinyBundle, tmp_path: Path) -> None:
    with (
        serving(tiny.folder, tmp_path / "first") as first,
        serving(tiny.folder, tmp_path / "second") as second,
    ):
        assert first.port != second.port
        assert threading.active_count() >= 3
        assert first.post({"text": "no"}).json == second.post({"text": "no"}).json

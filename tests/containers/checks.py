"""The checks of a server that runs a packaged artifact."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil

from benchmarks.load import closed_loop, open_loop, requests_of
from fastai_deploy.packaging.container_files import BACKEND_URL
from tests.containers.families import Family
from tests.containers.servers import (
    MODEL_SERVER,
    PORT,
    REPLICA,
    Server,
    functions_answer,
    start,
    way_on_gpu,
)

HOST = "127.0.0.1"
RAY = 8000
BACKEND = int(BACKEND_URL.rpartition(":")[2])
TOLERANCE = 1e-4
PATIENCE = 600.0  # seconds; the machine may be busy
CLIENTS = 16

Found = TypeVar("Found")


class Checks:
    """The checks of one family; ``base`` holds ``model/`` and ``golden.jsonl``."""

    def __init__(self, family: Family, python: Path, base: Path) -> None:
        self._family = family
        self._python = python
        self._base = base
        inside = base / "container/rootfs/opt/ml/model"  # of an image that has its model
        self._model = inside if (inside / "manifest.json").exists() else base / "model"
        self._failed = 0
        lines = (base / "golden.jsonl").read_text(encoding="utf-8").splitlines()
        self._goldens: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def run(self) -> int:
        """All of them; 1 if one failed."""
        own = self._family.server == "fdeploy"
        if not own:
            self._check("a GPU's operators", self._on_gpu)
            self._check("the four functions", self._functions)
        with start(self._family, self._python, self._base) as server:
            self._check("first answer", lambda: self._first_answer(server))
            for name, check in (
                ("goldens", self._goldens_alike),
                ("wrong requests", self._wrong_requests),
                ("a bad item among good ones", self._bad_item),
                ("a text of 100,000 words", self._long_text),
                (f"{CLIENTS} clients at once", self._together),
                ("ten times the peak", self._overloaded),
            ):
                self._check(name, check)
            if own:
                self._check("who it is, and its memory", lambda: self._small(server))
                self._check("a signal to end", lambda: self._ended(server))
            else:
                self._check("a worker killed", lambda: self._killed(server.worker()))
            if self._family.server == "ray-serve":
                self._check("killed again at once", lambda: self._killed_twice(server))
                self._check("Ray's replica killed", lambda: self._replica_killed(server))
                self._check("Ray asked directly", self._through_ray)
        if self._family.server == "ray-serve":
            self._on_ray()
        self._tamper()
        with start(self._family, self._python, self._base) as server:
            self._check("a tampered model", lambda: self._refused(server))
        return int(self._failed > 0)

    def _check(self, name: str, check: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            detail = check()
        except Exception as error:  # noqa: BLE001  # a check that fails is told, and the next is run
            self._failed += 1
            print(f"FAILED {name}: {error!r}", flush=True)
            return
        self._say(name, time.monotonic() - began, detail)

    @staticmethod
    def _say(name: str, seconds: float, detail: str = "") -> None:
        print(f"ok     {name}: {seconds:.1f} s {detail}".rstrip(), flush=True)

    def _on_ray(self) -> None:
        with start(self._family, self._python, self._base) as server:
            self._check("a slow model", lambda: self._slow(server))
        with _taken(BACKEND) as other:
            with start(self._family, self._python, self._base) as server:
                self._check("a port that is taken at first", lambda: self._freed(server, other))
        without = {"RAYSERVE_BACKEND_URL": "http://127.0.0.1:8000"}  # the adapter's own default
        with start(self._family, self._python, self._base, without) as server:
            self._check("an environment of an earlier version", lambda: self._first_answer(server))
            self._check("its goldens", self._goldens_alike)

    def _slow(self, server: Server) -> str:
        """As long as the server loads, here because it is stopped, /ping fails, and at once."""
        loading = _until(server, lambda: server.find(MODEL_SERVER), pause=0.01)
        loading.suspend()
        assert '"event": "ready"' not in server.log, "it was stopped too late"
        _until(server, lambda: _get("/ping") != 0)
        pings = []
        for _ in range(50):
            began = time.monotonic()
            status = _get("/ping")
            pings.append(time.monotonic() - began)
            assert status == http.HTTPStatus.SERVICE_UNAVAILABLE, status
            assert not _answers(), "it answers"
        loading.resume()
        _until(server, lambda: _get("/ping") == http.HTTPStatus.OK, pause=0.01)
        assert _answers(), "/ping is 200, and the model does not answer"
        return f"/ping is 503 within {max(pings) * 1000:.0f} ms until the model answers"

    @staticmethod
    def _freed(server: Server, other: socket.socket) -> str:
        _until(server, lambda: '"event": "server_ended"' in server.log)
        other.close()
        _until(server, _answers)
        return "answers once it is free"

    def _on_gpu(self) -> str:
        way, skipped, goldens, deviation = way_on_gpu(self._python, self._base)
        assert way.startswith("torch "), way
        assert not skipped, skipped
        assert goldens == len(self._goldens)
        return f"{way}: {goldens} goldens, max |Δprobability| {deviation:.1e}"

    def _functions(self) -> str:
        texts = [golden["text"] for golden in self._goldens]
        return self._same(functions_answer(self._python, self._base, texts))

    def _first_answer(self, server: Server) -> str:
        ping = 0.0
        while not _answers():
            if not ping and _get("/ping") == http.HTTPStatus.OK:
                ping = server.age
            assert server.alive, f"the server ended: {server.tail}"
            assert server.age < PATIENCE, server.tail
            time.sleep(0.1)
        return f"/ping 200 after {ping or server.age:.1f} s, first answer after {server.age:.1f} s"

    def _goldens_alike(self) -> str:
        answers = []
        for golden in self._goldens:
            status, body = _post({"text": golden["text"]})
            assert status == http.HTTPStatus.OK, body
            answers.append(body)
        return self._same(answers)

    def _same(self, answers: list[Any]) -> str:
        worst = 0.0
        for golden, answer in zip(self._goldens, answers, strict=True):
            expected, found = golden["probabilities"], answer["probabilities"]
            assert expected.keys() == found.keys(), answer
            worst = max(worst, *(abs(expected[label] - found[label]) for label in expected))
        assert worst <= TOLERANCE, worst
        return f"{len(answers)} alike, max |Δprobability| {worst:.1e}"

    @staticmethod
    def _wrong_requests() -> str:
        for data, kind, status in (
            (b'{"txt": "a"}', "application/json", 422),
            (b"no json", "application/json", 400),
            (b"a,b", "text/csv", 415),
        ):
            found, body = _post_raw(data, kind)
            assert found == status, (found, body)
            assert "error" in body, body
        return "400, 415, 422 as the contract has them"

    @staticmethod
    def _bad_item() -> str:
        status, body = _post({"texts": ["a great film", 1, "no"]})
        assert status == http.HTTPStatus.OK, body
        assert ["error" in item for item in body] == [False, True, False], body
        return "answered in its place"

    @staticmethod
    def _long_text() -> str:
        status, body = _post({"text": "word " * 100_000})
        assert status == http.HTTPStatus.OK, body
        assert body["truncated"], body
        return "answered, truncated"

    def _together(self) -> str:
        texts = [golden["text"] for golden in self._goldens if golden["text"].strip()]
        asked = [texts[place % len(texts)] for place in range(CLIENTS * 4)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            found = list(clients.map(lambda text: _post({"text": text}), asked))
        known = {golden["text"]: golden["probabilities"] for golden in self._goldens}
        for text, (status, body) in zip(asked, found, strict=True):
            assert status == http.HTTPStatus.OK, body
            difference = max(abs(known[text][k] - body["probabilities"][k]) for k in known[text])
            assert difference <= TOLERANCE, (text[:20], difference)
        return f"{len(asked)} requests, each its own answer"

    def _overloaded(self) -> str:
        """Every request is answered or refused, /ping stays 200, and all is well afterwards."""
        requests = requests_of([golden["text"] for golden in self._goldens], "/invocations")
        peak = closed_loop(PORT, requests, CLIENTS, 3, least=1, most=60).rate
        with ThreadPoolExecutor(1) as other:
            ping = other.submit(lambda: [_get("/ping") for _ in _seconds(5)])
            load = open_loop(PORT, requests, 10 * peak, 5, settle=1, wait=True)
        # Beyond its 4,096 connections, the server closes new ones (0). There are so many only where
        # it is asked directly.
        direct = {0} if self._family.server == "fdeploy" else set()
        assert load.statuses.keys() <= {200, 503} | direct, load.statuses
        assert set(ping.result()) == {200}, ping.result()
        assert _answers(), "it does not answer afterwards"
        kept = load.rate / peak
        return f"peak {peak:.0f} requests/s, {kept:.2f} of it under load, {dict(load.statuses)}"

    @staticmethod
    def _killed(worker: psutil.Process) -> str:
        print(f"       kill -9 {worker.pid}", flush=True)
        worker.send_signal(signal.SIGKILL)
        psutil.wait_procs([worker], timeout=10)
        refused = 0
        began = time.monotonic()
        while not _answers():
            refused += 1
            assert time.monotonic() - began < PATIENCE, "it does not come back"
            time.sleep(0.1)
        return f"answers again, after {refused} requests without an answer"

    @staticmethod
    def _small(server: Server) -> str:
        """The server is not root, whoever started it, and may not become root again."""
        worker = server.worker()
        assert set(worker.uids()) == {1000}, worker.uids()
        assert set(worker.gids()) == {1000}, worker.gids()
        return f"uid 1000, {worker.memory_full_info().pss >> 20} MB"

    @staticmethod
    def _ended(server: Server) -> str:
        """``docker stop`` and SageMaker send SIGTERM; a request in flight is answered first."""
        runs = _metric("fdeploy_model_runs_total")
        with ThreadPoolExecutor(1) as client:
            asked = client.submit(_post, {"texts": ["a long text " * 100] * 100})
            while _metric("fdeploy_model_runs_total") == runs:
                time.sleep(0.01)
            server.worker().send_signal(signal.SIGTERM)
            status, body = asked.result()
        assert status == http.HTTPStatus.OK, body
        assert len(body) == 100, len(body)
        _until(server, lambda: not server.alive)
        return "the request in flight was answered"

    def _killed_twice(self, server: Server) -> str:
        first = server.worker()
        first.send_signal(signal.SIGKILL)

        def next_one() -> psutil.Process | None:
            found = server.find(MODEL_SERVER)
            return None if found is None or found.pid == first.pid else found

        return self._killed(_until(server, next_one, pause=0.01))

    def _replica_killed(self, server: Server) -> str:
        """Its model server ends with it, and the next replica starts another."""
        first = server.worker()
        server.process(REPLICA).send_signal(signal.SIGKILL)
        assert psutil.wait_procs([first], timeout=PATIENCE)[1] == []
        _until(server, _answers)
        return "its server ended too; answers again"

    def _through_ray(self) -> str:
        text = self._goldens[0]["text"]
        for path, status in (("/", 200), ("/nowhere", 404)):
            body = json.dumps({"text": text}).encode()
            found, answer = _post_raw(body, "application/json", port=RAY, path=path)
            assert found == status, (found, answer)
        found, answer = _post_raw(b"no json", "application/json", port=RAY, path="/")
        assert found == http.HTTPStatus.BAD_REQUEST, (found, answer)
        return "200, 400, 404"

    def _tamper(self) -> None:
        path = self._model / "model.onnx"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    @staticmethod
    def _refused(server: Server) -> str:
        """The log says why, no request is answered, and the container is not healthy."""
        while "its SHA-256 differs" not in server.log:
            assert server.age < PATIENCE, server.tail
            assert not _answers(), "a tampered model answers"
            time.sleep(0.2)
        settled = time.monotonic() + 60
        while _get("/ping") == http.HTTPStatus.OK:
            assert time.monotonic() < settled, "/ping says 200"
            time.sleep(0.2)
        assert not _answers(), "a tampered model answers"
        return f"refused, the log says why, /ping says {_get('/ping') or 'nothing'}"


def _until(server: Server, condition: Callable[[], Found | None], pause: float = 0.1) -> Found:
    """What ``condition`` returns once it is true, asked every ``pause`` seconds."""
    while not (found := condition()):
        assert server.age < PATIENCE, server.tail
        time.sleep(pause)
    return found


def _taken(port: int) -> socket.socket:
    """A socket that listens and answers nothing, as soon as the container before has let go."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_server((HOST, port))
        except OSError:  # noqa: PERF203
            assert time.monotonic() < end, f"port {port} stays taken"
            time.sleep(0.1)


def _seconds(number: int) -> Iterator[None]:
    """Once a second."""
    for _ in range(number):
        yield
        time.sleep(1)


def _answers() -> bool:
    return _post({"text": "ready?"})[0] == http.HTTPStatus.OK


def _post(value: Any) -> tuple[int, Any]:
    return _post_raw(json.dumps(value).encode(), "application/json")


def _post_raw(
    data: bytes, kind: str, *, port: int = PORT, path: str = "/invocations"
) -> tuple[int, Any]:
    """Status and JSON; status 0 where there is no answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request("POST", path, data, {"content-type": kind})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body)
    except (OSError, http.client.HTTPException):
        return 0, None
    except ValueError:
        return answer.status, body
    finally:
        connection.close()


def _metric(name: str) -> float:
    with urllib.request.urlopen(f"http://{HOST}:{PORT}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _get(path: str) -> int:
    connection = http.client.HTTPConnection(HOST, PORT, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()

"""Start a competitor's server, check its answers, measure its memory, and stop it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil

from benchmarks.comparison.competitors.base import Competitor, Site
from benchmarks.comparison.models import Model
from fastai_deploy.runtime.telemetry import SWITCHES

PATIENCE = 180.0  # seconds
_MARK = "FDEPLOY_COMPARISON"
_PORTS = 4


class Failed(Exception):
    """A competitor did not start, or gave a wrong answer."""


@dataclass(frozen=True)
class Memory:
    """Resident memory in MB: all processes of the server, and the largest one."""

    whole: float
    largest: float


@dataclass(frozen=True)
class Server:
    """A running server; ``seconds`` is the time from its start to its first answer."""

    competitor: Competitor
    port: int
    seconds: float
    folder: Path

    def check(self, model: Model) -> float:
        """The largest |Δprobability| over the goldens. Raises Failed beyond the tolerance."""
        worst = 0.0
        for golden in model.goldens:
            status, body = _post(self.port, self.competitor.path, golden.text)
            if status != HTTPStatus.OK:
                raise Failed(f"{status}: {body!r:.200}")
            found = body["probabilities"]
            worst = max(worst, *(abs(found[k] - p) for k, p in golden.probabilities.items()))
            if body["label"] != max(golden.probabilities, key=golden.probabilities.__getitem__):
                raise Failed(f"wrong label: {body!r:.200}")
        if worst > self.competitor.tolerance:
            raise Failed(f"|Δprobability| of {worst:.4f}")
        return worst

    def memory(self) -> Memory:
        """Its memory now."""
        sizes = []
        for process in _processes(self.folder):
            with suppress(psutil.Error):
                sizes.append(process.memory_info().rss / 1e6)
        return Memory(sum(sizes), max(sizes, default=0.0))


@contextmanager
def serving(competitor: Competitor, model: Model, python: Path) -> Iterator[Server]:
    """Run the competitor's server and yield it once it answers; stop all its processes at the end.

    Raises Failed, with the end of the server's log.
    """
    # A short name, because Ray puts sockets below it.
    with tempfile.TemporaryDirectory(prefix="c", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        site = Site(model, python, folder, _free_ports())
        launch = competitor.launch(site)
        log = folder / "server.log"
        began = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                launch.command,
                cwd=launch.folder,
                env={
                    "PATH": f"{python.parent}:{os.environ['PATH']}",
                    "HOME": scratch,
                    "HF_HUB_OFFLINE": "1",
                    **SWITCHES,
                    "PYTHONDONTWRITEBYTECODE": "",
                    _MARK: scratch,
                    **launch.variables,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while _post(site.port, competitor.path, model.goldens[0].text)[0] != HTTPStatus.OK:
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    raise Failed(f"no answer: {log.read_text(errors='replace')[-3000:]}")
                time.sleep(0.02)
            yield Server(competitor, site.port, time.perf_counter() - began, folder)
        finally:
            _end(process, folder)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    left = _processes(folder)
    for each in left:
        with suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(left, timeout=20)
    process.wait()


def _processes(folder: Path) -> list[psutil.Process]:
    """All processes of a server, found by an environment variable set at its start."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == str(folder):
                found.append(process)
    return found


def _free_ports() -> tuple[int, ...]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(_PORTS)]
        return tuple(each.getsockname()[1] for each in taken)


def _post(port: int, path: str, text: str) -> tuple[int, Any]:
    """The status and JSON of an answer; status 0 if there is none."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            body = json.dumps({"text": text})
            connection.request("POST", path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None

"""Start a competitor's server, wait for its first right answer, measure its memory, and stop it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.comparison.answers import answers_right
from benchmarks.comparison.competitors.base import MARK, Competitor, Failed, Site
from benchmarks.comparison.models import Model
from fastai_deploy.runtime.telemetry import SWITCHES

PATIENCE = 300.0  # seconds
_PAUSE = 0.02  # between two questions, as a share of the time since the start
_PORTS = 6


@dataclass(frozen=True)
class Memory:
    """Resident memory in MB: all processes of the server, and the largest one."""

    whole: float
    largest: float


@dataclass(frozen=True)
class Server:
    """A running server; ``seconds`` is the time from its start to its first right answer."""

    competitor: Competitor
    port: int
    seconds: float
    folder: Path

    def memory(self) -> Memory:
        """Its memory now."""
        sizes = []
        for process in _processes(self.folder):
            with suppress(psutil.Error):
                sizes.append(process.memory_info().rss / 1e6)
        return Memory(sum(sizes), max(sizes, default=0.0))


@contextmanager
def serving(competitor: Competitor, model: Model, python: Path) -> Iterator[Server]:
    """Run the competitor's server, yield it once it answers, and stop all its processes at the end.

    Raises Failed if it does not. The server's log is kept then, and after a Failed of the caller's.
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
                    MARK: scratch,
                    **launch.variables,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while not answers_right(site.port, competitor, model.goldens[0]):
                passed = time.perf_counter() - began
                if process.poll() is not None or passed > PATIENCE:
                    raise Failed(f"no right answer in {passed:.0f} s")  # noqa: TRY301
                time.sleep(_PAUSE * max(1.0, passed))
            yield Server(competitor, site.port, time.perf_counter() - began, folder)
        except Failed:
            _keep(log, competitor, model)
            raise
        finally:
            _end(process, folder)


def _keep(log: Path, competitor: Competitor, model: Model) -> None:
    """Keep the log of a server that did not start, or failed later."""
    place = model.work / "failed" / f"{model.name} {competitor.key}.log"
    place.parent.mkdir(exist_ok=True)
    shutil.copyfile(log, place)
    print(f"{competitor.name} failed; its log is {place}", flush=True)


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
            if process.environ().get(MARK) == str(folder):
                found.append(process)
    return found


def _free_ports() -> tuple[int, ...]:
    """Ports that nothing listens on; multi-model-server takes none above 32767."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < _PORTS:
            port = random.randrange(20_000, 32_000)  # noqa: S311  # not secret
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return tuple(found)

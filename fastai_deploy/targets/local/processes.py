"""Server processes that outlive the command that started them, and how to identify them.

A server is started in its own session, writes to a log file, and announces its port in a file once
it is ready. Servers of a stage are identified by their environment and by recorded facts, never by
their command line, which any ``grep`` could contain:

    environment  a variable with the server's kind, a random token and the stage's folder
    record       its process ID and start time, its session, and the port it listens on

The record is written to ``servers/<token>.json`` as soon as the server runs. A recorded token
counts only for the recorded process and its session: a copy of its environment proves nothing. A
server without a record, because the command that started it was killed or the folder was removed by
hand, is found by the variable together with the stage's folder as its working directory. Only the
parent of a process can set that variable, only the same user can read it, and processes inherit it
only from one of fdeploy's servers.
Start times are in seconds since boot, because the system clock may change.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path

import psutil

from fastai_deploy import files
from fastai_deploy.errors import FileError, ServerDied
from fastai_deploy.json_reader import Reader, read_object
from fastai_deploy.workspace import restored

MARK = "FDEPLOY_SERVER"  # the variable: kind, token and folder, separated by colons
_POLL_SECONDS = 0.02
_SAME_MOMENT = 1.0  # seconds by which two readings of a start time may differ
_LOG_LINES = 12
_LOG_BYTES = 64 << 10


@dataclass(frozen=True)
class Server:
    """The record of a server; ``started`` is in seconds since boot.

    ``port`` is 0 until the server has announced it.
    """

    kind: str
    token: str
    pid: int
    started: float
    port: int

    @classmethod
    def of(cls, kind: str, pid: int, port: int, token: str = "") -> Server:
        """The record of a running process. Raises psutil.Error if it has exited."""
        return cls(kind, token, pid, _started(psutil.Process(pid)), port)

    def encode(self) -> bytes:
        """The record as JSON."""
        return dumps(asdict(self)).encode()


@dataclass(frozen=True)
class ServerSpec:
    """How to start a server, which writes ``announce`` itself when it is ready."""

    kind: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    announce: Path
    timeout: float


class Processes:
    """The servers of one stage, whose folder is ``home``."""

    def __init__(
        self,
        home: Path,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._home = home
        self._servers = home / "servers"
        self._clock = clock
        self._sleep = sleep

    def start(self, spec: ServerSpec) -> Server:
        """Start a server and wait until it is ready.

        Raises ServerDied, with the last lines of its log, if it exits or takes too long. On any
        failure or interruption, the server is killed.
        """
        self._forget_ended()
        token = secrets.token_hex(16)
        files.remove(spec.announce)
        with files.fresh(spec.log) as log, files.opened_folder(self._home, make=True):
            process = subprocess.Popen(
                spec.command,
                env={**spec.environment, MARK: f"{spec.kind}:{token}:{self._home}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                start_new_session=True,
            )
        try:
            server = Server.of(spec.kind, process.pid, 0, token)
            self._record(server)
            server = Server(**{**asdict(server), "port": self._await(process, spec)})
            self._record(server)
        except BaseException:
            process.kill()
            process.wait()
            with contextlib.suppress(FileError):
                files.remove(self._file(token))
            raise
        # It outlives this process on purpose; without this, Popen's finalizer would warn.
        process.returncode = 0
        return server

    def running(self, *kinds: str) -> list[psutil.Process]:
        """The running servers of this stage, recorded or not, of these kinds or all."""
        return [process for kind, process in self.found() if not kinds or kind in kinds]

    def found(self) -> Iterator[tuple[str, psutil.Process]]:
        """Every running server of this stage, with its kind."""
        recorded = {server.token: server for server in self._recorded()}
        place = os.path.realpath(self._home)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                kind, token = self._mark(process)
                if not kind:
                    continue
                known = recorded.get(token)
                ours = _is_of(process, known) if known else process.cwd() == place
                if ours and not _has_ended(process):
                    yield kind, process

    def serving(self, kind: str) -> Server | None:
        """The latest recorded server of a kind that runs and holds its port."""
        servers = [each for each in self._recorded() if each.kind == kind and self.holds(each)]
        return max(servers, key=lambda server: server.started, default=None)

    def holds(self, server: Server) -> bool:
        """Whether a recorded server still runs, is the same process, and holds its port."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(server.pid)
            return self._mark(process) == (server.kind, server.token) and listens(server)
        return False

    def stop(self, processes: Sequence[psutil.Process], *, grace: float = 10.0) -> None:
        """Terminate processes, wait ``grace`` seconds for requests in flight, then kill them."""
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        stubborn = self._wait(processes, grace)
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._wait(stubborn, grace)
        self._forget_ended()

    def _wait(self, processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
        """Wait for processes to exit; return those that have not."""
        deadline = self._clock() + seconds
        while left := [process for process in processes if not _has_ended(process)]:
            if self._clock() >= deadline:
                break
            self._sleep(_POLL_SECONDS)
        return left

    def _mark(self, process: psutil.Process) -> tuple[str, str]:
        """The kind and token of a process; empty if it is not a server of this stage."""
        kind, _, rest = str(process.environ().get(MARK, "")).partition(":")
        token, _, home = rest.partition(":")
        ours = home == str(self._home) and process.uids().real in self._owners()
        return (kind, token) if ours else ("", "")

    def _owners(self) -> set[int]:
        """The users whose processes count: this one and, under ``sudo``, the folder's owner."""
        owners = {os.geteuid()}
        with contextlib.suppress(OSError):
            owners.add(os.lstat(self._home).st_uid)
        return owners

    def _recorded(self) -> Iterator[Server]:
        """The recorded servers; damaged files are ignored."""
        for name in files.names_in(self._servers):
            if name.endswith(".json"):
                with contextlib.suppress(FileError):
                    yield restored(Server, read_object(self._servers / name, ""))

    def _forget_ended(self) -> None:
        for server in self._recorded():
            if not _runs(server):
                files.remove(self._file(server.token))

    def _record(self, server: Server) -> None:
        files.write(self._file(server.token), server.encode())

    def _file(self, token: str) -> Path:
        return self._servers / f"{token}.json"

    def _await(self, process: subprocess.Popen[bytes], spec: ServerSpec) -> int:
        """The port that a server announces. Raises ServerDied."""
        deadline = self._clock() + spec.timeout
        while True:
            port = _announced_port(spec.announce, process.pid)
            if port is not None:
                return port
            if process.poll() is not None:
                why = f"exited with status {process.returncode} while starting"
            elif self._clock() >= deadline:
                why = f"was not ready within {spec.timeout:g} s"
            else:
                self._sleep(_POLL_SECONDS)
                continue
            raise ServerDied(
                f"the {spec.kind} {why}; its last log lines:\n{last_lines(spec.log)}",
                hint="fix the cause shown in the log, then run the same command again",
            )


def listens(server: Server) -> bool:
    """Whether a server's process runs, has the recorded start time, and listens on its port."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(server.pid)
        return _is_of(process, server) and any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == server.port
            for connection in process.net_connections(kind="tcp4")
        )
    return False


def read_server(path: Path, hint: str) -> tuple[Server, Reader]:
    """Read a server's record and the whole JSON object of its file. Raises FileError."""
    reader = read_object(path, hint)
    values = {name: reader.value.get(name) for name in Server.__dataclass_fields__}
    return restored(Server, Reader(values, reader.where, hint)), reader


def _is_of(process: psutil.Process, server: Server) -> bool:
    """Whether a process is the recorded server or another process of its session."""
    if process.pid != server.pid:
        return os.getsid(process.pid) == server.pid
    return abs(_started(process) - server.started) < _SAME_MOMENT


def _runs(server: Server) -> bool:
    """Whether the process of a server still runs."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(server.pid)
        return _is_of(process, server) and not _has_ended(process)
    return False


def _started(process: psutil.Process) -> float:
    """The start time of a process, in seconds since boot."""
    return round(float(process.create_time() - psutil.boot_time()), 2)


def _has_ended(process: psutil.Process) -> bool:
    """Whether a process has exited.

    In a container whose first process is not an init, nothing reaps it: it stays as a zombie.
    """
    try:
        if not process.is_running():
            return True
        return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.Error:
        return True


def _announced_port(path: Path, pid: int) -> int | None:
    """The port that process ``pid`` has announced; None if it has not yet."""
    try:
        announced = read_object(path, "")
        return announced.integer("port") if announced.integer("pid") == pid else None
    except FileError:
        return None


def last_lines(log: Path, count: int = _LOG_LINES) -> str:
    """The last lines of a log, indented, or a note that it is empty."""
    try:
        with files.reading(log) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-count:]
    except FileError:
        lines = []
    return "\n".join(f"    {line[:500]}" for line in lines) or "    (the log is empty)"

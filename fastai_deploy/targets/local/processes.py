"""Server processes that outlive the command that started them, and how they are told from others.

A server is started in a session of its own, writes to a log file, and announces its port in a file
once it is ready to answer. A process is one of a stage's servers by what it was given and what it
holds, never by a word in its command line, which anybody's ``grep`` may have, too:

    given    an environment variable with the server's kind, a random token and the stage's folder
    held     its process id with the time when it began, its session, and the port it listens on

What it holds is recorded in ``servers/<token>.json`` as soon as it runs. A token that is recorded
belongs to the recorded process and its session alone: a copy of its environment proves nothing.
The variable, with the stage's folder as the working directory, is what finds a server that nothing
recorded, because the command that started it was killed, or the folder was removed by hand: only
the parent of a process can have put it there, the system shows it to the same user alone, and
processes inherit it only from a server of ours.
Start times are in seconds since the machine started, because its clock may be set meanwhile.
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

MARK = "FDEPLOY_SERVER"  # the variable: kind, token and folder, with a colon between
_POLL_SECONDS = 0.02
_SAME_MOMENT = 1.0  # seconds by which two readings of a start time may differ
_LOG_LINES = 12
_LOG_BYTES = 64 << 10


@dataclass(frozen=True)
class Server:
    """A server as it was when it was started; ``started`` is in seconds since the machine's start.

    ``port`` is 0 until the server has announced it.
    """

    kind: str
    token: str
    pid: int
    started: float
    port: int

    @classmethod
    def of(cls, kind: str, pid: int, port: int, token: str = "") -> Server:
        """The server that a running process is. Raises psutil.Error when it has ended."""
        return cls(kind, token, pid, _started(psutil.Process(pid)), port)

    def encode(self) -> bytes:
        """The server as a JSON file."""
        return dumps(asdict(self)).encode()


@dataclass(frozen=True)
class ServerSpec:
    """How to start one server. ``announce`` is written by the server itself, when it is ready."""

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

        Raises ServerDied, with the last lines of its log, when it ends or takes too long; nothing
        of it runs on then, nor when the wait is interrupted.
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
        # It runs on without us, on purpose: Popen would warn of that when it is collected.
        process.returncode = 0
        return server

    def running(self, *kinds: str) -> list[psutil.Process]:
        """The servers of this stage that run now, recorded or not; of all kinds, or of these."""
        return [process for kind, process in self.found() if not kinds or kind in kinds]

    def found(self) -> Iterator[tuple[str, psutil.Process]]:
        """Every server of this stage that runs now, with its kind."""
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
        """The recorded server of a kind that runs and has its port; the latest of several."""
        servers = [each for each in self._recorded() if each.kind == kind and self.holds(each)]
        return max(servers, key=lambda server: server.started, default=None)

    def holds(self, server: Server) -> bool:
        """Whether a server still runs, is the one that was started here, and has its port."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(server.pid)
            return self._mark(process) == (server.kind, server.token) and listens(server)
        return False

    def stop(self, processes: Sequence[psutil.Process], *, grace: float = 10.0) -> None:
        """End processes: ask, wait ``grace`` seconds for what is in flight, then insist."""
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
        """Wait for processes to end; those that have not."""
        deadline = self._clock() + seconds
        while left := [process for process in processes if not _has_ended(process)]:
            if self._clock() >= deadline:
                break
            self._sleep(_POLL_SECONDS)
        return left

    def _mark(self, process: psutil.Process) -> tuple[str, str]:
        """Kind and token that a process was started with; empty where it is not of this stage."""
        kind, _, rest = str(process.environ().get(MARK, "")).partition(":")
        token, _, home = rest.partition(":")
        ours = home == str(self._home) and process.uids().real in self._owners()
        return (kind, token) if ours else ("", "")

    def _owners(self) -> set[int]:
        """Whose processes count: this user's, and for ``sudo`` the owner's of the folder."""
        owners = {os.geteuid()}
        with contextlib.suppress(OSError):
            owners.add(os.lstat(self._home).st_uid)
        return owners

    def _recorded(self) -> Iterator[Server]:
        """The servers that were recorded; a file that is damaged tells of none."""
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
                why = f"ended with status {process.returncode} while it was started"
            elif self._clock() >= deadline:
                why = f"was not ready within {spec.timeout:g} s"
            else:
                self._sleep(_POLL_SECONDS)
                continue
            raise ServerDied(
                f"the {spec.kind} {why}; its last log lines:\n{last_lines(spec.log)}",
                hint="mend what the log names, then run the same command again",
            )


def listens(server: Server) -> bool:
    """Whether the process of a server runs, began when it did, and listens on its port."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(server.pid)
        return _is_of(process, server) and any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == server.port
            for connection in process.net_connections(kind="tcp4")
        )
    return False


def read_server(path: Path, hint: str) -> tuple[Server, Reader]:
    """The server in a JSON file, and the object with all that the file says. Raises FileError."""
    reader = read_object(path, hint)
    values = {name: reader.value.get(name) for name in Server.__dataclass_fields__}
    return restored(Server, Reader(values, reader.where, hint)), reader


def _is_of(process: psutil.Process, server: Server) -> bool:
    """Whether a process is a recorded server, or one that it started in its session."""
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
    """When a process began, in seconds since the machine did."""
    return round(float(process.create_time() - psutil.boot_time()), 2)


def _has_ended(process: psutil.Process) -> bool:
    """Whether it does nothing any more.

    In a container whose first process is no init, nobody ever reaps it: it stays in the table.
    """
    try:
        if not process.is_running():
            return True
        return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.Error:
        return True


def _announced_port(path: Path, pid: int) -> int | None:
    """The port in an announcement of the process ``pid``; None where there is none of it yet."""
    try:
        announced = read_object(path, "")
        return announced.integer("port") if announced.integer("pid") == pid else None
    except FileError:
        return None


def last_lines(log: Path, count: int = _LOG_LINES) -> str:
    """The last lines of a log, indented; says so where there is nothing."""
    try:
        with files.reading(log) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-count:]
    except FileError:
        lines = []
    return "\n".join(f"    {line[:500]}" for line in lines) or "    (the log is empty)"

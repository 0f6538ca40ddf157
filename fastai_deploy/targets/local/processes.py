"""Server processes that outlive the command that started them.

A server is started in a session of its own, writes to a log file, and announces its port in a file
once it is ready to answer. It is found again by what it is (a process whose command line names this
stage's folder), not only by what a file remembers, so that a teardown also finds what a lost or
damaged file no longer names.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from fastai_deploy import files
from fastai_deploy.errors import ServerDied
from fastai_deploy.runtime.telemetry import SWITCHES

_POLL_SECONDS = 0.02
_LOG_LINES = 12
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True)
class Announcement:
    """What a server says of itself when it is ready."""

    pid: int
    port: int


@dataclass(frozen=True)
class ServerSpec:
    """How to start one server. ``announce`` is written by the server itself, when it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    announce: Path
    timeout: float


class Processes:
    """The servers of one stage, whose folder is ``home``: those that run one of ``modules``."""

    def __init__(
        self,
        home: Path,
        modules: Sequence[str],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._home = str(home)
        self._modules = modules
        self._clock = clock
        self._sleep = sleep

    def start(self, spec: ServerSpec) -> Announcement:
        """Start a server and wait until it is ready.

        Raises ServerDied, with the last lines of its log, when it ends or takes too long; nothing
        of it runs on then, nor when the wait is interrupted.
        """
        with files.file_errors(spec.log):
            spec.log.parent.mkdir(parents=True, exist_ok=True)
            spec.announce.unlink(missing_ok=True)
            with spec.log.open("wb") as log:
                process = subprocess.Popen(
                    spec.command,
                    env=dict(spec.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._home,
                    start_new_session=True,
                )
        try:
            announcement = self._await(process, spec)
        except BaseException:
            process.kill()
            process.wait()
            raise
        # It runs on without us, on purpose: Popen would warn of that when it is collected.
        process.returncode = 0
        return announcement

    def running(self, *modules: str) -> list[psutil.Process]:
        """The servers of this stage that run now, recorded or not; of all modules, or of these."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._is_ours(process, modules) and not _has_ended(process):
                    found.append(process)
        return found

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

    def _wait(self, processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
        """Wait for processes to end; those that have not."""
        deadline = self._clock() + seconds
        while left := [process for process in processes if not _has_ended(process)]:
            if self._clock() >= deadline:
                break
            self._sleep(_POLL_SECONDS)
        return left

    def alive(self, announcement: Announcement | None) -> psutil.Process | None:
        """The process of an announcement, if it still runs and is one of ours."""
        if announcement is None:
            return None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(announcement.pid)
            if self._is_ours(process) and not _has_ended(process):
                return process
        return None

    def _is_ours(self, process: psutil.Process, modules: Sequence[str] = ()) -> bool:
        """Whether the command line names a file of this stage: pids alone are used again."""
        command = process.cmdline()
        return bool(set(modules or self._modules).intersection(command)) and any(
            part.startswith(f"{self._home}/") for part in command
        )

    def _await(self, process: subprocess.Popen[bytes], spec: ServerSpec) -> Announcement:
        deadline = self._clock() + spec.timeout
        while True:
            announcement = read_announcement(spec.announce)
            if announcement and announcement.pid == process.pid:
                return announcement
            if process.poll() is not None:
                why = f"ended with status {process.returncode} while it was started"
            elif self._clock() >= deadline:
                why = f"was not ready within {spec.timeout:g} s"
            else:
                self._sleep(_POLL_SECONDS)
                continue
            raise ServerDied(
                f"the {spec.name} {why}; its last log lines:\n{last_lines(spec.log)}",
                hint="mend what the log names, then run the same command again",
            )


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


def clean_environment() -> dict[str, str]:
    """What a server may know of the user's environment: no credentials, no settings.

    Telemetry is switched off in it.
    """
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(SWITCHES)


def read_announcement(path: Path) -> Announcement | None:
    """The announcement in a file; None when there is none or it cannot be understood."""
    try:
        values = json.loads(path.read_bytes())
        return Announcement(int(values["pid"]), int(values["port"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def last_lines(log: Path, count: int = _LOG_LINES) -> str:
    """The last lines of a log, indented; says so where there is nothing."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        lines = []
    return "\n".join(f"    {line[:500]}" for line in lines) or "    (the log is empty)"

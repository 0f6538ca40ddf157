"""Runs work on untrusted values in a separate process with limited time and memory.

    parent -> given.json -> python -m MODULE given.json found.json -> found.json -> parent

Native code can abort its process, and a regular expression can run for years; here, either affects
only the child. The child limits itself before it reads its input. Linux enforces all limits. macOS
ignores the limit on the address space, so the parent also checks the child's memory, twenty times a
second, and kills it above the limit.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fastai_deploy.environments import clean_environment

_LOOK = 0.05  # seconds between checks of the child
# CPU time is limited; the wall clock only ends a child that waits.
_CLOCK = 6  # wall-clock seconds per second of CPU time
_STARTING = 512 << 20  # bytes of address space for Python and its libraries
_WRITTEN = 64 << 20  # bytes that the child may write
_QUIET = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "RAYON_NUM_THREADS": "1",  # each thread reserves address space
    "RUST_BACKTRACE": "0",
    "TOKENIZERS_PARALLELISM": "false",
}

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """``seconds`` of CPU time, and ``memory`` in bytes on top of what an idle Python takes."""

    seconds: int
    memory: int


class Stopped(Exception):
    """The process ended without an answer; the message, a predicate, says why."""


def ask(
    module: str, given: Values, limits: Limits, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run ``module``, which calls :func:`answer`, on JSON values and return its result.

    ``environ`` is added to the environment of the process, which has no credentials.

    Raises Stopped if it exceeds a limit or crashes.
    """
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as place:
        folder = Path(place)
        question, found = folder / "given.json", folder / "found.json"
        document = {"seconds": limits.seconds, "memory": limits.memory, "given": dict(given)}
        question.write_text(json.dumps(document), encoding="utf-8")
        command = [sys.executable, "-m", module, str(question), str(found)]
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=folder,
                env={
                    **clean_environment(),
                    **_QUIET,
                    **(environ or {}),
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
            )
            try:
                _wait(process, limits)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
        if process.returncode or not found.exists():
            raise Stopped(_reason(process.returncode, limits))
        answered: dict[str, Any] = json.loads(found.read_bytes())
        return answered


def answer(arguments: list[str], work: Callable[[Values], Values]) -> None:
    """In the child: limit this process, do the work, and write the result."""
    question, found = map(Path, arguments)
    document = json.loads(question.read_bytes())
    _limit(int(document["seconds"]), int(document["memory"]))
    text = json.dumps(dict(work(document["given"])))
    found.write_text(text, encoding="utf-8")


def _limit(seconds: int, memory: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = seconds + int(used.ru_utime + used.ru_stime) + 1
    space = memory + _STARTING
    wanted = (
        (resource.RLIMIT_CPU, limit),
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_FSIZE, _WRITTEN),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, value in wanted:
        with suppress(
            ValueError, OSError
        ):  # a lower limit is already in force, or the system does not support it
            resource.setrlimit(kind, (value, value))


def _wait(process: subprocess.Popen[bytes], limits: Limits) -> None:
    """Wait for the child; kill it if it takes too much memory or time."""
    deadline = time.monotonic() + _CLOCK * limits.seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK)
            return
        if time.monotonic() > deadline:
            process.kill()
            raise Stopped(f"takes longer than {_CLOCK * limits.seconds} s")
        with suppress(psutil.Error):
            if psutil.Process(process.pid).memory_info().rss > limits.memory + _STARTING:
                process.kill()
                raise Stopped(_too_much(limits))


def _reason(status: int, limits: Limits) -> str:
    if -status in (signal.SIGXCPU, signal.SIGKILL):
        return f"takes longer than {limits.seconds} s of processor time"
    return f"ends the process that it runs in (status {status}), or {_too_much(limits)}"


def _too_much(limits: Limits) -> str:
    return f"takes more than {limits.memory >> 20} MB of memory"

"""Run fdeploy in processes that start with the heavy libraries already imported.

An export of a tiny learner takes ten seconds of CPU time, seven of them to import torch and
transformers; a plain command spends nearly all of its time on imports. So the tests keep one
process that has imported them and does nothing else, and fork each command from it
(``multiprocessing``'s fork server). Each command is a separate process with its own folder,
environment and streams; it shares only what a fresh interpreter would import again.

macOS cannot fork safely once libraries are loaded, so commands start a fresh interpreter there.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

AVAILABLE = sys.platform == "linux"
_STREAMS = ("stdin", "stdout", "stderr")


@functools.cache
def _server() -> ForkServerContext:
    # The server takes over this path. A library too has a package called tests, and a test may have
    # put that before ours.
    sys.path.insert(0, str(Path(__file__).parents[1]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


def run(
    arguments: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    stdin: bytes,
    timeout: float,
) -> tuple[int, bytes, bytes]:
    """Run a command; return its exit status and what it wrote to stdout and stderr.

    Raises TimeoutExpired when it takes longer than ``timeout`` seconds; it is killed then.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch, name) for name in _STREAMS}
        files["stdin"].write_bytes(stdin)
        process = _server().Process(
            target=_command, args=(list(arguments), str(folder), dict(environ), scratch)
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["fdeploy", *arguments], timeout)
        status = process.exitcode
        process.close()
        return status, files["stdout"].read_bytes(), files["stderr"].read_bytes()


def _command(arguments: list[str], folder: str, environ: dict[str, str], scratch: str) -> None:
    """What the forked process does: it becomes the command, and exits with its status."""
    for number, name in enumerate(_STREAMS):
        flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT
        opened = os.open(os.path.join(scratch, name), flags, 0o600)  # noqa: PTH118
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["fdeploy", *arguments]  # errors print the command to run again
    from fastai_deploy.cli.app import run as run_fdeploy  # noqa: PLC0415 - the server has it

    status = run_fdeploy(arguments)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)

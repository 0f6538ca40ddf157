"""The real command in a terminal: a pseudo-terminal with a user who types."""

from __future__ import annotations

import errno
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass

from tests.conftest import Fdeploy

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass(frozen=True)
class Session:
    """What a command answered, and what the terminal showed, without colours."""

    status: int
    stdout: str
    shown: str


def in_terminal(run: Fdeploy, *arguments: str, typed: str = "") -> Session:
    """Run a command whose stdin and stderr are a terminal; ``typed`` waits in it to be read."""
    environ = {**os.environ, **run.environ, "COLUMNS": "200", "TERM": "xterm"}
    environ.pop("CI", None)  # where nobody is asked
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "fastai_deploy", *arguments],
        cwd=run.folder,
        env=environ,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = _until_closed(ours)
        stdout, _ = process.communicate(timeout=240)
    os.close(ours)
    return Session(process.returncode, stdout.decode(), _CONTROL.sub("", shown.decode()))


def _until_closed(terminal: int) -> bytes:
    """What is written to a terminal until nobody has it open any more."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:  # Linux says this at the end, other systems nothing
                raise
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)

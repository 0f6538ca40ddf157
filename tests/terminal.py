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


def on_screen(written: str) -> str:
    """What a terminal shows in the end: cursor movements and erased lines are carried out.

    Understands what rich writes for a live display: CR, cursor up (CUU) and erase in line (EL).
    """
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b["):
            if part.endswith("A"):
                row = max(0, row - int(part[2:-1] or 1))
            elif part == "\x1b[2K":
                lines[row] = ""
        else:
            kept = lines[row].ljust(column)
            lines[row] = kept[:column] + part + kept[column + len(part) :]
            column += len(part)
    return "\n".join(line.rstrip() for line in lines)


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

"""Finds the Pythons of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_ASK = "import sys; print('%d.%d' % sys.version_info[:2])"
_SECONDS = 20


def running() -> str:
    """The version of the running Python, such as ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_python(version: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Find an interpreter of a version; None if there is none.

    Candidates are the running one, ``python3.x`` on the path, and those of pyenv and uv. Each is
    run to get its version, because a name on the path may be a shim without a Python behind it.
    """
    for candidate in _candidates(version, environ):
        if _version_of(candidate) == version:
            return candidate
    return None


def _candidates(version: str, environ: Mapping[str, str]) -> Iterator[Path]:
    if running() == version:
        yield Path(sys.executable)
    named = shutil.which(f"python{version}", path=environ.get("PATH"))
    if named:
        yield Path(named)
    home = Path(environ.get("HOME", "/nonexistent"))
    folders = (
        Path(environ.get("PYENV_ROOT") or home / ".pyenv") / "versions",
        home / ".local/share/uv/python",
    )
    for folder in folders:
        for pattern in (f"{version}", f"{version}.*", f"cpython-{version}.*"):
            yield from (found / "bin/python3" for found in sorted(folder.glob(pattern)))


def _version_of(python: Path) -> str | None:
    try:
        done = subprocess.run(
            [str(python), "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

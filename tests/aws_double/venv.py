"""The virtual environment of the double: ``python -m tests.aws_double.venv`` makes it.

It is created once in ``.venv-double`` beside the tests, which takes about ten seconds.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venv-double"
REQUIREMENTS = ("ministack==1.5.33",)


def python() -> Path:
    """The interpreter of the environment, which is made if it is not there."""
    interpreter = FOLDER / "bin" / "python"
    stamp = FOLDER / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS)
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may come at once
        if not stamp.exists() or stamp.read_text() != wanted:
            _run(sys.executable, "-m", "venv", str(FOLDER))
            _run(str(interpreter), "-m", "pip", "install", "--quiet", *REQUIREMENTS)
            stamp.write_text(wanted)
    return interpreter


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    print(python())  # noqa: T201 - for the Makefile

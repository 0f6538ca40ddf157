"""The start-up time of the command line, compared with the bare interpreter."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.paired import compare, table

PYTHON = sys.executable
COMMANDS = {
    "python -c pass": [PYTHON, "-c", "pass"],
    "python -c 'import typer'": [PYTHON, "-c", "import typer"],
    "fdeploy --help": [PYTHON, "-m", "fastai_deploy", "--help"],
    "fdeploy config": [PYTHON, "-m", "fastai_deploy", "config"],
    "fdeploy teardown (nothing deployed)": [PYTHON, "-m", "fastai_deploy", "teardown"],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        table("start-up", compare(COMMANDS, rounds=15, cwd=Path(folder)))


if __name__ == "__main__":
    main()

"""A virtual environment for a learner: made once for its pins and its Python, then used again.

<folder>/<digest of Python and pins>/      a venv; the file ``complete`` is written last
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.environments.pythons import find_python, running
from fastai_deploy.environments.requirements import Requirements, missing_here
from fastai_deploy.errors import RuntimeUnproven
from fastai_deploy.progress import Reporter, Step, Warned

SERVING = ("uvicorn",)
_COMPLETE = "complete"
_SHOWN = 12  # lines of pip's output that an error shows


class Environments:
    """The environments below ``folder``.

    ``find`` gives the Python of a version; ``environ`` holds the user's own settings of pip;
    ``serving`` is what the model server needs beside the learner's own requirements.
    """

    def __init__(
        self,
        folder: Path,
        report: Reporter,
        find: Callable[[str], Path | None] = find_python,
        environ: Mapping[str, str] = os.environ,
        serving: tuple[str, ...] = SERVING,
    ) -> None:
        self._folder = folder
        self._report = report
        self._find = find
        self._environ = environ
        self._serving = serving

    def interpreter(self, version: str, requirements: Requirements) -> Path:
        """A Python of ``version`` with the requirements installed.

        The running one where it has them, else that of an environment, which is made when there is
        none. Raises RuntimeUnproven when the Python is not found or pip fails, and FileError.
        """
        if version == running() and not missing_here(requirements):
            return Path(sys.executable)
        folder = self._folder / self._digest(version, requirements)
        python = folder / "bin" / "python"
        if not (folder / _COMPLETE).exists():
            self._make(version, requirements, folder, python)
        return python

    def _digest(self, version: str, requirements: Requirements) -> str:
        content = "\n".join((version, requirements.text, *self._serving))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _make(self, version: str, requirements: Requirements, folder: Path, python: Path) -> None:
        base = self._find(version)
        if base is None:
            raise RuntimeUnproven(
                f"the learner needs Python {version}, which is not found on this machine",
                hint=f"install it (pyenv install {version}, or uv python install {version}), then "
                "run the same command again",
            )
        self._report(
            Step(
                f"making an environment with Python {version} and {len(requirements.pins)} pinned "
                "packages; this takes minutes, once"
            )
        )
        with files.file_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        pins = folder / "requirements.txt"
        files.write(pins, requirements.text.encode())
        self._run("the environment cannot be made", str(base), "-m", "venv", str(folder))
        self._run(
            "pip cannot install the requirements",
            *(str(python), "-m", "pip", "install", "--disable-pip-version-check"),
            *("--requirement", str(pins), *self._serving),
        )
        self._mend_torchvision(python)
        files.write(folder / _COMPLETE, b"")

    def _mend_torchvision(self, python: Path) -> None:
        """Take away a torchvision that fits another build of torch: transformers fails on it."""
        code = (
            "import importlib.util, sys\n"
            "if importlib.util.find_spec('torchvision') is None: sys.exit(0)\n"
            "try: import torchvision\n"
            "except Exception: sys.exit(9)\n"
        )
        done = subprocess.run(
            [str(python), "-c", code], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            self._report(
                Warned("torchvision does not fit torch and is left out of the environment")
            )
            self._run(
                "torchvision cannot be removed",
                *(str(python), "-m", "pip", "uninstall", "--yes", "torchvision"),
            )

    def _run(self, failed: str, *command: str) -> None:
        """Run one step; the user's own settings of pip hold."""
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in self._environ.items() if name != "PYTHONPATH"},
        )
        if done.returncode != 0:
            raise RuntimeUnproven(
                f"{failed}; the last lines:\n{_last(done.stderr or done.stdout)}",
                hint="state other versions with --requirements, or another Python with --python",
            )


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()][-_SHOWN:]
    return "\n".join(f"    {line[:300]}" for line in lines)

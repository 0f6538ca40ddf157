"""Virtual environments for learners, created once per set of pins and Python, then reused."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.bundle.manifest import LOCK
from fastai_deploy.environments.requirements import (
    LearnerLock,
    Requirements,
    installed_versions,
    lock_requirements,
    missing_here,
    read_lock,
    tampered,
    this_platform,
)
from fastai_deploy.errors import RuntimeUnproven
from fastai_deploy.interpreters import find_python, running
from fastai_deploy.packaging.lock_files import PipFailed, render, shipped_lock
from fastai_deploy.progress import Reporter, Step, Warned
from fastai_deploy.runtime.telemetry import SWITCHES

SERVING = ("httptools", "uvicorn")
_COMPLETE = "complete"
_REPORTING_PIP = 23  # the first major version in which every pip has --report
_PIP_FAILED = "pip cannot install the requirements"
_SHOWN = 12  # lines of pip's output shown in an error


class Environments:
    """The environments in ``folder``.

    ``find`` returns the Python of a version; ``environ`` holds the user's pip settings; ``serving``
    lists what the model server needs in addition to the learner's requirements.
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

    def interpreter(
        self, version: str, requirements: Requirements, lock: Path | None = None
    ) -> Path:
        """A Python of ``version`` with the requirements installed.

        This is the running one if it has them, else that of an environment, which is created if
        needed: from ``lock`` if it is for this Python and platform, else from a new lock. Raises
        RuntimeUnproven if the Python is not found or pip fails, HashMismatch if a package differs
        from the lock, and FileError.
        """
        if self._runs_here(version, requirements):
            return Path(sys.executable)
        folder = self._folder / self._digest(version, requirements)
        python = folder / "bin" / "python"
        kept = read_lock(lock) if lock else None
        if kept and (kept.python, kept.platform) != (version, this_platform()):
            kept = None
        complete = files.size_of(folder / _COMPLETE) is not None
        if not complete or (kept and kept != read_lock(folder / LOCK)):
            self._make(version, requirements, folder, python, kept)
        return python

    def lock(self, version: str, requirements: Requirements) -> LearnerLock | None:
        """The lock of the environment; None if the running Python is used."""
        if self._runs_here(version, requirements):
            return None
        return read_lock(self._folder / self._digest(version, requirements) / LOCK)

    def lock_here(self, version: str, requirements: Requirements) -> LearnerLock:
        """Lock the requirements as installed in the running Python.

        Raises RuntimeUnproven if pip cannot resolve them.
        """
        with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
            pins = Path(folder, "requirements.txt")
            pins.write_text(requirements.text, encoding="utf-8")
            return self._locked(Path(sys.executable), version, pins, installed_versions())

    @staticmethod
    def _runs_here(version: str, requirements: Requirements) -> bool:
        return version == running() and not missing_here(requirements)

    def _digest(self, version: str, requirements: Requirements) -> str:
        content = "\n".join((version, requirements.text, *self._serving))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _make(
        self,
        version: str,
        requirements: Requirements,
        folder: Path,
        python: Path,
        kept: LearnerLock | None,
    ) -> None:
        base = self._find(version)
        if base is None:
            raise RuntimeUnproven(
                f"the learner needs Python {version}, which was not found on this machine",
                hint=f"install it (pyenv install {version}, or uv python install {version}), then "
                "run the same command again",
            )
        self._report(
            Step(
                f"creating an environment with Python {version} and {len(requirements.pins)} "
                "pinned packages; this takes a few minutes the first time"
            )
        )
        files.remove_tree(folder)
        files.make_folder(folder)
        pins = folder / "requirements.txt"
        files.write(pins, requirements.text.encode())
        self._run("the environment cannot be created", str(base), "-m", "venv", str(folder))
        self._renew_pip(python, folder)
        lock = kept or self._locked(python, version, pins, "")
        files.write(folder / LOCK, lock.text.encode())
        serving = self._locked_serving(python, version, lock, folder)
        self._install(python, folder / LOCK, *([serving] if serving else []))
        self._mend_torchvision(python)
        files.write(folder / _COMPLETE, b"")

    def _locked(
        self, python: Path, version: str, requirements: Path, constraints: str
    ) -> LearnerLock:
        try:
            return lock_requirements(
                python, version, requirements, constraints, run=self._run_command
            )
        except PipFailed as failed:
            raise _failed(_PIP_FAILED, failed.said) from None

    def _locked_serving(
        self, python: Path, version: str, lock: LearnerLock, folder: Path
    ) -> Path | None:
        """Lock what the model server needs in addition to the learner's packages."""
        if not self._serving:
            return None
        wanted = folder / "serving.txt"
        files.write(wanted, "\n".join(self._serving).encode())
        found = self._locked(python, version, wanted, lock.versions)
        own = {pin.name for pin in lock.pins}
        path = folder / "serving.lock"
        files.write(path, render(pin for pin in found.pins if pin.name not in own).encode())
        return path

    def _renew_pip(self, python: Path, folder: Path) -> None:
        """Upgrade a pip that is too old for --report (added in 22.2)."""
        _, said = self._run_command([str(python), "-m", "pip", "--version"])
        found = re.match(r"pip (\d+)", said)
        if found and int(found[1]) < _REPORTING_PIP:
            path = folder / "pip.lock"
            files.write(path, render(p for p in shipped_lock() if p.name == "pip").encode())
            self._install(python, path)

    def _install(self, python: Path, *locks: Path) -> None:
        """Install exactly what the locks list. Raises HashMismatch or RuntimeUnproven."""
        status, said = self._run_command(
            [
                *(str(python), "-m", "pip", "install", "--disable-pip-version-check"),
                "--require-hashes",
                *(part for lock in locks for part in ("--requirement", str(lock))),
            ]
        )
        failed = PipFailed(said)
        if failed.tampered:
            raise tampered(failed)
        if status != 0:
            raise _failed(_PIP_FAILED, said)

    def _mend_torchvision(self, python: Path) -> None:
        """Remove a torchvision built for another torch, on which transformers fails."""
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
                Warned("torchvision does not match torch and was removed from the environment")
            )
            self._run(
                "torchvision cannot be removed",
                *(str(python), "-m", "pip", "uninstall", "--yes", "torchvision"),
            )

    def _run(self, failed: str, *command: str) -> None:
        """Run one step. Raises RuntimeUnproven."""
        status, said = self._run_command(command)
        if status != 0:
            raise _failed(failed, said)

    def _run_command(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command with the user's pip settings."""
        environ = {name: value for name, value in self._environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**environ, **SWITCHES},
        )
        return done.returncode, done.stdout + done.stderr


def _failed(what: str, said: str) -> RuntimeUnproven:
    lines = [line for line in said.splitlines() if line.strip()][-_SHOWN:]
    shown = "\n".join(f"    {line[:300]}" for line in lines)
    return RuntimeUnproven(
        f"{what}; the last lines:\n{shown}",
        hint="set other versions with --requirements, or another Python with --python",
    )

"""A local stage that can be restored to its state after ``up``, and the command to run in it.

The command runs in this process, so that a hundred runs take seconds. Its effects on files and
servers are real.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy.cli.app import run
from tests.conftest import result_of
from tests.packaged import SMALL_BURST, write_model


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    command: str
    status: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The result in the envelope of --json."""
        return result_of(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error event, which is the last line of stderr."""
        event: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        return event


@dataclass(frozen=True)
class Stage:
    """A project with two models; the first was up, and ``kept`` is a copy of that workspace."""

    folder: Path
    kept: Path

    @property
    def home(self) -> Path:
        return self.folder / ".fdeploy"

    @property
    def dev(self) -> Path:
        return self.home / "dev"

    @property
    def local(self) -> Path:
        return self.dev / "local"

    def __call__(self, *arguments: str) -> Ran:
        """Run a command with --json."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run([*arguments, "--json", "--config", str(self.folder / "fdeploy.toml")])
        return Ran(" ".join(arguments), status, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str) -> Ran:
        ran = self(*arguments)
        assert ran.status == 0, ran.err
        return ran

    def restore(self) -> None:
        """Restore the workspace to its state after ``up``; the servers have stopped since."""
        self.clear()
        shutil.copytree(self.kept, self.home)

    def clear(self) -> None:
        """Remove the workspace, in whatever state a test left it."""
        if self.home.is_symlink():
            self.home.unlink()
        shutil.rmtree(self.home, ignore_errors=True)


@contextlib.contextmanager
def stage_that_was_up(folder: Path) -> Iterator[Stage]:
    """Two tiny bundles, ``first`` and ``second``; the first is deployed with an API."""
    project = folder / "project"
    project.mkdir()
    for name, layers in (("first", 2), ("second", 3)):
        write_model(project, name, layers=layers)
    (project / "fdeploy.toml").write_text(f'[project]\ntarget = "local"\n{SMALL_BURST}')
    stage = Stage(project, folder / "kept")
    try:
        stage.ok("up", str(project / "first"))
        shutil.copytree(stage.home, stage.kept)
        stage.ok("teardown")
        yield stage
    finally:
        stage.clear()
        stage.ok("teardown")

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Fdeploy
from tests.flow.learners import bring


@dataclass(frozen=True)
class Exports:
    """Learners exported by the real command, each once per run for all workers of pytest."""

    folder: Path

    def bring(self, name: str, folder: Path) -> None:
        """Copy a learner, its goldens and the result of its export into a project folder."""
        made = self.folder / name.replace("/", "-")
        record = Path(".fdeploy", "dev", "export.json")
        with _locked(made.with_suffix(".lock")):
            if not (made / record).exists():
                made.mkdir(parents=True, exist_ok=True)
                learner, golden = bring(name, made)
                Fdeploy(made).ok("export", learner, "--golden", golden)
        shutil.rmtree(folder / ".fdeploy" / "dev" / "bundle", ignore_errors=True)
        shutil.copytree(made, folder, dirs_exist_ok=True)
        text = (made / record).read_text(encoding="utf-8")
        (folder / record).write_text(text.replace(str(made), str(folder)), encoding="utf-8")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on the file, which the system releases when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The exports of this run, in the folder that all workers of pytest-xdist share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return Exports(folder / "exports")

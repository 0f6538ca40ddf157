from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import Fdeploy

SOURCE = Path(__file__).parent / "bag_of_words.py"


@pytest.fixture(scope="session")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The learner, pickled by a process whose ``__main__`` defines its classes."""
    path = tmp_path_factory.mktemp("learner") / "words.pkl"
    subprocess.run([sys.executable, str(SOURCE), str(path)], check=True)
    return path


@pytest.fixture
def odd(project: Fdeploy) -> Fdeploy:
    """A project with a learner that holds objects of classes unknown to fdeploy."""
    path = project.folder / "words.pkl"
    subprocess.run([sys.executable, str(SOURCE), str(path), "odd"], check=True)
    return project


@pytest.fixture
def project(fdeploy: Fdeploy, pickled: Path) -> Fdeploy:
    """A project folder with the learner, its definitions and its requirements."""
    shutil.copyfile(pickled, fdeploy.folder / "words.pkl")
    shutil.copyfile(SOURCE, fdeploy.folder / "model_def.py")
    torch = version("torch").partition("+")[0]
    (fdeploy.folder / "requirements.txt").write_text(f"torch=={torch}\n", encoding="utf-8")
    return fdeploy

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Fdeploy
from tests.pretrained.folders import save


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small DistilBERT, which no test changes."""
    return save("distilbert", tmp_path_factory.mktemp("pretrained") / "small")


@pytest.fixture
def model(small: Path, fdeploy: Fdeploy) -> Path:
    """A copy of it in the project folder, to spoil."""
    return Path(shutil.copytree(small, fdeploy.folder / "my-model"))

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws.world import World
from tests.aws_double.process import Double, running_double
from tests.packaged import Model, write_model


@pytest.fixture(scope="session")
def double() -> Iterator[Double]:
    with running_double() as running:
        yield running


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("models"), "first")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("models"), "second", layers=3)


@pytest.fixture
def world(double: Double, tmp_path: Path) -> World:
    return World(double, tmp_path)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws.stage import Open, Stage, fresh_account
from tests.aws.world import World
from tests.aws_double.process import Double, running_double
from tests.packaged import Model, bring, write_model


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


@pytest.fixture(scope="module")
def opened(double: Double, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Makes project folders for the real commands, in a fresh account or in a given one."""

    def make(model: Model, account: str = "") -> Stage:
        folder = bring(model, tmp_path_factory.mktemp("project"))
        return Stage(double, folder, account or fresh_account())

    return make

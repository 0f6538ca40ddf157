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
def world(double: Double, tmp_path: Path) -> Iterator[World]:
    """An account of its own, whose model servers end with the test."""
    made = World(double, tmp_path)
    yield made
    double.end(made.account)


@pytest.fixture(scope="module")
def opened(double: Double, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Makes project folders for the real commands, in a fresh account or in a given one."""
    accounts: set[str] = set()

    def make(model: Model, account: str = "") -> Stage:
        folder = bring(model, tmp_path_factory.mktemp("project"))
        stage = Stage(double, folder, account or fresh_account())
        accounts.add(stage.account)
        return stage

    yield make
    for account in accounts:
        double.end(account)

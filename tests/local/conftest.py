from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local.stage import Stage, stage_that_was_up


@pytest.fixture(scope="module")
def was_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_that_was_up(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def stage(was_up: Stage) -> Iterator[Stage]:
    """The stage after ``up``, with its servers stopped; stops what the test starts."""
    was_up.restore()
    yield was_up
    was_up.clear()
    was_up.ok("teardown")

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastai_deploy.runtime.predictor import SharedCores

PATIENCE = 30.0  # seconds before a hanging test fails


class Session:
    """Answers with its name, after it has run the test's callback."""

    def __init__(self, name: str, act: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self.act = act

    def run(self, _outputs: object, _feed: object) -> str:
        self.act()
        return self.name


def test_a_single_run_uses_all_cores() -> None:
    shared = SharedCores(Session("whole"), Session("part"))
    assert [shared.run(None, {}) for _ in range(3)] == ["whole"] * 3


def test_a_run_beside_another_has_a_part() -> None:
    both = threading.Barrier(2)
    shared = SharedCores(
        Session("whole", lambda: both.wait(PATIENCE)), Session("part", lambda: both.wait(PATIENCE))
    )
    with ThreadPoolExecutor(2) as callers:
        runs = [callers.submit(shared.run, None, {}) for _ in range(2)]
        assert sorted(run.result() for run in runs) == ["part", "whole"]


def test_a_run_that_fails_is_over() -> None:
    def fail() -> None:
        raise ValueError("bad")

    whole = Session("whole", fail)
    shared = SharedCores(whole, Session("part"))
    with pytest.raises(ValueError, match="bad"):
        shared.run(None, {})
    whole.act = lambda: None
    assert shared.run(None, {}) == "whole"


def test_one_session_is_enough() -> None:
    assert SharedCores(Session("whole")).run(None, {}) == "whole"

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastai_deploy.runtime.predictor import SharedCores

PATIENCE = 30.0  # seconds before a hanging test fails
TRIES = 6  # runs until both sessions have been timed


class Session:
    """Answers with its name, after it has run the test's callback."""

    def __init__(self, name: str, act: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self.act = act

    def run(self, _outputs: object, _feed: object) -> str:
        self.act()
        return self.name


class Timed:
    """Two sessions that take so many seconds of a clock for a run of so many tokens."""

    def __init__(self, whole: Mapping[int, float], part: Mapping[int, float]) -> None:
        self.now = 0.0
        self.tokens = 0
        self.whole, self.part = whole, part
        self.shared = SharedCores(
            Session("whole", lambda: self.take(self.whole)),
            Session("part", lambda: self.take(self.part)),
            clock=lambda: self.now,
        )

    def take(self, seconds: Mapping[int, float]) -> None:
        self.now += seconds[self.tokens]

    def run(self, tokens: int) -> str:
        self.tokens = tokens
        answer: str = self.shared.run(None, {"input_ids": np.ones((1, tokens))})
        return answer


def test_a_single_run_uses_all_cores_where_that_is_faster() -> None:
    sessions = Timed(whole={12: 3.5, 400: 60}, part={12: 3.0, 400: 110})
    for tokens, best in ((12, "part"), (400, "whole")):
        tried = [sessions.run(tokens) for _ in range(TRIES)]
        assert set(tried) == {"whole", "part"}
        assert {sessions.run(tokens) for _ in range(20)} == {best}


def test_all_cores_are_not_worth_a_small_gain() -> None:
    sessions = Timed(whole={12: 0.9}, part={12: 1.0})
    for _ in range(TRIES):
        sessions.run(12)
    assert {sessions.run(12) for _ in range(20)} == {"part"}


def test_sessions_are_timed_anew_from_time_to_time() -> None:
    sessions = Timed(whole={12: 0.5}, part={12: 1.0})
    for _ in range(TRIES):
        sessions.run(12)
    assert sessions.run(12) == "whole"
    sessions.whole = {12: 2.0}
    for _ in range(600):
        sessions.run(12)
    assert sessions.run(12) == "part"


def test_a_run_beside_another_has_a_part() -> None:
    both = threading.Barrier(2)
    shared = SharedCores(
        Session("whole", lambda: both.wait(PATIENCE)), Session("part", lambda: both.wait(PATIENCE))
    )
    with ThreadPoolExecutor(2) as callers:
        runs = [callers.submit(shared.run, None, {}) for _ in range(2)]
        assert sorted(run.result() for run in runs) == ["part", "whole"]


def test_the_time_of_a_run_that_is_not_alone_does_not_count() -> None:
    now = 0.0
    runs: list[str] = []
    shared: SharedCores

    def whole() -> None:
        nonlocal now
        now += 1.0
        if len(runs) < TRIES:
            with ThreadPoolExecutor(1) as other:
                assert other.submit(shared.run, None, {}).result(PATIENCE) == "part"

    shared = SharedCores(Session("whole", whole), Session("part"), clock=lambda: now)
    while len(runs) < TRIES:
        runs.append(shared.run(None, {}))
    assert set(runs) == {"whole"}  # it has not been timed yet


def test_a_run_that_fails_is_over_and_its_time_does_not_count() -> None:
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

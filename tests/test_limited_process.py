"""Work in a separate process: exceeding a limit ends only that process."""

from __future__ import annotations

import os
from typing import Any

import pytest

from fastai_deploy.environments.limited_process import Limits, Stopped, ask

CHILD = "tests.limited_child"
LIMITS = Limits(seconds=20, memory=64 << 20)

BEYOND: dict[str, tuple[dict[str, Any], Limits, str]] = {
    "time": ({"do": "hang"}, Limits(seconds=1, memory=64 << 20), "takes longer than"),
    "memory": ({"do": "eat", "bytes": 4 << 30}, LIMITS, "more than 64 MB"),
    "a crash": ({"do": "crash"}, LIMITS, "ends the process"),
    "an exception": ({"do": "fail"}, LIMITS, "ends the process"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_exceeded_limits_are_reported(name: str) -> None:
    given, limits, reason = BEYOND[name]
    with pytest.raises(Stopped, match=reason):
        ask(CHILD, given, limits)


def test_what_stays_within_is_answered_without_the_users_environment() -> None:
    found = ask(CHILD, {"do": "echo", "echo": ["caf\u00e9", 1]}, LIMITS)
    assert found["echo"] == ["caf\u00e9", 1]
    assert "PYTEST_CURRENT_TEST" in os.environ
    assert "PYTEST_CURRENT_TEST" not in found["environment"]

"""When it starts, a server asks the goldens, of every session, for as long as they are worth it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.runtime.bundle import Bundle, Golden, ModelError, open_bundle
from fastai_deploy.runtime.contract import Outcome, Prediction
from fastai_deploy.runtime.golden_check import check_goldens
from fastai_deploy.runtime.request_queue import Limits
from tests.runtime.bundles import write_bundle

RIGHT = {"negative": 0.2, "neutral": 0.3, "positive": 0.5}
WRONG = {"negative": 0.5, "neutral": 0.3, "positive": 0.2}
GOLDENS = [Golden(f"text {number}", RIGHT) for number in range(40)]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "bundle").folder)


class Session:
    """Answers every text alike, and takes a second for each request."""

    limits = Limits()

    def __init__(self, bundle: Bundle, clock: Clock, answer: dict[str, float] = RIGHT) -> None:
        self.bundle = bundle
        self.asked: list[str] = []
        self._clock = clock
        self._answer = answer

    def predict(self, texts: Sequence[str]) -> list[Outcome]:
        self.asked += texts
        self._clock.now += 1
        return [Prediction(tuple(self._answer.items()), truncated=False) for _ in texts]

    encode: Any = predict
    run: Any = predict
    predict_encoded: Any = predict


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_sessions_share_the_goldens(bundle: Bundle) -> None:
    clock = Clock()
    first, second = Session(bundle, clock), Session(bundle, clock)
    assert check_goldens([first, second], GOLDENS, clock=clock).goldens == 40
    assert sorted(first.asked + second.asked) == sorted(each.text for each in GOLDENS)
    assert second.asked == [f"text {number}" for number in range(16, 32)]


@pytest.mark.parametrize("wrong", [0, 1])
def test_an_answer_of_either_session_is_checked(bundle: Bundle, wrong: int) -> None:
    clock = Clock()
    answers = [RIGHT, RIGHT]
    answers[wrong] = WRONG
    sessions = [Session(bundle, clock, answer) for answer in answers]
    with pytest.raises(ModelError, match="1 of 2 goldens are not reproduced"):
        check_goldens(sessions, GOLDENS[:2], clock=clock)


def test_it_ends_when_the_time_is_up(bundle: Bundle) -> None:
    clock = Clock()
    session = Session(bundle, clock)
    assert check_goldens([session], GOLDENS, patience=2, clock=clock).goldens == 32
    assert session.asked == [each.text for each in GOLDENS[:32]]


def test_without_time_each_session_is_asked_once(bundle: Bundle) -> None:
    clock = Clock()
    first, second = Session(bundle, clock), Session(bundle, clock)
    assert check_goldens([first, second], GOLDENS, patience=0, clock=clock).goldens == 32
    assert len(first.asked) == len(second.asked) == 16


def test_one_golden_is_enough_for_two_sessions(bundle: Bundle) -> None:
    clock = Clock()
    sessions = [Session(bundle, clock), Session(bundle, clock)]
    assert check_goldens(sessions, GOLDENS[:1], clock=clock).goldens == 1

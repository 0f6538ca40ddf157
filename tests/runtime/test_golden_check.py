"""A server asks the goldens for as long as they are worth it, and checks every answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.runtime.bundle import Bundle, Golden, ModelError, open_bundle
from fastai_deploy.runtime.contract import Outcome, Prediction
from fastai_deploy.runtime.golden_check import ask_goldens, check_answers
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


def test_all_are_asked_in_order(bundle: Bundle) -> None:
    session = Session(bundle, Clock())
    answers = ask_goldens(session, GOLDENS)
    assert [each.golden for each in answers] == GOLDENS
    assert session.asked == [each.text for each in GOLDENS]
    assert check_answers(bundle, answers).goldens == 40


def test_it_ends_when_the_time_is_up(bundle: Bundle) -> None:
    clock = Clock()
    session = Session(bundle, clock)
    assert len(ask_goldens(session, GOLDENS, patience=2, clock=clock)) == 32
    assert session.asked == [each.text for each in GOLDENS[:32]]


def test_without_time_the_first_ones_are_asked(bundle: Bundle) -> None:
    clock = Clock()
    assert len(ask_goldens(Session(bundle, clock), GOLDENS, patience=0, clock=clock)) == 16


def test_none_have_no_answers(bundle: Bundle) -> None:
    assert ask_goldens(Session(bundle, Clock()), []) == []


@pytest.mark.parametrize("wrong", [0, 1])
def test_an_answer_of_any_session_is_checked(bundle: Bundle, wrong: int) -> None:
    given = [RIGHT, RIGHT]
    given[wrong] = WRONG
    answers = [
        *ask_goldens(Session(bundle, Clock(), given[0]), GOLDENS[:1]),
        *ask_goldens(Session(bundle, Clock(), given[1]), GOLDENS[1:2]),
    ]
    with pytest.raises(ModelError, match="1 of 2 goldens are not reproduced"):
        check_answers(bundle, answers)

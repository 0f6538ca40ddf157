from __future__ import annotations

import random

import pytest

from fastai_deploy.runtime.request_queue import Capacity, Job, Limits, Overloaded, RequestQueue

SPEED = 10.0  # tokens a second


def line(*, max_wait: float = 1000.0, max_backlog: float = 1000.0) -> RequestQueue:
    return RequestQueue(Limits(8), Capacity(SPEED, max_wait, max_backlog))


def put(waiting: RequestQueue, *lengths: int, now: float) -> Job:
    job = Job(len(lengths), lambda _results: None)
    waiting.add(["x" * length for length in lengths], job, now)
    return job


def test_taken_items_free_their_space() -> None:
    waiting = line(max_backlog=1.2)
    put(waiting, 8, now=0.0)
    put(waiting, 4, now=0.0)
    with pytest.raises(Overloaded):
        waiting.admit(1)
    assert len(waiting.take_group(1.0)) == 1
    waiting.admit(1)


def test_cancelled_items_free_their_space() -> None:
    waiting = line(max_backlog=1.2)
    put(waiting, 8, now=0.0)
    put(waiting, 4, now=0.0).cancel()
    with pytest.raises(Overloaded):
        waiting.admit(1)
    waiting.drop_cancelled(1.0)
    waiting.admit(4)
    with pytest.raises(Overloaded):
        waiting.admit(5)


def test_the_tail_of_a_large_request_is_due_when_its_turn_comes() -> None:
    waiting = line(max_wait=1.5)
    put(waiting, 8, 8, 8, 8, now=0.0)  # due at 0.0, 0.8, 1.6 and 2.4
    waiting.drop_cancelled(0.9)
    with pytest.raises(Overloaded):
        waiting.admit(1)  # 16 tokens are due
    waiting.drop_cancelled(0.7)
    waiting.admit(1)  # 8 are


def test_the_counters_always_match_the_queue() -> None:
    chance = random.Random(1)  # noqa: S311
    waiting, jobs = line(), []
    for step in range(300):
        now = step * 0.1
        if chance.random() < 0.7:
            jobs.append(put(waiting, *(chance.randint(1, 8) for _ in range(3)), now=now))
        if chance.random() < 0.2 and jobs:
            chance.choice(jobs).cancel()
        if waiting and chance.random() < 0.5:
            waiting.take_group(now)
        waiting.drop_cancelled(now)
        left = waiting._line  # noqa: SLF001  # compares the counters with the queue itself
        assert waiting._backlog == sum(len(each.item) for each in left)  # noqa: SLF001
        due = sum(len(each.item) for each in left if each.urgency <= now)
        assert waiting._due == due  # noqa: SLF001


def test_who_takes_leaves_the_others_their_share() -> None:
    waiting = line()
    put(waiting, 1, 1, 1, 1, 1, now=0.0)
    taken = [len(waiting.take_group(1.0, takers)) for takers in (2, 1)]
    assert taken == [3, 2]
    put(waiting, 1, now=1.0)
    assert len(waiting.take_group(1.0, 2)) == 1

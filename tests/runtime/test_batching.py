from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from fastai_deploy.runtime.batching import Batcher, Closed
from fastai_deploy.runtime.request_queue import Capacity, Job, Limits, Overloaded
from tests.runtime.server_process import until

Results = list[str | Exception]
PATIENCE = 30.0  # seconds before a hanging test fails


class GatedModel:
    """Answers in capitals, one run each time the test allows it; an item has a token per letter."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.runs.append(list(items))
        self.started.release()
        assert self.gate.acquire(timeout=PATIENCE)
        return [item.upper() for item in items]

    def wait_for_run(self) -> None:
        assert self.started.acquire(timeout=PATIENCE)

    def finish(self, runs: int = 1) -> None:
        for _ in range(runs):
            self.gate.release()


class Clock:
    """A clock that stands still; ``asked`` is set when a thread of the batcher reads it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = threading.Event()

    def __call__(self) -> float:
        if threading.current_thread().name.startswith("model-"):
            self.asked.set()
        return self.now


@pytest.fixture
def model() -> GatedModel:
    return GatedModel()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(model: GatedModel, clock: Clock) -> Iterator[Callable[..., Batcher[str, str]]]:
    """Starts batchers with the gated model; opens the gate and closes them afterwards."""
    batchers: list[Batcher[str, str]] = []

    def batcher(
        limits: Limits = Limits(100),  # noqa: B008  # frozen
        capacity: Capacity = Capacity(1e9),  # noqa: B008
        workers: int = 1,
    ) -> Batcher[str, str]:
        batchers.append(Batcher(model, limits, capacity, workers=workers, clock=clock))
        return batchers[-1]

    yield batcher
    model.finish(1_000)
    for each in batchers:
        each.close()


def submit(batcher: Batcher[str, str], *items: str) -> Future[Results]:
    future: Future[Results] = Future()
    batcher.submit(items, future.set_result)
    return future


def result(future: Future[Results]) -> Results:
    return future.result(timeout=PATIENCE)


Start = Callable[..., Batcher[str, str]]


def test_a_lone_request_is_run_at_once(model: GatedModel, start: Start) -> None:
    batcher = start()
    for item in ("a", "b", "c"):
        future = submit(batcher, item)
        model.wait_for_run()
        model.finish()
        assert result(future) == [item.upper()]
    assert model.runs == [["a"], ["b"], ["c"]]


def test_requests_that_wait_together_run_together(model: GatedModel, start: Start) -> None:
    batcher = start()
    futures = [submit(batcher, "a")]
    model.wait_for_run()
    futures += [submit(batcher, item) for item in "bcd"]
    assert batcher.statistics().queued == 3
    model.finish(2)
    assert [result(future) for future in futures] == [["A"], ["B"], ["C"], ["D"]]
    assert model.runs == [["a"], ["b", "c", "d"]]
    done = batcher.statistics()
    assert (done.runs, done.items, done.refused, done.queued) == (2, 4, 0, 0)


def test_like_lengths_go_together_the_oldest_first(model: GatedModel, start: Start) -> None:
    batcher = start()
    submit(batcher, "a")
    model.wait_for_run()
    long, other_long = "l" * 45, "m" * 44
    futures = [submit(batcher, item) for item in (long, "b", other_long, "c")]
    model.finish(3)
    assert [result(future) for future in futures] == [[long.upper()], ["B"], ["M" * 44], ["C"]]
    assert [sorted(run) for run in model.runs] == [["a"], [long, other_long], ["b", "c"]]


def test_equal_length_means_equal(model: GatedModel, start: Start) -> None:
    batcher = start(limits=Limits(100, equal_length=True))
    submit(batcher, "a")
    model.wait_for_run()
    futures = [submit(batcher, item) for item in ("bb", "c", "dd")]
    model.finish(3)
    assert [result(future) for future in futures] == [["BB"], ["C"], ["DD"]]
    assert [sorted(run) for run in model.runs] == [["a"], ["bb", "dd"], ["c"]]


def test_a_run_is_never_larger_than_the_limit(model: GatedModel, start: Start) -> None:
    batcher = start(limits=Limits(4))
    model.finish(10)
    assert result(submit(batcher, *"abcdefghij")) == list("ABCDEFGHIJ")
    assert max(len(run) for run in model.runs) <= 4
    assert result(submit(batcher, "longer than four")) == ["LONGER THAN FOUR"]


def test_results_come_in_the_order_of_the_request(model: GatedModel, start: Start) -> None:
    batcher = start()
    items = ["x" * 60, "a", "y" * 61, "b"]
    model.finish(4)
    assert result(submit(batcher, *items)) == [item.upper() for item in items]


def test_a_large_request_does_not_keep_a_small_one_waiting(
    model: GatedModel, clock: Clock, start: Start
) -> None:
    batcher = start(limits=Limits(1), capacity=Capacity(tokens_per_second=1.0))
    large = submit(batcher, *"abcdef")
    model.wait_for_run()
    clock.now = 1.5
    small = submit(batcher, "z")
    model.finish(3)
    assert result(small) == ["Z"]
    model.finish(4)
    assert result(large) == list("ABCDEF")
    assert model.runs[:4] == [["a"], ["b"], ["z"], ["c"]]


def test_after_several_answers_as_many_requests_are_waited_for(
    model: GatedModel, clock: Clock, start: Start
) -> None:
    batcher = start()
    submit(batcher, "a")
    model.wait_for_run()
    pair = [submit(batcher, "b"), submit(batcher, "c")]
    model.finish()
    model.wait_for_run()
    clock.now += 1.0  # the run of two takes this long
    model.finish()
    assert [result(future) for future in pair] == [["B"], ["C"]]
    clock.asked.clear()
    first = submit(batcher, "d")
    assert clock.asked.wait(PATIENCE)  # the worker has seen it, and waits for another
    second = submit(batcher, "e")
    model.wait_for_run()
    model.finish()
    assert [result(first), result(second)] == [["D"], ["E"]]
    assert model.runs == [["a"], ["b", "c"], ["d", "e"]]


def test_company_that_does_not_come_is_not_waited_for_long(model: GatedModel) -> None:
    with Batcher(model, Limits(100), Capacity(1e9)) as batcher:
        submit(batcher, "a")
        model.wait_for_run()
        pair = [submit(batcher, "b"), submit(batcher, "c")]
        model.finish(3)
        assert [result(future) for future in pair] == [["B"], ["C"]]
        assert result(submit(batcher, "d")) == ["D"]
    assert model.runs == [["a"], ["b", "c"], ["d"]]


def test_a_full_queue_refuses_and_recovers(model: GatedModel, start: Start) -> None:
    batcher = start(capacity=Capacity(tokens_per_second=2.0, max_wait=5.0))
    futures = [submit(batcher, "a")]
    model.wait_for_run()
    futures += [submit(batcher, item) for item in "bcdefghijkl"]  # 11 tokens: 5.5 s
    with pytest.raises(Overloaded) as caught:
        submit(batcher, "m")
    assert caught.value.retry_after == 6
    with pytest.raises(Overloaded):
        batcher.refuse_if_full()
    assert batcher.statistics().refused == 2
    model.finish(1)
    assert result(futures[0]) == ["A"]
    model.wait_for_run()
    batcher.refuse_if_full()
    later = submit(batcher, "m")
    model.finish(2)
    assert [result(future) for future in futures[1:]] == [[item] for item in "BCDEFGHIJKL"]
    assert result(later) == ["M"]


def test_work_that_cannot_be_done_in_time_is_refused(model: GatedModel, start: Start) -> None:
    batcher = start(capacity=Capacity(tokens_per_second=1.0, max_backlog=10.0))
    submit(batcher, *"ab")  # an idle model accepts any request
    model.wait_for_run()
    waiting = submit(batcher, *"cdefgh")
    with pytest.raises(Overloaded) as caught:
        submit(batcher, *"ijklm")
    assert caught.value.retry_after == 6
    model.finish(10)
    assert result(waiting) == list("CDEFGH")


def test_one_request_of_any_size_is_taken_by_an_idle_model(model: GatedModel, start: Start) -> None:
    batcher = start(capacity=Capacity(tokens_per_second=1.0, max_wait=1.0, max_backlog=1.0))
    model.finish(20)
    items = ["x" * 9] * 50
    assert result(submit(batcher, *items)) == ["X" * 9] * 50


def test_a_cancelled_request_is_not_run(model: GatedModel, start: Start) -> None:
    batcher = start(capacity=Capacity(tokens_per_second=1.0, max_wait=2.0))
    submit(batcher, "a")
    model.wait_for_run()
    told: list[Results] = []
    jobs: list[Job] = [batcher.submit(["b"], told.append) for _ in range(3)]
    with pytest.raises(Overloaded):
        submit(batcher, "c")
    for job in jobs:
        job.cancel()
    model.finish(1)
    last: list[Future[Results]] = []
    until(lambda: accepted(batcher, "d", last))  # as soon as the worker has looked at the queue
    model.finish(1)
    assert result(last[0]) == ["D"]
    assert model.runs == [["a"], ["d"]]
    assert told == []


def accepted(batcher: Batcher[str, str], item: str, futures: list[Future[Results]]) -> bool:
    """Try to submit; the future goes to ``futures``."""
    try:
        futures.append(submit(batcher, item))
    except Overloaded:
        return False
    return True


def test_a_failing_run_fails_its_own_items_only() -> None:
    def run(items: Sequence[str]) -> list[str]:
        if "bad" in items:
            raise ValueError("bad")
        return list(items)

    with Batcher(run, Limits(3), Capacity(1e9)) as batcher:
        bad, good = result(submit(batcher, "bad", "ok!"))
        assert isinstance(bad, ValueError)
        assert good == "ok!"
        assert result(submit(batcher, "yes")) == ["yes"]


def test_too_few_results_are_an_error() -> None:
    def run(items: Sequence[str]) -> list[str]:
        return list(items[1:])

    with Batcher(run, Limits(10), Capacity(1e9)) as batcher:
        (failed,) = result(submit(batcher, "a"))
    assert isinstance(failed, RuntimeError)
    assert str(failed) == "0 results for 1 items"


def test_closing_answers_everything_queued(model: GatedModel) -> None:
    with Batcher(model, Limits(2), Capacity(1e9)) as batcher:
        futures = [submit(batcher, item) for item in "abcdefg"]
        model.finish(7)
    assert [result(future) for future in futures] == [[item] for item in "ABCDEFG"]
    with pytest.raises(Closed):
        submit(batcher, "h")


def test_no_items_need_no_run(model: GatedModel, start: Start) -> None:
    assert result(submit(start())) == []
    assert model.runs == []


def test_workers_run_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def run(items: Sequence[str]) -> list[str]:
        both.wait(PATIENCE)
        return list(items)

    with Batcher(run, Limits(1), Capacity(1e9), workers=2) as batcher:
        assert result(submit(batcher, "a", "b")) == ["a", "b"]


def test_idle_workers_share_the_queue() -> None:
    runs: list[list[str]] = []
    both = threading.Barrier(2)

    def run(items: Sequence[str]) -> list[str]:
        runs.append(list(items))
        if len(items) == 2:
            both.wait(PATIENCE)
        return list(items)

    with Batcher(run, Limits(100), Capacity(1e9), workers=2) as batcher:

        def shared() -> bool:
            """Whether both workers were idle."""
            runs.clear()
            assert result(submit(batcher, *"abcd")) == list("abcd")
            return sorted(runs) == [["a", "b"], ["c", "d"]]

        until(shared)


def test_a_run_is_delivered_with_one_call(model: GatedModel) -> None:
    calls: list[int] = []

    def deliver(callback: Callable[[], None]) -> None:
        calls.append(1)
        callback()

    with Batcher(model, Limits(100), Capacity(1e9), deliver=deliver) as batcher:
        first = submit(batcher, "a")
        model.wait_for_run()
        futures = [submit(batcher, item) for item in "bcd"]
        model.finish(2)
        assert [result(future) for future in (first, *futures)] == [["A"], ["B"], ["C"], ["D"]]
    assert len(calls) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_many_threads_get_their_own_results(workers: int) -> None:
    def run(items: Sequence[str]) -> list[str]:
        return [item.upper() for item in items]

    requests = [[f"{number}-{'x' * (number % 40)}"] * (1 + number % 3) for number in range(2_000)]
    with Batcher(run, Limits(200), Capacity(1e9), workers=workers) as batcher:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda items: result(submit(batcher, *items)), requests))
    assert answers == [[item.upper() for item in items] for items in requests]
    assert batcher.statistics().items == sum(map(len, requests))

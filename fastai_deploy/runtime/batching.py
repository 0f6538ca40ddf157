"""Dynamic batching: what waits while the model is busy goes together in its next run.

    submit -> queue, most urgent first -> group of like length -> run -> deliver

A lone request is run at once. Nobody waits for company, with one exception: right after several
requests were answered in one run, their clients are about to send the next ones, so the model
waits for as many again, for a moment that is short beside the run (``HOLD``). Without it, the
quickest client would get a run of its own each time, and the others the rest.

Urgency is the moment at which a text would start if its request had the model to itself: the tail
of a large request does not keep a small one waiting, and nothing waits for ever. The queue is
bounded by time, not by number: work that could not be answered in time is refused at once.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import insort
from dataclasses import dataclass
from typing import Any, Callable, Generic, List, NamedTuple, Sequence, Sized, TypeVar, Union

from .grouping import Limits, group

HOLD = 0.2  # of the last run's time
LONGEST_HOLD = 0.005  # seconds
_LOOKAHEAD = 64

Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


class Overloaded(Exception):
    """The queue is full; ``retry_after`` says in how many seconds there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class Closed(Exception):
    """The batcher takes no more work."""


@dataclass(frozen=True)
class Capacity:
    """How much may wait, by the speed of the model in tokens a second.

    A request is refused when what is due before it takes longer than ``max_wait`` seconds, or all
    that waits and itself longer than ``max_backlog`` seconds. An empty queue takes any request.
    """

    tokens_per_second: float
    max_wait: float = 5.0
    max_backlog: float = 60.0


@dataclass(frozen=True)
class Statistics:
    """What a batcher has done since it began; ``queued`` is what waits now."""

    runs: int
    items: int
    refused: int
    queued: int


class Job:
    """One request in the batcher's hands."""

    def __init__(self, size: int, done: Callable[[List[Any]], None]) -> None:
        self.cancelled = False
        self.results: List[Any] = [None] * size
        self.left = size
        self.done = done

    def cancel(self) -> None:
        """Take out of the queue what still waits; ``done`` is not called any more."""
        self.cancelled = True


class _Waiting(NamedTuple):
    """One item in the queue; ``number`` is unique, so that the order is always decided by it."""

    urgency: float
    number: int
    item: Any
    job: Job
    place: int


class Batcher(Generic[Item, Result]):
    """Runs items in groups on worker threads. Thread-safe; a context manager that drains.

    ``run`` takes items (``len`` of one is its tokens) and returns as many results in order; it is
    called from ``workers`` threads at a time. ``clock`` counts seconds. ``deliver`` is called with
    one callback for all requests that a run has completed, on the worker's thread: an event loop's
    ``call_soon_threadsafe`` is woken once then, and not once for each.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        limits: Limits,
        capacity: Capacity,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        deliver: Callable[[Callable[[], None]], object] = lambda callback: callback(),
    ) -> None:
        self._run = run
        self._limits = limits
        self._speed = capacity.tokens_per_second
        self._due_limit = capacity.max_wait * self._speed
        self._backlog_limit = capacity.max_backlog * self._speed
        self._clock = clock
        self._handover = deliver
        self._changed = threading.Condition()
        self._queue: List[_Waiting] = []
        self._due = 0  # tokens in the queue whose urgency has come
        self._backlog = 0  # tokens in the queue
        self._expected = 0
        self._hold_until = -math.inf
        self._closed = False
        self._numbers = self._runs = self._items = self._refused = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"model-{number}") for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Batcher[Item, Result]:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def submit(
        self, items: Sequence[Item], done: Callable[[List[Union[Result, Exception]]], None]
    ) -> Job:
        """Queue a request; ``done`` gets one result for each item, in order.

        Where ``run`` raised, the results of its items are that exception. Raises Overloaded and
        Closed.
        """
        job = Job(len(items), done)
        if not items:
            done([])
            return job
        with self._changed:
            if self._closed:
                raise Closed
            tokens = sum(len(item) for item in items)
            self._admit(tokens)
            now = urgency = self._clock()
            first = not self._queue
            for place, item in enumerate(items):
                self._numbers += 1
                insort(self._queue, _Waiting(urgency, self._numbers, item, job, place))
                urgency += len(item) / self._speed
            self._due += len(items[0])
            self._backlog += tokens
            # Otherwise a worker waits for more already, and will look again when the hold is over.
            if first or now >= self._hold_until or self._enough():
                self._changed.notify()
        return job

    def refuse_if_full(self) -> None:
        """Raise Overloaded if any request would be refused now: cheaper than to read it first."""
        with self._changed:
            self._admit(0)

    def statistics(self) -> Statistics:
        """What was done and what waits."""
        with self._changed:
            return Statistics(self._runs, self._items, self._refused, len(self._queue))

    def close(self) -> None:
        """Take no more work, answer everything that waits, end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _admit(self, tokens: int) -> None:
        if not self._queue:
            return
        if self._due > self._due_limit:
            self._refuse(self._due)
        if self._backlog + tokens > self._backlog_limit:
            self._refuse(self._backlog)

    def _refuse(self, tokens_before: int) -> None:
        self._refused += 1
        raise Overloaded(max(1, math.ceil(tokens_before / self._speed)))

    def _work(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                return
            started = self._clock()
            results: Sequence[Union[Result, Exception]]
            try:
                results = self._results([waiting.item for waiting in batch])
            except Exception as error:  # noqa: BLE001  # told to each caller through its results
                results = [error] * len(batch)
            self._deliver(batch, results, self._clock() - started)

    def _results(self, items: Sequence[Item]) -> Sequence[Result]:
        results = self._run(items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        return results

    def _take(self) -> List[_Waiting]:
        """The next group to run; empty when there will be none."""
        with self._changed:
            while True:
                self._queue = [each for each in self._queue if not each.job.cancelled]
                self._measure()
                if self._queue:
                    hold = self._hold_until - self._clock()
                    if hold <= 0 or self._enough() or self._closed:
                        return self._choose()
                    self._changed.wait(hold)
                elif self._closed:
                    return []
                else:
                    self._changed.wait()

    def _enough(self) -> bool:
        """Whether all who could come have come, or as many as fit a run."""
        return len(self._queue) >= self._expected or self._backlog >= self._limits.tokens

    def _choose(self) -> List[_Waiting]:
        """The most urgent item, and those that share its run at least cost."""
        candidates = self._queue[:_LOOKAHEAD]
        groups = group([len(each.item) for each in candidates], self._limits)
        chosen = next(members for members in groups if 0 in members)
        for member in sorted(chosen, reverse=True):
            del self._queue[member]
        self._measure()
        if self._queue:
            self._changed.notify()  # there is work for another worker, if one is idle
        return [candidates[member] for member in chosen]

    def _measure(self) -> None:
        now = self._clock()
        self._backlog = sum(len(each.item) for each in self._queue)
        self._due = sum(len(each.item) for each in self._queue if each.urgency <= now)

    def _deliver(
        self,
        batch: Sequence[_Waiting],
        results: Sequence[Union[Result, Exception]],
        seconds: float,
    ) -> None:
        complete: List[Job] = []
        with self._changed:
            for waiting, result in zip(batch, results):  # noqa: B905  # not in Python 3.8
                job = waiting.job
                job.results[waiting.place] = result
                job.left -= 1
                if not job.left:
                    complete.append(job)
            self._runs += 1
            self._items += len(batch)
            self._expected = len(self._queue) + len(complete)
            if len(complete) > 1:
                self._hold_until = self._clock() + min(LONGEST_HOLD, HOLD * seconds)
        if complete:
            self._handover(lambda: _tell(complete))


def _tell(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.cancelled:
            job.done(job.results)

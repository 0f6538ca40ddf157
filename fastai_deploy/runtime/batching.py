"""Dynamic batching: requests that wait while the model is busy share its next run.

    submit -> request queue -> group of similar length -> run -> deliver

A single request is run at once. Requests do not wait for others, with one exception: right after a
run that answered several requests, their clients are about to send the next ones, so the model
waits for as many again, for a time much shorter than the run (``HOLD``). Without it, the fastest
client would get its own run each time, and the others would share the next. Workers that are idle
at the same time share what is queued.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Callable, Generic, List, Sequence, Sized, TypeVar, Union

from .request_queue import Capacity, Job, Limits, Overloaded, RequestQueue, Waiting

# Eight clients, 12 tokens, int8 MiniLM in two concurrent runs on 2 cores: 0.2 groups 2.8 of them on
# average, 0.5 groups 3.45, which saves a tenth of the CPU time of a text; 1.0 gains nothing more.
# For larger models, LONGEST_HOLD decides.
HOLD = 0.5  # fraction of the last run's time
LONGEST_HOLD = 0.005  # seconds

Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


class Closed(Exception):
    """The batcher accepts no more work."""


@dataclass(frozen=True)
class Statistics:
    """Totals of a batcher since it started; ``queued`` is what is waiting now."""

    runs: int
    items: int
    refused: int
    queued: int


class Batcher(Generic[Item, Result]):
    """Runs items in groups on worker threads. Thread-safe; a context manager that drains.

    ``run`` takes items (``len`` of one is its tokens) and returns as many results in order; it is
    called from ``workers`` threads at a time. ``clock`` counts seconds. ``deliver`` is called on
    the worker's thread with one callback for all requests that a run has completed, so an event
    loop's ``call_soon_threadsafe`` is woken once, not once per request.
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
        self._clock = clock
        self._handover = deliver
        self._changed = threading.Condition()
        self._line = RequestQueue(limits, capacity)
        self._idle = 0
        self._expected = 0
        self._hold_until = -math.inf
        self._closed = False
        self._runs = self._items = self._refused = 0
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

        If ``run`` raises, the exception is the result of each of its items. Raises Overloaded and
        Closed.
        """
        job = Job(len(items), done)
        if not items:
            done([])
            return job
        with self._changed:
            if self._closed:
                raise Closed
            now = self._clock()
            first = not self._line
            self._admitted(lambda: self._line.add(items, job, now))
            # Otherwise a worker is already holding for more, and will look again afterwards.
            if first or now >= self._hold_until or self._enough():
                self._changed.notify()
        return job

    def refuse_if_full(self) -> None:
        """Raise Overloaded if any request would be refused now, which saves reading it."""
        with self._changed:
            self._admitted(lambda: self._line.admit(0))

    def statistics(self) -> Statistics:
        """Totals, and what is waiting."""
        with self._changed:
            return Statistics(self._runs, self._items, self._refused, len(self._line))

    def close(self) -> None:
        """Accept no more work, answer everything that is queued, end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _admitted(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Overloaded:
            self._refused += 1
            raise

    def _work(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                return
            started = self._clock()
            results: Sequence[Union[Result, Exception]]
            try:
                results = self._results([waiting.item for waiting in batch])
            except Exception as error:  # noqa: BLE001  # each caller gets it as a result
                results = [error] * len(batch)
            self._deliver(batch, results, self._clock() - started)

    def _results(self, items: Sequence[Item]) -> Sequence[Result]:
        results = self._run(items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        return results

    def _take(self) -> List[Waiting]:
        """The next group to run; empty if there will be none."""
        with self._changed:
            self._idle += 1
            while True:
                now = self._clock()
                self._line.drop_cancelled(now)
                if not self._line:
                    if self._closed:
                        return []
                    self._changed.wait()
                elif now >= self._hold_until or self._enough() or self._closed:
                    batch = self._line.take_group(now, self._idle)
                    self._idle -= 1
                    self._expected = max(0, self._expected - len(batch))
                    if self._line:
                        self._changed.notify()  # there is work for another worker, if one is idle
                    return batch
                else:
                    self._changed.wait(self._hold_until - now)

    def _enough(self) -> bool:
        """Whether all expected requests have arrived, or as many as fit in a run."""
        return len(self._line) >= self._expected or self._line.fills_a_run

    def _deliver(
        self,
        batch: Sequence[Waiting],
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
            now = self._clock()
            if now >= self._hold_until:
                self._expected = len(self._line)
            self._expected += len(complete)
            if len(complete) > 1:
                self._hold_until = now + min(LONGEST_HOLD, HOLD * seconds)
        if complete:
            self._handover(lambda: _tell(complete))


def _tell(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.cancelled:
            job.done(job.results)

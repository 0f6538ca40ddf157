"""Requests waiting for the model: order, limits, and which share the next run."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass
from typing import Any, Callable, List, NamedTuple, Sequence, Sized

# On a processor: int8 RoBERTa-base on 2 cores takes 10.1 ms for 1 x 12 and
# 38 ms for 8 x 12 tokens, so 0.33 ms a token and 6 ms (18 tokens) a run; 8 tokens on 1 core.
RUN_OVERHEAD = 16


@dataclass(frozen=True)
class Limits:
    """The largest run: ``tokens`` in its rectangle, unless one text alone is longer.

    ``overhead`` is the fixed cost of a run, in tokens. ``equal_length`` lets only texts of the same
    number of tokens share a run, for models that do not mask padding.
    """

    tokens: int = 512
    equal_length: bool = False
    overhead: int = RUN_OVERHEAD


def group(lengths: Sequence[int], limits: Limits) -> List[List[int]]:
    """Split texts of these lengths (in tokens) into runs of least total cost.

    Returns the indices of each run. O(n log n + n x texts that fit a run).
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cost = [0]  # cost of the best split of the first n texts
    first = [0]  # start of the last run of that split
    for last, index in enumerate(order):
        longest = lengths[index]
        best, start = cost[last] + longest, last
        for begin in range(last - 1, -1, -1):
            rectangle = (last - begin + 1) * longest
            if rectangle > limits.tokens:
                break
            if limits.equal_length and lengths[order[begin]] != longest:
                break
            if cost[begin] + rectangle < best:
                best, start = cost[begin] + rectangle, begin
        cost.append(best + limits.overhead)
        first.append(start)
    groups = []
    end = len(order)
    while end:
        groups.append(order[first[end] : end])
        end = first[end]
    return groups


_LOOKAHEAD = 64


class Overloaded(Exception):
    """The queue is full; ``retry_after`` says in how many seconds there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Capacity:
    """How much may wait, by the speed of the model in tokens a second.

    A request is refused if the work before it takes longer than ``max_wait`` seconds, or everything
    queued and itself longer than ``max_backlog`` seconds. An empty queue accepts any request.
    """

    tokens_per_second: float
    max_wait: float = 5.0
    max_backlog: float = 60.0


class Job:
    """One request: its results so far, and how many are still to come."""

    def __init__(self, size: int, done: Callable[[List[Any]], None]) -> None:
        self.cancelled = False
        self.results: List[Any] = [None] * size
        self.left = size
        self.done = done

    def cancel(self) -> None:
        """Remove its waiting items from the queue; ``done`` is no longer called."""
        self.cancelled = True


class Waiting(NamedTuple):
    """One queued item; ``number`` is unique and breaks ties of urgency."""

    urgency: float
    number: int
    item: Any
    job: Job
    place: int


class RequestQueue:
    """The queued items, the most urgent first. Not thread-safe; ``now`` is in seconds."""

    def __init__(self, limits: Limits, capacity: Capacity) -> None:
        self._limits = limits
        self._speed = capacity.tokens_per_second
        self._due_limit = capacity.max_wait * self._speed
        self._backlog_limit = capacity.max_backlog * self._speed
        self._line: List[Waiting] = []
        self._due = 0  # tokens that were due when last counted
        self._backlog = 0  # tokens in all
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._line)

    @property
    def fills_a_run(self) -> bool:
        """Whether the queued tokens would fill a run."""
        return self._backlog >= self._limits.tokens

    def admit(self, tokens: int) -> None:
        """Raise Overloaded if a request of ``tokens`` tokens would wait too long."""
        if not self._line:
            return
        if self._due > self._due_limit:
            raise Overloaded(self._seconds(self._due))
        if self._backlog + tokens > self._backlog_limit:
            raise Overloaded(self._seconds(self._backlog))

    def add(self, items: Sequence[Sized], job: Job, now: float) -> None:
        """Queue the items of a request, at least one. Raises Overloaded."""
        tokens = sum(len(item) for item in items)
        self.admit(tokens)
        urgency = now
        for place, item in enumerate(items):
            self._numbers += 1
            insort(self._line, Waiting(urgency, self._numbers, item, job, place))
            urgency += len(item) / self._speed
        self._due += len(items[0])
        self._backlog += tokens

    def drop_cancelled(self, now: float) -> None:
        """Drop the items of cancelled requests."""
        left = [each for each in self._line if not each.job.cancelled]
        if len(left) < len(self._line):
            self._line = left
            self._backlog = sum(len(each.item) for each in left)
        self._count_due(now)

    def take_group(self, now: float, takers: int = 1) -> List[Waiting]:
        """Remove the most urgent item, and those that share its run at least cost.

        If ``takers`` would each take a group now, leave the others their share.
        """
        candidates = self._line[: min(_LOOKAHEAD, math.ceil(len(self._line) / takers))]
        groups = group([len(each.item) for each in candidates], self._limits)
        chosen = next(members for members in groups if 0 in members)
        for member in sorted(chosen, reverse=True):
            self._backlog -= len(self._line[member].item)
            del self._line[member]
        self._count_due(now)
        return [candidates[member] for member in chosen]

    def _count_due(self, now: float) -> None:
        """Count from the end: thousands may be due, and few are not."""
        self._due = self._backlog
        for each in reversed(self._line):
            if each.urgency <= now:
                break
            self._due -= len(each.item)

    def _seconds(self, tokens: int) -> int:
        return max(1, math.ceil(tokens / self._speed))

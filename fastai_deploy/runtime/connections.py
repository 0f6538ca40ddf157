"""All connections of a server: how many, for how long, and how much memory they may hold.

docs/security.md states the same limits. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import math
import resource
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, Dict, Protocol, Set

from .error_responses import RequestError
from .hardware import trim_memory
from .log import OncePerMinute

_MOST_CONNECTIONS = 4096
_MOST_DESCRIPTORS = 16_384
_MOST_REFUSED = 64  # and at most a quarter of the connections, because each has a descriptor
_WORTH_A_TRIM = 16 * 1024 * 1024
_QUIET_TICKS = 5


@dataclass(frozen=True)
class ConnectionLimits:
    """The limits of one connection, and of all of them together.

    A connection is closed if it sends nothing for ``silent`` after it was opened or ``idle`` after
    an answer, if a request's headers take longer than ``head`` in all, if its body pauses for
    ``body``, or if the data after an early answer takes longer than ``rest``, or after a refusal
    longer than ``refused``. ``head_bytes`` limits the request line and headers.
    Beyond its first ``small_body`` bytes, an incomplete body counts towards ``unfinished``, up to
    ``largest_body``.
    """

    connections: int
    silent: float = 20.0
    idle: float = 75.0  # longer than clients keep idle connections, so that they close first
    head: float = 20.0
    body: float = 20.0
    rest: float = 10.0
    refused: float = 3.0
    head_bytes: int = 65_536
    small_body: int = 65_536
    largest_body: int = 6 * 1024 * 1024
    unfinished: int = 64 * 1024 * 1024


def most_connections() -> int:
    """How many connections this process may have: half of its file descriptors, at most 4,096.

    The other half is for its own files and sockets and for connections that are being refused, so
    accepting one does not fail. Raises the soft limit of descriptors if that is allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MOST_DESCRIPTORS if hard == unlimited else min(hard, _MOST_DESCRIPTORS)
    if soft != unlimited and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS allows less than it says
            pass
    return _MOST_CONNECTIONS if soft == unlimited else min(_MOST_CONNECTIONS, soft // 2)


class Member(Protocol):
    """A connection as seen from here; its times are those of ``now``."""

    expires: float
    unread: float

    @property
    def may_make_room(self) -> bool:
        """Whether it has no complete request head that waits for an answer."""

    def expire(self) -> None:
        """End the connection's current state, whose time is up."""

    def make_room(self) -> None:
        """Close to make room for another."""


class Connections:
    """The open connections of a server; ``clock`` counts seconds. Not thread-safe.

    ``tick`` must be called about once a second: ``now`` is the time of the last call, which is
    accurate enough and costs a request nothing.
    """

    def __init__(
        self, limits: ConnectionLimits, report: OncePerMinute, clock: Callable[[], float]
    ) -> None:
        self.limits = limits
        self.now = clock()
        self._clock = clock
        self._report = report
        self._open: Dict[Member, None] = {}  # an ordered set
        self._refused: Set[Member] = set()
        self._movable: Deque[Member] = deque()  # may make room; the first to expire comes first
        self._all_busy = False  # since the last tick
        self._unfinished = 0
        self._taken = 0  # bytes of large bodies since memory was last trimmed
        self._quiet = 0

    def admit(self, member: Member) -> bool:
        """Count a new connection; False if there is no room for it.

        If there is no room, it may replace a connection without a complete request.
        """
        if len(self._open) >= self.limits.connections and not self._evict():
            return False
        self._open[member] = None
        return True

    def linger(self, member: Member) -> bool:
        """Let a refused connection wait until its client has read why; False if too many do."""
        if len(self._refused) >= min(_MOST_REFUSED, self.limits.connections // 4):
            return False
        self._refused.add(member)
        return True

    def leave(self, member: Member) -> None:
        """Forget a closed connection."""
        self._open.pop(member, None)
        self._refused.discard(member)

    def take(self, size: int) -> bool:
        """Count bytes of an incomplete body; False, without counting, if they are too many."""
        if self._unfinished + size > self.limits.unfinished:
            return False
        self._unfinished += size
        self._taken += size
        return True

    def give_back(self, size: int) -> None:
        """Uncount the bytes of a body that is complete, or gone."""
        self._unfinished -= size

    def refused(self, error: RequestError) -> None:
        """Log a refusal, at most once a minute for each kind."""
        self._report(
            "connection_refused", status=error.status, code=error.code, reason=error.message
        )

    def tick(self) -> None:
        """Expire overdue connections, and trim the memory that large bodies have used."""
        self.now = self._clock()
        for member in [*self._open, *self._refused]:
            if member.expires <= self.now or member.unread <= self.now:
                member.expire()
        self._all_busy = False
        self._quiet = 0 if self._unfinished else self._quiet + 1
        if self._taken >= _WORTH_A_TRIM and self._quiet >= _QUIET_TICKS:
            self._taken = 0
            trim_memory()

    def _evict(self) -> bool:
        """Close a connection; False if none can be. Cheap, however many ask."""
        if not self._movable and not self._all_busy:
            movable = [each for each in self._open if each.may_make_room]
            self._movable = deque(sorted(movable, key=lambda each: each.expires))
            self._all_busy = not movable
        while self._movable:
            member = self._movable.popleft()
            if member in self._open and member.may_make_room:
                del self._open[member]
                member.make_room()
                return True
        return False


NEVER = math.inf

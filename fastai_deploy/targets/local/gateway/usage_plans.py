"""API keys and usage plans: identifies the key of a request, and enforces its rate and quota."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import FileError
from fastai_deploy.runtime import error_responses
from fastai_deploy.targets.local.gateway.config import QuotaPeriod

SHORTEST_KEY = 20  # API Gateway takes keys of 20 to 128 characters
_ID_LENGTH = 10
_LONGEST_FILE = 4096  # bytes


class KeyRing:
    """The keys in some files, one key per file.

    The files are read on every request, so that changes take effect at once.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def check(self) -> None:
        """Raise FileError if a key file cannot be read."""
        for path in self._paths:
            files.read(path, most=_LONGEST_FILE)

    def identify(self, candidate: str | None) -> str | None:
        """The ID of a key, or None if it is unknown, in the same time for both."""
        digest = hashlib.sha256((candidate or "").encode("utf-8", "surrogatepass")).digest()
        known = [key for key in self._digests() if hmac.compare_digest(key, digest)]
        return digest.hex()[:_ID_LENGTH] if known else None

    def _digests(self) -> Iterator[bytes]:
        for path in self._paths:
            try:
                key = files.read(path, most=_LONGEST_FILE).strip()
            except FileError:
                continue  # the key was removed
            if len(key) >= SHORTEST_KEY:
                yield hashlib.sha256(key).digest()


@dataclass
class _Bucket:
    tokens: float
    filled: float  # when, in seconds of the clock


@dataclass
class _Count:
    period: datetime  # when it began
    used: int


class UsagePlan:
    """The usage plan of a gateway; ``clock`` returns seconds, ``now`` the time in UTC."""

    def __init__(
        self,
        *,
        rate: float,
        burst: int,
        quota: int | None,
        period: QuotaPeriod,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._quota = quota
        self._period = period
        self._clock = clock
        self._now = now
        self._buckets: dict[str, _Bucket] = {}
        self._counts: dict[str, _Count] = {}

    def admit(self, key: str) -> None:
        """Count one request of a key. Raises RequestError 429 if it exceeds the rate or quota.

        A refused request counts neither against the rate nor against the quota.
        """
        bucket = self._bucket(key)
        if bucket.tokens < 1:
            raise error_responses.throttled(
                f"this key may send {self._rate:g} requests a second, {self._burst} at once",
                math.ceil((1 - bucket.tokens) / self._rate),
            )
        if self._quota is not None:
            self._spend(key, self._quota)
        bucket.tokens -= 1

    def _bucket(self, key: str) -> _Bucket:
        moment = self._clock()
        bucket = self._buckets.setdefault(key, _Bucket(float(self._burst), moment))
        earned = (moment - bucket.filled) * self._rate
        bucket.tokens = min(float(self._burst), bucket.tokens + earned)
        bucket.filled = moment
        return bucket

    def _spend(self, key: str, quota: int) -> None:
        now = self._now()
        begin, end = period_of(now, self._period)
        count = self._counts.get(key)
        if count is None or count.period != begin:
            count = self._counts[key] = _Count(begin, 0)
        if count.used >= quota:
            raise error_responses.quota_exceeded(
                f"this key may send {quota} requests a {self._period.lower()}",
                f"the next {self._period.lower()} begins at {end:%Y-%m-%d %H:%M} UTC",
                math.ceil((end - now).total_seconds()),
            )
        count.used += 1


def period_of(now: datetime, period: QuotaPeriod) -> tuple[datetime, datetime]:
    """The start and end, in UTC, of the period that contains ``now``."""
    today = now.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "DAY":
        return today, today + timedelta(days=1)
    if period == "WEEK":
        sunday = today - timedelta(days=today.isoweekday() % 7)
        return sunday, sunday + timedelta(days=7)
    first = today.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)

"""Rate, burst and quota of a key, with a clock that the test controls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from fastai_deploy.runtime.error_responses import RequestError
from fastai_deploy.targets.local.gateway.config import QuotaPeriod
from fastai_deploy.targets.local.gateway.usage_plans import UsagePlan, period_of
from tests.gateway.fakes import FakeClock

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)  # a Monday


class Calendar:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def plan(
    clock: FakeClock,
    *,
    rate: float = 2.0,
    burst: int = 3,
    quota: int | None = None,
    period: QuotaPeriod = "DAY",
    now: Callable[[], datetime] = lambda: NOON,
) -> UsagePlan:
    return UsagePlan(rate=rate, burst=burst, quota=quota, period=period, clock=clock, now=now)


def admitted(usage: UsagePlan, key: str, attempts: int) -> int:
    return sum(refusal(usage, key) is None for _ in range(attempts))


def refusal(usage: UsagePlan, key: str) -> RequestError | None:
    try:
        usage.admit(key)
    except RequestError as error:
        return error
    return None


def test_a_burst_then_the_rate() -> None:
    clock = FakeClock()
    usage = plan(clock)
    assert admitted(usage, "a", 10) == 3
    clock.seconds += 0.5
    assert admitted(usage, "a", 10) == 1
    clock.seconds += 1_000
    assert admitted(usage, "a", 10) == 3


def test_keys_do_not_share_a_bucket() -> None:
    usage = plan(FakeClock())
    assert admitted(usage, "a", 5) == admitted(usage, "b", 5) == 3


@pytest.mark.parametrize(("rate", "seconds"), [(100.0, 1), (1.0, 1), (0.25, 4), (0.3, 4)])
def test_retry_after_is_when_the_next_request_passes(rate: float, seconds: int) -> None:
    clock = FakeClock()
    usage = plan(clock, rate=rate, burst=1)
    usage.admit("a")
    error = refusal(usage, "a")
    assert error is not None
    assert (error.status, error.code, error.retry_after) == (429, "throttled", seconds)
    clock.seconds += seconds
    usage.admit("a")


@pytest.mark.parametrize(
    ("period", "end"),
    [
        ("DAY", datetime(2026, 11, 24, tzinfo=timezone.utc)),
        ("WEEK", datetime(2026, 11, 29, tzinfo=timezone.utc)),
        ("MONTH", datetime(2026, 12, 1, tzinfo=timezone.utc)),
    ],
)
def test_a_quota_starts_anew_with_its_period(period: QuotaPeriod, end: datetime) -> None:
    clock, calendar = FakeClock(), Calendar()
    usage = plan(clock, rate=1e6, burst=1_000, quota=2, period=period, now=calendar)
    assert admitted(usage, "a", 5) == 2
    error = refusal(usage, "a")
    assert error is not None
    assert (error.status, error.code) == (429, "quota_exceeded")
    assert error.retry_after == (end - NOON).total_seconds()
    assert admitted(usage, "b", 1) == 1
    calendar.now = end - timedelta(seconds=1)
    assert admitted(usage, "a", 5) == 0
    calendar.now = end
    assert admitted(usage, "a", 5) == 2


def test_a_refused_request_counts_nowhere() -> None:
    clock = FakeClock()
    usage = plan(clock, rate=1.0, burst=1, quota=2)
    assert admitted(usage, "a", 9) == 1  # eight were throttled, and cost no quota
    clock.seconds += 1
    assert admitted(usage, "a", 1) == 1


def test_periods_are_those_of_utc() -> None:
    east = timezone(timedelta(hours=9))
    begin, end = period_of(datetime(2027, 1, 1, 3, tzinfo=east), "MONTH")
    assert begin == datetime(2026, 12, 1, tzinfo=timezone.utc)
    assert end == datetime(2027, 1, 1, tzinfo=timezone.utc)
    sunday = datetime(2026, 11, 22, tzinfo=timezone.utc)
    assert period_of(sunday, "WEEK") == (sunday, sunday + timedelta(days=7))

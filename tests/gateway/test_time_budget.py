"""One time budget for all attempts: the answer always comes before Lambda's timeout."""

from __future__ import annotations

import pytest
from botocore.exceptions import ConnectTimeoutError

from fastai_deploy.runtime.gateway.endpoint import GatewaySettings, TimeBudget, sagemaker_runtime
from tests.gateway.aws_events import rest
from tests.gateway.fakes import FakeClock, FakeContext, FakeRuntime, World

TIMEOUTS_MS = (100, 500, 1_000, 5_000, 29_000, 60_000)


@pytest.mark.parametrize("timeout_ms", TIMEOUTS_MS)
def test_the_parts_fit_into_the_whole(timeout_ms: int) -> None:
    budget = TimeBudget.of(timeout_ms)
    longest = budget.retry_until + budget.connect + budget.read
    assert 0.9 * timeout_ms - 400 <= longest * 1_000 < timeout_ms
    assert budget.read >= 0.7 * budget.retry_until
    assert min(budget.connect, budget.read, budget.retry_until) > 0


@pytest.mark.parametrize("timeout_ms", TIMEOUTS_MS)
def test_the_worst_case_ends_before_the_time_out(timeout_ms: int) -> None:
    budget = TimeBudget.of(timeout_ms)
    clock = FakeClock()
    begun = clock()

    def connect_slowly() -> None:
        clock.seconds += budget.connect

    settings = GatewaySettings("demo-dev", timeout_ms=timeout_ms)
    runtime = FakeRuntime(ConnectTimeoutError(endpoint_url="x"), took=connect_slowly)
    world = World(runtime, settings, clock)
    assert world.answer(rest(), FakeContext(timeout_ms)).code == "not_ready"
    assert clock() - begun + budget.read < timeout_ms / 1_000


def test_attempts_wait_longer_and_longer() -> None:
    clock = FakeClock()
    world = World(FakeRuntime(ConnectTimeoutError(endpoint_url="x")), clock=clock)
    world.answer(rest())
    assert clock.slept == [0.1, 0.2, 0.4]


def test_a_late_lambda_has_less_time_to_try_again() -> None:
    clock = FakeClock()
    world = World(FakeRuntime(ConnectTimeoutError(endpoint_url="x")), clock=clock)
    world.answer(rest(), FakeContext(remaining_ms=28_600))
    assert clock.slept == [0.1, 0.2]
    world.answer(rest(), FakeContext(remaining_ms=1_000))
    assert clock.slept == [0.1, 0.2]


def test_a_lambda_with_extra_time_does_not_use_it() -> None:
    clock = FakeClock()
    settings = GatewaySettings("demo-dev", timeout_ms=2_000)
    world = World(FakeRuntime(ConnectTimeoutError(endpoint_url="x")), settings, clock)
    world.answer(rest(), FakeContext(remaining_ms=60_000))
    assert clock.slept == [0.1]


def test_the_client_has_the_budget_and_no_retries_of_its_own() -> None:
    settings = GatewaySettings("demo-dev", timeout_ms=29_000)
    client = sagemaker_runtime(settings, region_name="eu-central-1")
    config = client.meta.config
    budget = TimeBudget.of(29_000)
    assert (config.connect_timeout, config.read_timeout) == (budget.connect, budget.read)
    assert config.retries["total_max_attempts"] == 1

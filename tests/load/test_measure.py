"""The figures of a load test, from made-up latencies."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.load.measure import (
    OK,
    Level,
    Sample,
    Served,
    advise,
    distribution,
    knee,
    level_of,
    percentile,
    still_rises,
)


def level(clients: int, throughput: float, **more: object) -> Level:
    made = level_of(
        [Sample(at / 10, 0.05, OK) for at in range(10)],
        clients=clients,
        rate=None,
        warm_up=0.0,
        until=1.0,
        cpu=0.1,
    )
    return replace(made, throughput=throughput, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (90, 90), (99, 99), (99.5, 100), (100, 100)]
)
def test_a_percentile_is_a_measured_value(percent: float, expected: float) -> None:
    assert percentile(range(1, 101), percent) == expected
    assert percentile([], percent) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_so_many_values_do_not_exceed_a_percentile(values: list[float], percent: float) -> None:
    found = percentile(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9


def test_the_warm_up_is_left_out_and_late_answers_are_not() -> None:
    samples = [
        Sample(0.5, 9.0, OK),  # of the warm-up
        Sample(1.0, 0.1, OK),
        Sample(1.5, 0.2, OK),
        Sample(1.6, 0.01, "429"),
        Sample(2.9, 5.0, OK),  # answered after the level
        Sample(2.95, 60.0, "timeout"),
    ]
    found = level_of(samples, clients=4, rate=None, warm_up=1.0, until=3.0, cpu=None)
    assert (found.warm_up, found.requests, found.seconds) == (1, 5, 2.0)
    assert found.errors == {"429": 1, "timeout": 1}
    assert found.throughput == 1.0  # two answers in two seconds
    assert (found.p50_ms, found.max_ms) == (200.0, 5000.0)
    assert found.failed == 2
    assert not found.sound


def test_a_level_without_answers_has_no_latency() -> None:
    found = level_of([Sample(0, 0.1, "503")], clients=1, rate=5.0, warm_up=0.0, until=1.0, cpu=None)
    assert (found.throughput, found.p50_ms, found.distribution) == (0.0, None, ())
    assert found.name == "5/s"
    nothing = level_of([], clients=1, rate=None, warm_up=0.0, until=0.0, cpu=None)
    assert (nothing.throughput, nothing.requests, nothing.sound) == (0.0, 0, False)


@given(st.lists(st.floats(0.01, 1e5), max_size=200))
def test_the_distribution_counts_each_latency_once(values: list[float]) -> None:
    ordered = sorted(values)
    found = distribution(ordered)
    assert sum(bucket.requests for bucket in found) == len(ordered)
    edges = [bucket.to_ms for bucket in found]
    assert edges == sorted(edges)
    assert not ordered or math.isclose(edges[-1], ordered[-1])


def test_the_knee_is_where_more_clients_gain_little() -> None:
    levels = [level(1, 100), level(2, 190), level(4, 300), level(8, 320), level(16, 310)]
    found = knee(levels)
    assert found is not None
    assert found.clients == 4  # 300 of 320 is over 90 %
    assert not still_rises(levels)
    assert still_rises(levels[:3])
    assert "more with --clients" in " ".join(advise(levels[:3], Served()).notes)
    assert advise(levels, Served()).clients == 4


def test_levels_with_errors_are_no_knee() -> None:
    refused = level(8, 900, errors={"503": 5})
    assert knee([level(1, 100), refused]) == level(1, 100)
    assert knee([refused]) is None
    advice = advise([refused], Served())
    assert (advice.clients, advice.commands) == (None, ())
    assert any("no knee" in note for note in advice.notes)
    assert any("queue full (503)" in note for note in advice.notes)


def test_the_target_of_autoscaling_is_half_of_what_an_instance_can_do() -> None:
    levels = [level(1, 40), level(4, 100)]
    alone = advise(levels, Served(instances=1))
    assert alone.scaling_target == 3_000  # (100 * 0.5) * 60
    assert alone.commands == (
        "fdeploy config set endpoint.scaling.target 3000",
        "fdeploy config set endpoint.scaling.max_instances 2",
    )
    assert advise(levels, Served(instances=2)).scaling_target == 1_500
    assert advise(levels, Served()).commands == ()


def test_a_rate_of_the_api_says_nothing_about_an_instance() -> None:
    throttled = level(4, 50, errors={"429": 900})
    advice = advise([level(1, 40), throttled], Served(instances=1, rate_limit=50.0))
    assert (advice.scaling_target, advice.commands) == (None, ())
    assert (advice.clients, advice.throughput) == (1, 40)
    open_loop = replace(level(64, 50, errors={"429": 900}), kind="open", rate=120.0)
    assert advise([level(1, 40), open_loop], Served(instances=1)).scaling_target == 1_200


def test_the_instances_for_a_rate() -> None:
    open_loop = level_of([], clients=64, rate=120.0, warm_up=0.0, until=1.0, cpu=None)
    fixed = advise([level(4, 100), open_loop], Served(instances=1))
    assert fixed.instances == 3  # 120 / (100 * 0.5), rounded up
    assert fixed.commands == ("fdeploy config set endpoint.instance_count 3",)
    scaling = advise([level(4, 100), open_loop], Served(instances=1, scales=True, most=2))
    assert "fdeploy config set endpoint.scaling.max_instances 3" in scaling.commands


def test_what_limits_the_figures_is_said() -> None:
    busy = level(4, 100, cpu=0.95)
    throttled = level(8, 5, errors={"429": 3})
    late = replace(level(64, 20), kind="open", rate=50.0)
    notes = advise([busy, throttled, late], Served(rate_limit=5.0)).notes
    said = " ".join(notes)
    assert "took over 80 % of a core" in said
    assert "limit of 5 requests a second was measured" in said
    assert "at 50/s only 20.0 a second were answered" in said

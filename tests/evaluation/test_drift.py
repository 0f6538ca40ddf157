"""Drift: the index, what chance explains, and what is captured."""

from __future__ import annotations

import base64
import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.evaluation.captured import Seen, Unread, seen
from fastai_deploy.evaluation.drift import (
    Monitored,
    Sample,
    by_chance,
    monitored,
    psi,
    quantiles,
)

NAMES = ("no", "yes")


def sample(label: str, confidence: float = 0.8, length: int = 50) -> Sample:
    return Sample((label,), confidence, length, 0.0)


def compared(goldens: list[Sample], captured: list[Sample], limit: float | None) -> Monitored:
    return monitored(goldens, captured, NAMES, since="7d", versions={}, notes=(), max_drift=limit)


def test_the_index_by_hand() -> None:
    """Siddiqi's formula, with half a text added to each count."""
    a, b = (10.5 / 41, 30.5 / 41), (20.5 / 41, 20.5 / 41)
    expected = sum((y - x) * math.log(y / x) for x, y in zip(a, b, strict=True))
    assert psi([10, 30], [20, 20]) == pytest.approx(expected)
    assert psi([0, 0], [1, 1]) is None


def test_what_chance_explains_is_the_quantile_of_chi_squared() -> None:
    """SciPy's chi2.ppf(0.95, k) is 3.841, 16.919 and 30.144 for 1, 9 and 19."""
    for bins, quantile in ((2, 3.841), (10, 16.919), (20, 30.144)):
        counts = [100] * bins
        found = by_chance(counts, counts)
        assert found == pytest.approx(quantile * 2 / (100 * bins), rel=0.002)
    assert by_chance([5], [5]) == 0
    assert by_chance([0], [5]) is None


def test_one_population_stays_below_what_chance_explains() -> None:
    draw = random.Random(11)  # noqa: S311 - statistics, not secrets
    above = 0
    for _ in range(300):
        sides = [[0] * 5, [0] * 5]
        for side, size in zip(sides, (200, 400), strict=True):
            for place in draw.choices(range(5), weights=(1, 2, 3, 2, 1), k=size):
                side[place] += 1
        index, limit = psi(*sides), by_chance(*sides)
        assert index is not None
        assert limit is not None
        above += index > limit
    assert above < 300 * 0.09  # 5 % are expected


def test_a_drift_is_one_only_above_chance_and_limit() -> None:
    few = compared([sample("no")] * 3 + [sample("yes")] * 3, [sample("yes")] * 6, 0.2)
    (labels, *_) = few.drift
    assert labels.psi is not None
    assert labels.psi > 0.2
    assert few.failure is None, "six texts show nothing"
    assert "6 goldens are few" in few.notes[-1]
    many = compared([sample("no")] * 300 + [sample("yes")] * 300, [sample("yes")] * 600, 0.2)
    assert many.failure is not None
    assert "labels (PSI" in many.failure.message
    assert compared([sample("no")] * 300, [sample("no")] * 300, 0).failure is None
    assert compared([sample("no")] * 300, [sample("yes")] * 300, None).failure is None


def test_numbers_are_binned_by_the_goldens() -> None:
    goldens = [sample("no", confidence=place / 200, length=place) for place in range(200)]
    same = compared(goldens, goldens, 0.1)
    assert [round(each.psi or 0, 6) for each in same.drift[:3]] == [0, 0, 0]
    longer = compared(goldens, [sample("no", 0.5, place * 3) for place in range(200)], 0.1)
    figures = {each.figure: each for each in longer.drift}
    assert figures["text length"].above(0.1)
    assert figures["text length"].captured == pytest.approx(3 * 99.5)
    assert quantiles([1.0] * 50) == [1.0]
    unknown = compared([Sample(("no",), None, 1, None)] * 9, [sample("no")] * 9, 0.1).drift
    assert [each.psi for each in unknown[1:]] == [None, 0, None]


def test_the_chart_fits_into_a_terminal() -> None:
    found = compared([sample("no")] * 10, [sample("yes"), Sample((), 0.2, 3, 0.5)], 0.1)
    lines = list(found.lines())
    assert max(map(len, lines)) <= 80
    assert any("(no label)" in line for line in lines)
    assert any(line.count("█") == 16 for line in lines)  # all goldens are "no"


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=8))
def test_the_index_is_symmetric_and_no_less_than_0(counts: list[tuple[int, int]]) -> None:
    before, after = ([pair[place] for pair in counts] for place in (0, 1))
    index = psi(before, after)
    if index is None:
        assert not sum(before) or not sum(after)
        return
    assert index >= 0
    back = psi(after, before)
    assert back == pytest.approx(index)


ANSWER = {
    "label": "yes",
    "score": 0.9,
    "probabilities": {"yes": 0.9, "no": 0.1},
    "truncated": False,
    "model": {"name": "m", "version": "abc"},
}


def line(
    asked: Any, answered: Any, kind: str = "application/json", encoding: str = "JSON"
) -> bytes:
    """A line of data capture, in the form of the SageMaker developer guide."""

    def part(value: Any, mode: str, kind: str) -> dict[str, str]:
        text = value if isinstance(value, str) else json.dumps(value)
        data = text if encoding == "JSON" else base64.b64encode(text.encode()).decode()
        return {"observedContentType": kind, "mode": mode, "data": data, "encoding": encoding}

    return json.dumps(
        {
            "captureData": {
                "endpointInput": part(asked, "INPUT", kind),
                "endpointOutput": part(answered, "OUTPUT", "application/json"),
            },
            "eventMetadata": {"eventId": "1", "inferenceTime": "2026-11-29T11:00:00Z"},
            "eventVersion": "0",
        }
    ).encode()


def read(*lines: bytes) -> tuple[list[Seen], Unread]:
    unread = Unread()
    return list(seen(lines, unread)), unread


def test_every_form_of_a_request_is_read() -> None:
    failed = {"error": {"code": "model_error", "message": "", "hint": ""}}
    several = {**ANSWER, "labels": ["yes", "no"], "scores": [0.9, 0.8]}
    found, unread = read(
        line({"text": "one"}, ANSWER),
        line({"texts": ["two", 3, "four"]}, [ANSWER, failed, failed]),
        line("five", ANSWER, kind="text/plain", encoding="BASE64"),
        line('{"text": "six"}\n{"text": "seven"}\n', f"{json.dumps(ANSWER)}\n{json.dumps(several)}",
             kind="application/jsonlines", encoding="BASE64"),
        b"",
    )  # fmt: skip
    assert [each.text for each in found] == ["one", "two", "five", "six", "seven"]
    assert found[0].answer.labels == ("yes",)
    assert found[-1].answer.labels == ("yes", "no")
    assert found[0].version == "abc"
    assert (unread.records, unread.errors) == (0, 1)


@pytest.mark.parametrize(
    "damaged",
    [
        b"not JSON",
        b"[]",
        b"{}",
        b'{"captureData": {"endpointInput": 1, "endpointOutput": 2}}',
        line({"texts": ["a", "b"]}, [ANSWER]),
        line({"neither": 1}, ANSWER),
        line({"text": "a"}, "not JSON"),
        line({"text": "a"}, ANSWER).replace(b'"JSON"', b'"BASE64"'),
        line({"texts": ["a", "b"]}, ANSWER),
    ],
)
def test_damaged_records_are_counted(damaged: bytes) -> None:
    found, unread = read(damaged, line({"text": "one"}, ANSWER))
    assert [each.text for each in found] == ["one"]
    assert (unread.records, unread.errors) == (1, 0)

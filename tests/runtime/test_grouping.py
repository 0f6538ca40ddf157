from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastai_deploy.runtime.request_queue import RUN_OVERHEAD, Limits, group


def cost(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(
        RUN_OVERHEAD + len(members) * max(lengths[member] for member in members)
        for members in groups
    )


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """Every way to split a list into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for groups in partitions(rest):
        yield [[first], *groups]
        for place, members in enumerate(groups):
            yield [*groups[:place], [first, *members], *groups[place + 1 :]]


def allowed(groups: list[list[int]], lengths: list[int], limits: Limits) -> bool:
    return all(
        len(members) == 1
        or (
            len(members) * max(lengths[member] for member in members) <= limits.tokens
            and not (limits.equal_length and len({lengths[member] for member in members}) > 1)
        )
        for members in groups
    )


@settings(deadline=None, max_examples=300)
@given(
    lengths=st.lists(st.integers(1, 40), max_size=6),
    limits=st.builds(Limits, st.integers(1, 200), st.booleans()),
)
def test_no_other_split_costs_less(lengths: list[int], limits: Limits) -> None:
    groups = group(lengths, limits)
    assert sorted(member for members in groups for member in members) == list(range(len(lengths)))
    assert allowed(groups, lengths, limits)
    least = min(
        cost(other, lengths)
        for other in partitions(list(range(len(lengths))))
        if allowed(other, lengths, limits)
    )
    assert cost(groups, lengths) == least


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([9], [[0]]),
        ([600], [[0]]),
        ([12, 12, 12], [[0, 1, 2]]),
        ([12, 200, 13, 210], [[0, 2], [1, 3]]),
    ],
)
def test_like_goes_with_like(lengths: list[int], expected: list[list[int]]) -> None:
    groups = group(lengths, Limits(512))
    assert sorted(sorted(members) for members in groups) == expected


def test_equal_length_means_equal() -> None:
    groups = group([5, 6, 5, 6], Limits(512, equal_length=True))
    assert sorted(sorted(members) for members in groups) == [[0, 2], [1, 3]]


def test_a_thousand_texts_fill_runs() -> None:
    groups = group([12] * 1_000, Limits(512))
    assert max(len(members) for members in groups) == 512 // 12
    assert len(groups) == -(-1_000 // (512 // 12))

"""Texts get the same ids as in fastai, in bounded time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.runtime.fastai_rules import TEXT_RULES, WORD_RULES, text_rule
from fastai_deploy.runtime.word_tokenizer import WordTokenizer, describe

RULES = Path(__file__).parent.parent / "learners" / "rules"
STEP, LONGEST = 10, 40


def recorded(major: int) -> dict[str, list[list[Any]]]:
    """fastai's own output for many texts, by rule."""
    document = json.loads((RULES / f"fastai{major}.json").read_bytes())
    found: dict[str, list[list[Any]]] = document["rules"]
    return found


@pytest.mark.parametrize(
    ("major", "name"), [(major, name) for major in (1, 2) for name in recorded(major)]
)
def test_a_rule_does_what_fastai_does(major: int, name: str) -> None:
    rows = recorded(major)[name]
    assert len(rows) > 100
    for before, after in rows:
        if isinstance(before, list):
            assert WORD_RULES[f"fastai{major}.{name}"](before) == after
        else:
            assert TEXT_RULES[f"fastai{major}.{name}"](before) == after


def test_lowercase_takes_arguments() -> None:
    rule = text_rule("fastai2.lowercase", {"add_bos": False, "add_eos": True})
    assert rule(" The FILM ") == "the film xxeos"


def words(**changes: Any) -> WordTokenizer:
    options: dict[str, Any] = {
        "before": [], "splitter": {"kind": "separator", "separator": " "}, "after": [],
        "ids": {str(number): number for number in range(1_000)},
        "unknown": 0, "backwards": False, "step": STEP,
    }  # fmt: skip
    return WordTokenizer(json.loads(json.dumps(describe(**{**options, **changes}))))


def counted(count: int) -> str:
    return " ".join(str(number % 1_000) for number in range(count))


def test_a_short_text_is_read_whole() -> None:
    encoded = words().encode("7 8 nine 9", LONGEST)
    assert (encoded.ids, encoded.truncated) == ([7, 8, 0, 9], False)
    assert words(backwards=True).encode("7 8 nine 9", LONGEST).ids == [9, 0, 8, 7]


@pytest.mark.parametrize("backwards", [False, True])
@given(count=st.integers(1, 130))
def test_whole_steps_are_left_out_of_what_is_read_first(*, backwards: bool, count: int) -> None:
    whole = words(backwards=backwards).encode(counted(count), 10_000).ids
    encoded = words(backwards=backwards).encode(counted(count), LONGEST)
    left_out = len(whole) - len(encoded)
    assert list(encoded.ids) == list(whole)[left_out:]
    assert left_out % STEP == 0
    assert LONGEST - STEP < len(encoded) <= LONGEST or left_out == 0
    assert encoded.truncated == (left_out > 0)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_text_without_end_is_cut_before_it_is_split(*, backwards: bool) -> None:
    ready = words(backwards=backwards)
    for text in (counted(200_000), "x" * 1_000_000, "0123456789 " * 100_000):
        encoded = ready.encode(text, LONGEST)
        assert encoded.truncated
        assert 0 < len(encoded) <= LONGEST
    ends = ready.encode(counted(200_000), LONGEST).ids[-3:]
    assert list(ends) == ([2, 1, 0] if backwards else [997, 998, 999])


@pytest.mark.parametrize(
    "changes",
    [
        {"before": [["fastai2.unheard_of", {}]]},
        {"after": ["unheard_of"]},
        {"splitter": {"kind": "unheard of"}},
        {"step": 0},
        {"ids": {"a": "b"}},
    ],
)
def test_an_invalid_description_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        words(**changes)

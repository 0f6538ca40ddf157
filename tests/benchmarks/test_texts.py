from __future__ import annotations

import random

import pytest

from benchmarks.comparison.texts import EACH, LONGEST, MIXTURE, SHORTEST, loads, text_of

WORDS = [f"word{number % 37}" for number in range(3000)]
CHANCE = random.Random(1)  # noqa: S311  # not secret


def encode(text: str) -> list[int]:
    """As many tokens as words, and two special ones; a word that ends in 5 has two."""
    return [0, *(0 for word in text.split() for _ in range(2 if word[-1] == "5" else 1)), 0]


def test_every_text_has_its_length_in_tokens() -> None:
    found = loads(WORDS, encode, (12, 92))
    assert list(found) == ["12", "92", "mixture"]
    assert {len(encode(text)) for text in found["12"]} == {12}
    assert {len(encode(text)) for text in found["92"]} == {92}
    assert len(found["12"]) == EACH
    lengths = sorted(len(encode(text)) for text in found["mixture"])
    assert len(lengths) == MIXTURE
    assert lengths[0] >= SHORTEST
    assert lengths[-1] <= LONGEST
    assert found == loads(WORDS, encode, (12, 92))


def test_a_text_is_a_passage() -> None:
    text = text_of(30, WORDS, encode, CHANCE)
    assert f" {text} " in f" {' '.join(WORDS)} "


def test_a_length_that_no_passage_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="no passage of 12 tokens"):
        text_of(12, WORDS[:3], encode, CHANCE)

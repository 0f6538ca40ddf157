"""Words are split as spaCy splits them, by rules extracted from it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spacy.symbols import ORTH

from fastai_deploy.learner.text.spacy_rules import rules_of_language
from fastai_deploy.runtime.word_tokenizer import (
    LONGEST_WORD,
    MOST_SIGNS,
    RuleSplitter,
    SeparatorSplitter,
)

LEARNERS = Path(__file__).parent.parent / "learners"
MARKS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep")
LANGUAGES = ("en", "de", "es", "nl", "hu", "tr")
PIECES = (
    "the", "Film", "a.m.", "8am", "can't", "I'd've", "don't!", "o'clock", "l'eau", ":)", ";-)",
    "(c)", "http://ex.com/a?b=1", "www.foo.org.", "a@b.co", "10km", "5/10", "$12.50", "U.S.A.",
    "A.B", "1,000", "dyn-o-mite-dave", "...", "..", "—", "--", "“ok”", "«oui»", "'s", "\u2019s",
    "(", ")", "[", '"', "'", ",", "!", "?", "#", "%", "€", "°C.", "中文", "हिन्दी", "עברית", "😀",
    "\u200b", "\xad", "xxbos", "z.B.", "d.h.", "bzw.", "\u2019n", "_", "*", "/", "\\n", "C++",
    "👍🏽", "Mr.", "3pm.", "'em", "and/or", "İ", "ß",
)  # fmt: skip
SPACES = (" ", " ", " ", "  ", "", "\n", " \n ", "\t", "\xa0", "\x1c")
TEXT = st.lists(
    st.tuples(st.sampled_from(PIECES) | st.text(max_size=6), st.sampled_from(SPACES)), max_size=12
).map(lambda pairs: "".join(word + space for word, space in pairs))


@cache
def both(language: str) -> tuple[Callable[[str], list[str]], RuleSplitter]:
    """spaCy's splitter and ours, built from the same rules."""
    tokenizer = spacy.blank(language).tokenizer
    for mark in MARKS:
        tokenizer.add_special_case(mark, [{ORTH: mark}])  # type: ignore[union-attr]
    rules = json.loads(json.dumps(rules_of_language(language, MARKS)))
    return lambda text: [word.text for word in tokenizer(text)], RuleSplitter(rules)


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_texts_are_split_as_spacy_does(language: str) -> None:
    theirs, ours = both(language)
    with (LEARNERS / "reviews.csv").open(encoding="utf-8") as file:
        texts = [row["Phrase"] for row in csv.DictReader(file)]
    document = json.loads((LEARNERS / "v1/awdlstm_fastai1061_zip.golden.json").read_bytes())
    texts += [each["text"] for each in document["golden"]]
    assert len(texts) > 1_000
    for text in texts:
        assert ours.split(text) == theirs(text)


@given(language=st.sampled_from(LANGUAGES), text=TEXT)
@example("en", "((:) ) (a.m.) 8am. can't!) ;-)) x:)")
@example("en", "  two spaces, then one \n")
@example("en", "I'm can't")
@settings(max_examples=1_500, deadline=None)
def test_any_text_is_split_as_spacy_does(language: str, text: str) -> None:
    theirs, ours = both(language)
    assert ours.split(text) == theirs(text)


def test_every_special_case_of_english_is_split_as_spacy_does() -> None:
    theirs, ours = both("en")
    for case in rules_of_language("en", MARKS)["special"]:
        for text in (case, f"({case})", f"{case}.", f'"{case}', f"{case}'s {case}, {case}"):
            assert ours.split(text) == theirs(text)


def test_nothing_is_lost_of_a_text() -> None:
    _, ours = both("en")
    text = "(Can't) we go?  Yes... at 8am!"
    assert "".join(ours.split(text)).replace(" ", "") == text.replace(" ", "")


def test_a_word_without_end_is_one_word_and_a_chain_of_signs_ends() -> None:
    _, ours = both("en")
    assert ours.split("a,b" * LONGEST_WORD) == ["a,b" * LONGEST_WORD]
    signs = ours.split("x" + '"' * (LONGEST_WORD - 1))
    assert len(signs) == MOST_SIGNS + 1
    assert len(signs[0]) == LONGEST_WORD - MOST_SIGNS


def test_a_separator_splits_at_every_place() -> None:
    assert SeparatorSplitter(" ").split("a  b ") == ["a", "", "b", ""]


@pytest.mark.parametrize("missing", ["prefix", "special", "url_match"])
def test_rules_that_are_not_whole_are_refused(missing: str) -> None:
    rules = rules_of_language("en", MARKS)
    del rules[missing]
    with pytest.raises(KeyError, match=missing):
        RuleSplitter(rules)

"""Compiled patterns in a pickle, as in the tokenizers of GPT-2 and RoBERTa."""

from __future__ import annotations

import copyreg
import importlib
import pickle
from typing import Any

from fastai_deploy.runtime.learner_predictor import patterns_from_text

regex: Any = importlib.import_module("regex")  # which transformers brings


class Written:
    """Pickles like a pattern of the ``regex`` package, but its code does not match its text."""

    def __init__(self, text: str, instructions: str) -> None:
        mine, others = regex.compile(text), regex.compile(instructions)
        pickled: Any = copyreg.dispatch_table[type(mine)]
        (self.compile, held), (_, other) = pickled(mine), pickled(others)
        self.held = (*held[:2], *other[2:])

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.compile, self.held


def read(written: bytes) -> Any:
    return pickle.loads(written)  # noqa: S301 - of this test's own making


def test_the_text_of_a_pattern_counts() -> None:
    written = pickle.dumps(Written(r" ?\p{L}+", r"\d"))
    assert read(written).findall("two 2s") == ["2"]  # as another version might do
    with patterns_from_text():
        found = read(written)
        assert found.findall("two 2s") == ["two", "s"]
        assert regex.compile("[0-9]").findall("two 2s") == ["2"]
    assert read(written).findall("two 2s") == ["2"]

"""Texts to probabilities, through the rebuilt model or its ONNX graph, one at a time.

A learner's ``predict`` gets one text at a time, without padding; so do these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import tokenizers
import torch

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.examine.labels import Activation
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.rebuild.onnx_export import FAILURES
from fastai_deploy.learner.rebuild.transformer import Classifier
from fastai_deploy.learner.text.rules import DROP_TRAILING_NUL, PREFIX_SPACE
from fastai_deploy.learner.text.tokenizer_json import OWN_TOKENIZER, Json
from fastai_deploy.runtime.predictor import feed

Ids = list[int]
Scores = Callable[[Ids], "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]
Rows = list["np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]
BATCH = 8  # texts


class Encoder:
    """Texts to ids: the named steps, then the rebuilt tokenizer, cut to ``max_length`` tokens."""

    def __init__(self, serialized: Json, steps: Iterable[str], max_length: int) -> None:
        """Raises UnsupportedLearner if the tokenizers library cannot read the tokenizer."""
        with _refusals("the tokenizer cannot be rebuilt"):
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(serialized))
            self.vocabulary = _largest_id(tokenizer) + 1
            tokenizer.no_padding()
            tokenizer.enable_truncation(max_length)
        self._tokenizer = tokenizer
        self._steps = tuple(steps)

    def __call__(self, text: str) -> Ids:
        """The ids of a text, including special tokens. Raises UnsupportedLearner."""
        ids: Ids = self._encoding(text).ids
        return ids

    def cuts(self, text: str) -> bool:
        """Whether a text has more tokens than the learner reads."""
        return bool(self._encoding(text).overflowing)

    def _encoding(self, text: str) -> tokenizers.Encoding:
        for step in self._steps:
            text = STEPS[step](text)
        with _refusals(f"the tokenizer fails on a text of {len(text)} characters"):
            return self._tokenizer.encode(text)


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn errors of the tokenizers library, including panics in Rust, into UnsupportedLearner."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UnsupportedLearner(f"{what}: {error}", hint=OWN_TOKENIZER) from error


def _drop_trailing_nul(text: str) -> str:
    return text.rstrip("\0")


def _prefix_space(text: str) -> str:
    return text if not text or text[0].isspace() else " " + text


STEPS: dict[str, Callable[[str], str]] = {
    DROP_TRAILING_NUL: _drop_trailing_nul,
    PREFIX_SPACE: _prefix_space,
}


def _largest_id(tokenizer: tokenizers.Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def torch_scores(classifier: Classifier) -> Scores:
    """Scores from the rebuilt model in torch; raises UnsupportedLearner if it fails."""

    def scores(ids: Ids) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        row = torch.tensor([ids])
        try:
            with torch.no_grad():
                logits = classifier(*classifier.arguments(row, torch.ones_like(row)))
        except FAILURES as error:
            raise UnsupportedLearner(
                f"the rebuilt model fails on a text of {len(ids)} tokens: {error}",
                hint=RUNTIME,
            ) from error
        return np.asarray(logits[0].numpy(), dtype=np.float64)

    return scores


class Session(Protocol):
    """A session of ONNX Runtime, or of OpenVINO with the same ``run``."""

    def run(self, outputs: Sequence[str] | None, feed: Mapping[str, Any]) -> Sequence[Any]:
        """The named outputs, or all."""
        ...


def session_scores(session: Session, inputs: Iterable[str]) -> Scores:
    """Scores from a session."""
    names = tuple(inputs)

    def scores(ids: Ids) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.asarray(session.run(None, feed(names, [ids], 0))[0][0], dtype=np.float64)

    return scores


def batch_scores(
    session: Session, inputs: Iterable[str], pad: int, texts: Sequence[Ids], *, equal_length: bool
) -> Rows:
    """Scores of all texts, in order, in batches of similar length, or of equal length."""
    names = tuple(inputs)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    rows: Rows = [np.empty(0)] * len(texts)
    start = 0
    while start < len(order):
        members = order[start : start + BATCH]
        if equal_length:
            first = len(texts[members[0]])
            members = [member for member in members if len(texts[member]) == first]
        fed = feed(names, [texts[member] for member in members], pad)
        found = np.asarray(session.run(None, fed)[0], dtype=np.float64)
        for row, member in enumerate(members):
            rows[member] = found[row]
        start += len(members)
    return rows


def activated(rows: Rows, activation: Activation) -> list[tuple[float, ...]]:
    """Probabilities for the scores, in label order."""
    return [tuple(_activated(row, activation).tolist()) for row in rows]


def probabilities(
    encoded: Iterable[Ids], scores: Scores, activation: Activation
) -> list[tuple[float, ...]]:
    """The probabilities of every text, in label order, in float64."""
    return activated([scores(ids) for ids in encoded], activation)


def _activated(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]], activation: Activation
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if activation == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())

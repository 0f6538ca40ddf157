"""Does a graph answer as torch does, and does padding change an answer: asked with random ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import torch

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.rebuilding.classifier import OUTPUT, Classifier
from fastai_deploy.learner.verdict import RUNTIME

# float32 rounds after 7 digits, and sums in another order; a wrong graph is off by far more.
AGREEMENT = 1e-4
SHAPES = ((1, 2), (1, 7), (4, 16))  # (batch, sequence); one text of full length comes on top
# Tokens of that text at most: attention takes memory with the square, 0.8 GB in a BERT-base.
LONGEST = 4_096
_MIDDLE = 3  # tokens that a text must have for a padding id to stand in the middle of it

FAILURES = (
    RuntimeError,
    IndexError,
    TypeError,
    ValueError,
    OverflowError,
)  # of a model on ids it cannot take

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
Ids: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"
Session: TypeAlias = Any
"""A session of ONNX Runtime, or what has its ``run``."""


class Checks:
    """Random texts, padded on the right, with torch's answers to them.

    ``vocabulary`` is the number of ids, ``max_length`` the tokens of the longest text, of which at
    most ``LONGEST`` are asked, and ``pad`` the padding id, which also stands in the middle of a
    text.
    """

    def __init__(
        self, classifier: Classifier, *, vocabulary: int, max_length: int, pad: int
    ) -> None:
        self._feeds: list[dict[str, Ids]] = []
        self._answers: list[Array] = []
        for seed, shape in enumerate((*SHAPES, (1, min(max_length, LONGEST)))):
            ids, mask = _texts(shape, vocabulary, pad, seed)
            try:
                self._answers.append(_answer(classifier, ids, mask))
            except FAILURES as error:
                if shape == SHAPES[0]:  # a text of two tokens, which some models cannot pool
                    continue
                raise _failed(shape, error) from error
            arguments = classifier.arguments(torch.from_numpy(ids), torch.from_numpy(mask))
            self._feeds.append(
                dict(zip(classifier.inputs, (each.numpy() for each in arguments), strict=True))
            )

    def difference(self, graph: Path) -> float:
        """Of ONNX Runtime's answers; infinite where it cannot use the graph."""
        try:
            return self.difference_of(open_graph(graph))
        except Exception:  # noqa: BLE001 - its errors have no common base
            return float("inf")

    def difference_of(self, session: Session) -> float:
        """The largest |Δlogit|, relative to the largest logit where that is above 1."""
        answers = [session.run([OUTPUT], feed)[0] for feed in self._feeds]
        return max(
            relative_difference(ours, theirs)
            for ours, theirs in zip(answers, self._answers, strict=True)
        )


def masks_padding(classifier: Classifier, *, vocabulary: int, pad: int) -> bool:
    """Whether a text is answered the same alone as padded on the right beside longer ones.

    It is not where a model takes its answer from the last place (XLNet), mixes all of them
    (convolutions, pooling), or was trained without a mask.
    """
    ids, mask = _texts(SHAPES[-1], vocabulary, pad, seed=len(SHAPES))
    try:
        together = _answer(classifier, ids, mask)
        alone = [
            _answer(classifier, row[None, :length], kept[None, :length])[0]
            for row, kept, length in zip(ids, mask, mask.sum(axis=1), strict=True)
        ]
    except FAILURES:
        return False
    return relative_difference(together, np.stack(alone)) <= AGREEMENT


def _answer(classifier: Classifier, ids: Ids, mask: Ids) -> Array:
    arguments = classifier.arguments(torch.from_numpy(ids), torch.from_numpy(mask))
    with torch.no_grad():
        return np.asarray(classifier(*arguments).numpy())


def relative_difference(ours: Array, theirs: Array) -> float:
    """The largest difference, relative to the largest number where that is above 1."""
    return float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))


def _failed(shape: tuple[int, int], error: Exception) -> UnsupportedLearner:
    return UnsupportedLearner(
        f"the rebuilt model fails on {shape[0]} texts of {shape[1]} tokens: {error}", hint=RUNTIME
    )


def open_graph(graph: Path) -> onnxruntime.InferenceSession:
    """A session on the processor, which writes nothing to the terminal."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised as well
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _texts(shape: tuple[int, int], vocabulary: int, pad: int, seed: int) -> tuple[Ids, Ids]:
    """Ids and mask of texts of falling lengths."""
    batch, sequence = shape
    ids = np.random.default_rng(seed).integers(0, vocabulary, shape)
    mask = np.ones(shape, dtype=np.int64)
    for row in range(1, batch):
        mask[row, -row:] = 0
    ids[mask == 0] = pad
    if sequence >= _MIDDLE:
        ids[0, sequence // 2] = pad
    return ids, mask

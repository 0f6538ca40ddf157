"""Does a graph answer as torch does, on ids of every shape that serving will use."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
import torch

from fastai_deploy.learner.rebuilding.classifier import OUTPUT, Classifier

# float32 rounds after 7 digits, and sums in another order; a wrong graph is off by far more.
AGREEMENT = 1e-4
SHAPES = ((1, 2), (1, 7), (4, 16))  # (batch, sequence); one text of full length comes on top
_MIDDLE = 3  # tokens that a text must have for a padding id to stand in the middle of it

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
Ids: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"


class Checks:
    """Random texts, padded on the right, with torch's answers to them.

    ``vocabulary`` is the number of ids, ``max_length`` the tokens of the longest text, and ``pad``
    the padding id, which also stands in the middle of a text.
    """

    def __init__(
        self, classifier: Classifier, *, vocabulary: int, max_length: int, pad: int
    ) -> None:
        self._feeds: list[dict[str, Ids]] = []
        self._answers: list[Array] = []
        for seed, shape in enumerate((*SHAPES, (1, max_length))):
            ids, mask = _texts(shape, vocabulary, pad, seed)
            arguments = classifier.arguments(torch.from_numpy(ids), torch.from_numpy(mask))
            with torch.no_grad():
                self._answers.append(classifier(*arguments).numpy())
            self._feeds.append(
                dict(zip(classifier.inputs, (each.numpy() for each in arguments), strict=True))
            )

    def difference(self, graph: Path) -> float:
        """The largest |Δlogit|, relative to the largest logit where that is above 1."""
        try:
            session = open_graph(graph)
            answers = [session.run([OUTPUT], feed)[0] for feed in self._feeds]
        except Exception:  # noqa: BLE001 - its errors have no common base; the graph is unusable
            return float("inf")
        return max(
            float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))
            for ours, theirs in zip(answers, self._answers, strict=True)
        )


def open_graph(graph: Path) -> onnxruntime.InferenceSession:
    """A session on the processor, without warnings about the graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
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

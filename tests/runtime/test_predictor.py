from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastai_deploy.runtime.bundle import open_bundle
from fastai_deploy.runtime.contract import Outcome, Prediction, RequestError
from fastai_deploy.runtime.golden_check import Predicting
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.learner_predictor import LearnerPredictor
from fastai_deploy.runtime.loading import load
from fastai_deploy.runtime.predictor import Predictor
from fastai_deploy.runtime.request_queue import Limits
from fastai_deploy.runtime.tokenizer import Encoded, Encoder, TokenizerFailed
from tests.runtime.bundles import (
    GOLDEN_TEXTS,
    LABELS,
    PANIC,
    WORDS,
    TinyBundle,
    byte_level,
    panicking,
    wordpiece,
    write_bundle,
)

Integers = npt.NDArray[np.int64]
TEXTS = [" ".join(WORDS[start : start + 1 + start % 37]) for start in range(60)] + list(
    GOLDEN_TEXTS
)
NOISE = 1e-6


class FakeSession:
    """A session whose logits are the first three ids, or NaN for id 7; it fails on id 8."""

    def __init__(self) -> None:
        self.fed: list[Mapping[str, Integers]] = []

    def run(self, _outputs: Sequence[str], feed: Mapping[str, Integers]) -> list[Any]:
        self.fed.append(feed)
        if (feed["input_ids"] == 8).any():
            raise RuntimeError("indices element out of data bounds")
        logits = feed["input_ids"][:, :3].astype(np.float32)
        logits[(feed["input_ids"] == 7).any(axis=1)] = np.nan
        return [logits]


def predictor_over(folder: Path, session: FakeSession, limits: Limits | None = None) -> Predictor:
    bundle = open_bundle(folder)
    return Predictor(bundle, Encoder(bundle), session, limits or Limits())


def loaded(tiny: TinyBundle) -> Predicting:
    return load(tiny.folder, Hardware(cores=1, memory=None), 1).predictor


def probabilities(outcome: Outcome) -> dict[str, float]:
    assert isinstance(outcome, Prediction)
    return dict(outcome.probabilities)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("equal_length", [False, True])
@pytest.mark.parametrize("tokenizer", [wordpiece(), byte_level()])
def test_answers_are_right_alone_and_in_batches(
    tmp_path: Path, *, multi_label: bool, equal_length: bool, tokenizer: Any
) -> None:
    tiny = write_bundle(
        tmp_path / "bundle",
        tokenizer=tokenizer,
        multi_label=multi_label,
        equal_length=equal_length,
    )
    predictor = loaded(tiny)
    together = predictor.predict(TEXTS)
    for text, outcome in zip(TEXTS, together, strict=True):
        expected = pytest.approx(tiny.expected(text), abs=NOISE)
        assert probabilities(outcome) == expected
        assert probabilities(predictor.predict([text])[0]) == expected
        assert list(probabilities(outcome)) == list(LABELS)


def test_truncation_is_reported(tmp_path: Path) -> None:
    predictor = loaded(write_bundle(tmp_path / "bundle"))
    short, long = predictor.predict(["the", "the " * 100_000])
    assert isinstance(short, Prediction)
    assert isinstance(long, Prediction)
    assert (short.truncated, long.truncated) == (False, True)


def test_no_texts(tmp_path: Path) -> None:
    assert loaded(write_bundle(tmp_path / "bundle")).predict([]) == []


def test_texts_are_padded_to_the_longest_of_their_own_run(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    session = FakeSession()
    predictor = predictor_over(tmp_path / "bundle", session)
    texts = [Encoded([4] * length, truncated=False) for length in (3, 30, 4, 30)]
    predictor.predict_encoded(texts)
    shapes = sorted(feed["input_ids"].shape for feed in session.fed)
    assert shapes == [(2, 4), (2, 30)]
    short = next(feed for feed in session.fed if feed["input_ids"].shape == (2, 4))
    assert short["input_ids"].tolist() == [[4, 4, 4, 1], [4, 4, 4, 4]]
    assert short["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_token_types_are_zeros(tmp_path: Path) -> None:
    tiny = write_bundle(tmp_path / "bundle")
    model = json.loads((tiny.folder / "manifest.json").read_text())["model"]
    tiny.edit_manifest(model={**model, "inputs": [*model["inputs"], "token_type_ids"]})
    session = FakeSession()
    predictor_over(tiny.folder, session).run([Encoded([4, 5, 6], truncated=False)])
    assert session.fed[0]["token_type_ids"].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("bad", [7, 8])
def test_a_text_that_the_model_cannot_take_fails_alone(tmp_path: Path, bad: int) -> None:
    write_bundle(tmp_path / "bundle")
    predictor = predictor_over(tmp_path / "bundle", FakeSession())
    good = Encoded([4, 5, 6], truncated=False)
    first, failed, last = predictor.run([good, Encoded([bad, 5, 6], truncated=False), good])
    assert isinstance(failed, RequestError)
    assert failed.status == 500
    assert probabilities(first) == probabilities(last)
    assert sum(probabilities(first).values()) == pytest.approx(1)


def test_the_reason_is_kept_for_the_log_and_not_for_the_client(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    predictor = predictor_over(tmp_path / "bundle", FakeSession())
    (failed,) = predictor.run([Encoded([8, 5, 6], truncated=False)])
    assert isinstance(failed, RequestError)
    assert "out of data bounds" in str(failed.__cause__)
    assert "out of data bounds" not in str(failed.body())


@pytest.mark.parametrize("multi_label", [False, True])
def test_huge_logits_do_not_overflow(tmp_path: Path, *, multi_label: bool) -> None:
    write_bundle(tmp_path / "bundle", multi_label=multi_label)
    predictor = predictor_over(tmp_path / "bundle", FakeSession())
    (outcome,) = predictor.run([Encoded([2_000_000_000, 0, -2_000_000_000], truncated=False)])
    middle = 0.5 if multi_label else 0.0
    assert list(probabilities(outcome).values()) == [1.0, middle, 0.0]


def test_a_text_without_tokens_is_an_error_in_its_place(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.post_processor = None  # adds no special tokens to an empty text
    tiny = write_bundle(tmp_path / "bundle", tokenizer=tokenizer, goldens=["the"])
    good, empty, other = loaded(tiny).predict(["a great film", " ", "no"])
    assert isinstance(empty, RequestError)
    assert empty.status == 422
    assert probabilities(good) == pytest.approx(tiny.expected("a great film"), abs=NOISE)
    assert probabilities(other) == pytest.approx(tiny.expected("no"), abs=NOISE)


def test_many_threads_get_their_own_answers(tmp_path: Path) -> None:
    tiny = write_bundle(tmp_path / "bundle")
    predictor = loaded(tiny)
    texts = TEXTS * 8
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda text: predictor.predict([text])[0], texts))
    for text, outcome in zip(texts, outcomes, strict=True):
        assert probabilities(outcome) == pytest.approx(tiny.expected(text), abs=NOISE)


def test_a_text_on_which_the_tokenizer_panics_fails_alone(tmp_path: Path) -> None:
    tiny = write_bundle(tmp_path / "bundle", tokenizer=panicking())
    good, bad, last = loaded(tiny).predict(["a great film", PANIC, "no"])
    assert isinstance(good, Prediction)
    assert isinstance(last, Prediction)
    assert isinstance(bad, RequestError)
    assert (bad.status, bad.code) == (500, "model_error")
    assert isinstance(bad.__cause__, TokenizerFailed)


def test_a_learner_whose_tokenizer_panics_fails_on_that_text_alone(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "bundle").folder)
    tokenizer = panicking()

    def ask(text: str) -> list[float]:
        tokenizer.encode(text)
        return [0.2, 0.3, 0.5]

    good, bad = LearnerPredictor(bundle, ask).predict(["no", PANIC])
    assert isinstance(good, Prediction)
    assert isinstance(bad, RequestError)
    assert bad.code == "model_error"

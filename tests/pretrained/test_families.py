"""Folders of every architecture answer as transformers' own pipeline does.

One process with the pipeline answers for all of them (``survey.py``). Here the rebuilt model is
compared in torch, for every architecture; some are converted completely. ``make
test-architectures`` converts them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.pretrained.pipeline import Asked, with_tokenizer
from fastai_deploy.learner.rebuild.pretrained import rebuild_pretrained
from fastai_deploy.runtime.parity import compare
from tests.learner.survey import read_outcomes
from tests.pretrained import survey

# Of a plain encoder, token types (XLNet), an encoder with a decoder, experts that are stored one by
# one, a decoder, tied weights, and shared layers.
CONVERTED = ("albert", "bart", "bert", "deberta_v2", "gpt2", "mixtral", "t5", "xlnet")
# Answered by the pipeline, and refused later: ONNX cannot hold them (docs/learners.md).
UNANSWERED = {"tapas": "fails on every text"}
# Models that answer every text alike, whose equality proves little: transformers computes MRA's
# attention on a GPU only, and takes zeros for it elsewhere.
FLAT = ["mra"]
ROUNDING = 2e-5  # MobileBERT's layers have no norm to dampen it

Found = dict[str, tuple[Anatomy, Asked]]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def found(scratch: Path) -> Iterator[Found]:
    with survey.asked(survey.names(), scratch) as answers:
        yield answers


@pytest.mark.parametrize("name", [each for each in survey.names() if each not in UNANSWERED])
def test_the_rebuilt_model_answers_as_the_pipeline(name: str, found: Found) -> None:
    anatomy, asked = found[name]
    cases = [case for case in survey.cases(anatomy, asked) if not case.error]
    assert len(cases) >= len(survey.TEXTS)
    expected = [case.probabilities or () for case in cases]
    rebuilt = rebuild_pretrained(with_tokenizer(anatomy, asked))
    texts = [case.text for case in cases]
    report = compare(texts, expected, rebuilt.answer(texts), threshold=None)
    assert report.changed == 0
    assert report.max_difference <= ROUNDING


def test_all_other_models_tell_texts_apart(found: Found) -> None:
    flat = []
    for name in found.keys() - UNANSWERED.keys():
        anatomy, asked = found[name]
        cases = [case for case in survey.cases(anatomy, asked) if not case.error]
        columns = zip(*(case.probabilities or () for case in cases), strict=True)
        if all(max(column) - min(column) <= 0.01 for column in columns):
            flat.append(name)
    assert flat == FLAT


@pytest.mark.parametrize("name", CONVERTED)
def test_a_folder_is_proven(name: str, found: Found, scratch: Path) -> None:
    row = survey.outcome(scratch / name, *found[name], scratch / f"{name}-bundle")
    assert row.outcome == "proven", row.reason
    assert row.difference is not None
    assert row.difference <= 1e-4


@pytest.mark.parametrize("name", UNANSWERED)
def test_a_pipeline_that_fails_is_refused(name: str, found: Found, scratch: Path) -> None:
    row = survey.outcome(scratch / name, *found[name], scratch / f"{name}-bundle")
    assert row.outcome == "refused"
    assert UNANSWERED[name] in row.reason


def test_every_architecture_proven_for_learners_is_proven_for_folders() -> None:
    learners = {name for name, row in read_outcomes().items() if row["outcome"] == "proven"}
    rows = survey.read_outcomes()
    refused = {name for name, row in rows.items() if row.outcome == "refused"}
    assert rows.keys() == set(survey.names())
    assert not refused & learners


def test_the_page_has_the_outcomes() -> None:
    page = survey.PAGE.read_text(encoding="utf-8")
    assert survey.listed(survey.read_outcomes()) in page

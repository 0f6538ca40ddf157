"""Learners of every architecture and wrapper answer as they did, or are refused with the reason.

The quick part of what ``make test-architectures`` does with all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fastai_deploy.goldens import Case
from fastai_deploy.learner.anatomy import examine
from fastai_deploy.learner.reading.archive import open_archive
from fastai_deploy.learner.rebuilding.rebuilt import rebuild_learner
from fastai_deploy.parity import compare
from tests.learner.made import HALF_TOLERANCE, MADE, answered, document, names, outcome

CONVERTED = ("albert", "deberta_v2", "mobilebert", "xlm_roberta", "xlnet")
REFUSED = {
    "bart": "an encoder with a decoder",
    "fnet": "cannot be exported to ONNX",
    "funnel": "answers differently from torch on texts of other lengths",
    "regression": "predicts numbers",
    "wrapper_softened": "changes the scores with tanh()",
    "xlm": "the vocabulary of its tokenizer (XLMTokenizer) is not in the file",
}
UNMASKED = {"wrapper_bare", "wrapper_unmasked"}


@pytest.mark.parametrize("name", CONVERTED)
def test_an_architecture_is_proven(name: str, tmp_path: Path) -> None:
    found = outcome(name, tmp_path)
    assert (found.outcome, found.answers) == ("proven", 28)
    assert found.torch is not None
    assert found.torch <= 1e-5
    assert found.onnx is not None
    assert found.onnx <= 1e-4
    # XLNet scores a text by what stands last, so that padding would change its answer.
    assert found.padding == ("equal-length" if name == "xlnet" else "mask")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_is_refused(name: str, tmp_path: Path) -> None:
    found = outcome(name, tmp_path)
    assert found.outcome == "refused"
    assert REFUSED[name] in found.reason


@pytest.mark.parametrize("name", [each for each in names() if each not in REFUSED])
def test_the_rebuilt_model_answers_as_the_learner_did(name: str) -> None:
    meta, expected = document(name)["meta"], answered(name)
    assert len(expected) >= 28
    cases = [Case(text, answer, None, 1) for text, answer in expected]
    with open_archive(MADE / f"{name}.pkl") as (source, archive):
        anatomy = examine(archive, source.size)
        rebuilt = rebuild_learner(anatomy, cases)
        report = compare(
            [case.text for case in cases],
            [answer for _, answer in expected],
            rebuilt.answer(text for text, _ in expected),
            threshold=anatomy.threshold,
        )
    assert list(anatomy.labels.names) == meta["labels"]
    assert report.changed == 0
    assert report.max_difference <= (HALF_TOLERANCE if name == "half" else 1e-5)
    assert rebuilt.mask_known
    assert rebuilt.classifier.inputs == (
        ("input_ids", "attention_mask") if name in UNMASKED else ("input_ids",)
    )


@pytest.mark.parametrize("name", [each for each in names() if each != "regression"])
def test_the_goldens_tell_texts_apart(name: str) -> None:
    """A model that answers every text alike would prove nothing."""
    columns = zip(*(answer for _, answer in answered(name)), strict=True)
    assert max(max(column) - min(column) for column in columns) > 0.2

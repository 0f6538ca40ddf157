"""What the learner's own answers prove, and what they leave unproven."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fastai_deploy.errors import UnprovenLearner
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.examine.unproven import Unproven
from fastai_deploy.learner.proof import Proof
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.parity.goldens import Case
from tests.learner.files import CONVERTIBLE, learner

V2 = CONVERTIBLE[4]
DECODES = Unproven("the decodes() of __main__.Own", "it calls argmin()", part="label")
NAMED = Case("a film", (0.1, 0.2, 0.7), None, 1, predicted=("positive",))
UNNAMED = replace(NAMED, predicted=None)


def proof(*, waived: bool = False, raw: bool = False) -> Proof:
    with open_archive(learner(V2)) as (source, archive):
        found = examine(archive, source.size)
    loss = replace(found.loss, raw=raw)
    return Proof(replace(found, loss=loss, unproven=(DECODES,)), Path("x.pkl"), waived=waived)


def test_probabilities_do_not_prove_how_a_label_is_chosen() -> None:
    with pytest.raises(UnprovenLearner, match="decodes") as caught:
        proof().left([UNNAMED], lambda _text: False, 512)
    assert "no golden has the label that the learner" in caught.value.message
    assert '"predicted": str(label)' in caught.value.hint
    assert proof().left([UNNAMED, NAMED], lambda _text: False, 512) == ()
    (left,) = proof(waived=True).left([UNNAMED], lambda _text: False, 512)
    assert left.subject == DECODES.subject


def test_a_learner_of_raw_scores_names_no_label_that_could_prove_it() -> None:
    assert proof(raw=True).left([UNNAMED], lambda _text: False, 512) == ()

"""Real learners with one thing broken, through the real command: rejected with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.reading.graph import Call, Mapping, Sequence, walk
from fastai_deploy.learner.reading.tensors import Storage
from tests.conftest import LEARNERS, Fdeploy
from tests.learner.assemble import assemble, torch_zip
from tests.learner.files import CONVERTIBLE, CUSTOM_HEAD, learner
from tests.learner.test_anatomy import no_labels, relabel, set_attribute
from tests.learner.test_convert import grow_vocabulary, nan, rewritten

DISTILBERT, V2 = CONVERTIBLE[2], CONVERTIBLE[5]


def without_model(root: Any) -> None:
    if isinstance(root, Mapping):
        root.pairs[:] = [(k, None if k == "model" else v) for k, v in root.pairs]
    else:
        assert isinstance(root, Call)
        set_attribute(root, "model", None)


BROKEN: dict[str, tuple[str, Callable[[Any], None], str, str]] = {
    "no model (1)": (DISTILBERT, without_model, "not-a-learner", "has no model"),
    "no model (2)": (V2, without_model, "not-a-learner", "has no model"),
    "no labels": (DISTILBERT, no_labels, "unsupported-learner", "no labels"),
    "more labels than outputs": (
        DISTILBERT, relabel("a", "b", "c"), "unsupported-learner", "2 outputs, but it has 3 labels",
    ),
    "a vocabulary larger than the embedding": (
        DISTILBERT, grow_vocabulary, "unsupported-learner", "481 tokens, but the model knows 480",
    ),
}  # fmt: skip


def refused(fdeploy: Fdeploy, code: str, message: str) -> None:
    outcome = fdeploy("export", "learner.pkl", "--json")
    assert outcome.status == 5, outcome.stderr
    assert outcome.error["code"] == code
    assert message in outcome.error["message"]
    assert outcome.error["hint"]
    assert not (fdeploy.folder / ".fdeploy/dev/bundle").exists()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(fdeploy: Fdeploy, name: str, deep_recursion: None) -> None:
    del deep_recursion
    source, change, code, message = BROKEN[name]
    rewritten(source, fdeploy.folder / "learner.pkl", change)
    refused(fdeploy, code, message)


def test_weights_that_are_not_numbers(fdeploy: Fdeploy, deep_recursion: None) -> None:
    del deep_recursion
    rewritten(DISTILBERT, fdeploy.folder / "learner.pkl", storage=nan)
    refused(fdeploy, "unsupported-learner", "contains NaN or infinite numbers")


def test_two_learners_in_one_file(fdeploy: Fdeploy, deep_recursion: None) -> None:
    del deep_recursion
    with open_archive(learner(DISTILBERT)) as (_, archive):
        root = archive.pickled.root
        held = {
            value.key: value.data.read(0, value.data.size)
            for value in walk(root)
            if isinstance(value, Storage) and value.data is not None
        }
        both = Sequence("list", [root, Mapping(list(root.pairs))])  # type: ignore[attr-defined] # of fastai 1
        (fdeploy.folder / "learner.pkl").write_bytes(torch_zip(assemble(both), held))
    refused(fdeploy, "not-a-learner", "a collection of learners; export each to its own file")


@pytest.mark.parametrize("names", [CONVERTIBLE[:2], CONVERTIBLE[4:], CONVERTIBLE[:5:4]])
def test_two_files_in_one(fdeploy: Fdeploy, names: tuple[str, str]) -> None:
    """A file made by ``cat a.pkl b.pkl``: fdeploy does not guess which learner is meant."""
    first, second = (LEARNERS / f"{name}.pkl" for name in names)
    (fdeploy.folder / "learner.pkl").write_bytes(first.read_bytes() + second.read_bytes())
    outcome = fdeploy("export", "learner.pkl", "--json")
    assert outcome.status == 5, outcome.stderr
    assert outcome.error["code"] in {"not-a-learner", "learner-truncated"}


CHANGES = """
import pathlib

import torch
from torch import nn

pad_idx = 1
with pathlib.Path("learner.pkl").open("r+b") as file:  # while it is being exported
    file.seek(-9, 2)
    file.write(bytes(1))


class MeanPoolClassifier(nn.Module):
    def forward(self, input_ids):
        mask = (input_ids != pad_idx).type(input_ids.type())
        h = self.encoder(input_ids, attention_mask=mask)[0]
        m = mask.unsqueeze(-1).type_as(h)
        return self.out(self.drop((h * m).sum(1) / m.sum(1)))
"""


def test_a_file_that_changes_while_it_is_read(fdeploy: Fdeploy) -> None:
    shutil.copyfile(LEARNERS / f"{CUSTOM_HEAD}.pkl", fdeploy.folder / "learner.pkl")
    Path(fdeploy.folder / "model_def.py").write_text(CHANGES, encoding="utf-8")
    options = ("--definitions", "model_def.py", "--unproven", "--json")
    outcome = fdeploy("export", "learner.pkl", *options)
    assert outcome.status == 5, outcome.stderr
    assert "changed while fdeploy was reading it" in outcome.error["message"]
    assert not (fdeploy.folder / ".fdeploy/dev/bundle").exists()

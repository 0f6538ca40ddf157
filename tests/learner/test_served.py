"""The serving code answers a converted learner's goldens as the converter did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.bundle import read_bundle
from fastai_deploy.learner.convert import convert
from fastai_deploy.progress import silent
from fastai_deploy.runtime.bundle import open_bundle
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from fastai_deploy.runtime.tokenizer import Encoder
from tests.learner.assemble import mapping
from tests.learner.files import CONVERTIBLE, learner
from tests.learner.test_anatomy import objects, set_attribute
from tests.learner.test_convert import rewritten

ROBERTA = CONVERTIBLE[0]


@pytest.mark.parametrize("era", ["padding_side", "unique_added_tokens_encoder", "tokens_trie"])
def test_a_roberta_of_every_era_is_served_as_it_was_converted(
    tmp_path: Path, era: str, deep_recursion: None
) -> None:
    del deep_recursion

    def change(root: Any) -> None:
        for tokenizer in objects(root, "RobertaTokenizer"):
            set_attribute(tokenizer, era, mapping({}))

    file = rewritten(ROBERTA, tmp_path / "learner.pkl", change)
    texts = ["a fine film", " led by a space", "\nled by a line", "</s>good", "end  ", "\0"]
    golden = tmp_path / "golden.jsonl"
    golden.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    bundle = convert(file, tmp_path / "bundle", golden=golden, tolerance=1e-4, name="x",
                     report=silent, unproven=True)  # fmt: skip
    steps = read_bundle(bundle.path)[0].text.steps
    assert ("prefix-space" in steps) == (era != "padding_side")
    served = load(bundle.path, Hardware(cores=1, memory=None), 1)
    assert served.goldens == len(texts)
    assert served.deviation < 1e-6
    encode = Encoder(open_bundle(bundle.path))
    assert encode.encode("film").ids == encode.encode(" film").ids
    # Up to 2.3, white space around a text was ignored.
    alike = encode.encode("\nfilm").ids == encode.encode("film").ids
    assert alike == (era == "padding_side")


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_every_kind_of_learner_is_served(tmp_path: Path, name: str) -> None:
    bundle = convert(learner(name), tmp_path / "bundle", golden=None, tolerance=1e-4, name="x",
                     report=silent, unproven=True)  # fmt: skip
    assert load(bundle.path, Hardware(cores=1, memory=None), 1).deviation < 1e-6

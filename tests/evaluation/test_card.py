"""The model card: readable by the Hub's own library, and nothing invented."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from fastai_deploy.bundle import building, read_bundle
from fastai_deploy.errors import FileError
from fastai_deploy.evaluation.card import Evaluated, Known, known, read_card, render, write_card
from fastai_deploy.evaluation.result import files_of
from tests.packaged import write_model
from tests.runtime.bundles import TinyBundle

EVALUATED = Evaluated(
    "reviews.csv", 120, {"accuracy": (0.8833, "0.814 to 0.929"), "f1": (0.87, "unknown")}
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return write_model(tmp_path_factory.mktemp("card"), "bundle").bundle


@pytest.fixture(scope="module")
def tiny(bundle: TinyBundle) -> Known:
    return known(bundle.folder)


def test_the_hubs_library_reads_the_metadata(tiny: Known) -> None:
    card = ModelCard(render(replace(tiny, evaluated=EVALUATED)))
    data: Any = card.data
    assert data.pipeline_tag == "text-classification"
    assert data.license == "unknown"
    assert {"fastai", "text-classification"} <= set(data.tags)
    assert data.model_name == "tiny"
    assert [(each.metric_type, each.metric_value) for each in data.eval_results] == [
        ("accuracy", 0.8833),
        ("f1", 0.87),
    ]
    assert data.eval_results[0].dataset_name == "reviews.csv"
    assert "## Limits" in card.text


def test_what_is_unknown_is_unknown(tiny: Known) -> None:
    shown = render(tiny)
    data: Any = ModelCard(shown).data
    assert data.eval_results is None
    assert "| languages | unknown |" in shown
    for section in ("Intended use", "Training data", "Evaluation", "Bias and risks"):
        assert f"## {section}\n\nUnknown: " in shown
    assert "at most 32 tokens" in shown
    assert "not checked with the learner's own answers" in shown
    assert render(tiny) == shown


def test_a_model_without_fastai_is_not_said_to_be_of_it(tiny: Known) -> None:
    provenance = tiny.manifest.provenance
    learner = replace(provenance.learner, file="my-model", fastai="")
    made = replace(tiny.manifest, provenance=replace(provenance, learner=learner))
    shown = render(replace(tiny, manifest=made))
    data: Any = ModelCard(shown).data
    assert "fastai" not in data.tags
    assert "made from `my-model` by fdeploy" in shown


def test_hostile_names_stay_names(tiny: Known) -> None:
    hostile = "](javascript:x) <img src=x> `` | \n---\n# big: {x}"
    manifest = replace(
        tiny.manifest, name=hostile, labels=(hostile, "b"), residues=(hostile,), unproven=(hostile,)
    )
    shown = render(replace(tiny, manifest=manifest, evaluated=replace(EVALUATED, file=hostile)))
    card: Any = ModelCard(shown)
    assert card.data.model_name == hostile
    assert card.data.eval_results[0].dataset_name == hostile
    body = card.text
    assert "\n# big" not in body
    assert "\n---\n" not in body
    outside = body.replace("``` " + hostile.replace("\n", "\\n").replace("|", "\\|") + " ```", "")
    assert "<img" not in outside.replace("\\<img", "")


def test_several_labels_are_an_exact_match(tmp_path: Path) -> None:
    bundle = write_model(tmp_path, "several", multi_label=True).bundle
    evaluated = replace(EVALUATED, metrics={"exact_match": (0.5, "x"), "f1": (0.6, "y")})
    shown = render(replace(known(bundle.folder), evaluated=evaluated))
    assert "every label whose probability is above 0.5" in shown
    assert "| exact match | 0.500 | x |" in shown
    assert "| micro F1 | 0.600 | y |" in shown
    assert "multi-label-classification" in shown


def test_an_evaluation_of_another_bundle_is_not_stated(bundle: TinyBundle) -> None:
    data, _ = files_of(bundle.folder)
    contents: list[Any] = [
        {},
        [],
        {"judged": "served", "columns": [{"name": "served", "version": "x"}]},
    ]
    for content in contents:
        data.write_text(json.dumps(content))
        assert known(bundle.folder).evaluated is None
    data.unlink()


def test_a_card_is_no_part_of_the_bundle(tmp_path: Path) -> None:
    bundle = write_model(tmp_path, "bundle").bundle
    before = read_bundle(bundle.folder)
    path = write_card(bundle.folder)
    assert read_bundle(bundle.folder) == before
    assert path.name not in before[0].files
    path.write_text("mine")
    assert read_card(bundle.folder).card == "mine"
    path.unlink()
    assert read_card(bundle.folder).card == render(known(bundle.folder))
    with building(bundle.folder) as new:  # a bundle with a card may be replaced
        (new / "manifest.json").write_bytes((bundle.folder / "manifest.json").read_bytes())
    (bundle.folder / "mine.txt").touch()
    with pytest.raises(FileError, match=r"mine\.txt"), building(bundle.folder):
        pass

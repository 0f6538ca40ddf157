from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.runtime.bundle import ModelError, open_bundle, read_goldens
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from tests.runtime.bundles import GOLDEN_TEXTS, LABELS, MAX_LENGTH, TinyBundle, write_bundle

TWO_CORES = Hardware(cores=2, memory=1 << 40)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBundle:
    return write_bundle(tmp_path / "bundle")


def refusal(tiny: TinyBundle) -> str:
    with pytest.raises(ModelError) as caught:
        load(tiny.folder, TWO_CORES, 1)
    return str(caught.value)


def test_what_the_manifest_says(tiny: TinyBundle) -> None:
    bundle = open_bundle(tiny.folder)
    assert (bundle.name, bundle.labels, bundle.threshold) == ("tiny", LABELS, None)
    assert (bundle.max_length, bundle.equal_length, bundle.pad_token_id) == (MAX_LENGTH, False, 1)
    manifest = (tiny.folder / "manifest.json").read_bytes()
    assert bundle.version == hashlib.sha256(manifest).hexdigest()[:12]
    assert open_bundle(tiny.folder, "3f2a9c01b7de").version == "3f2a9c01b7de"
    assert [golden.text for golden in read_goldens(bundle)] == list(GOLDEN_TEXTS)


def test_a_sound_bundle_proves_itself(tiny: TinyBundle) -> None:
    loaded = load(tiny.folder, TWO_CORES, 1)
    assert loaded.goldens == len(GOLDEN_TEXTS)
    assert loaded.deviation < 1e-6
    assert loaded.tokens_per_second > 0


def test_runs_share_the_cores_where_there_are_several(tiny: TinyBundle) -> None:
    assert load(tiny.folder, TWO_CORES, 2, most_runs=2).runs == 2
    assert load(tiny.folder, TWO_CORES, 1, most_runs=2).runs == 1
    assert load(tiny.folder, TWO_CORES, 2).runs == 1


def test_two_sessions_share_the_goldens(tiny: TinyBundle) -> None:
    assert load(tiny.folder, TWO_CORES, 2, most_runs=2).goldens == len(GOLDEN_TEXTS)


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_answers_of_both_sessions_are_checked(tiny: TinyBundle, wrong: int) -> None:
    goldens = [tiny.golden(text) for text in GOLDEN_TEXTS[:2]]
    goldens[wrong]["probabilities"] = {"negative": 1.0, "neutral": 0.0, "positive": 0.0}
    tiny.write_goldens(goldens)
    with pytest.raises(ModelError, match="1 of 2 goldens are not reproduced"):
        load(tiny.folder, TWO_CORES, 2, most_runs=2)


def test_a_model_is_not_in_memory_twice_where_it_would_not_fit(tiny: TinyBundle) -> None:
    twice = 2 * open_bundle(tiny.folder).model_bytes
    assert load(tiny.folder, Hardware(cores=2, memory=twice), 2, most_runs=2).runs == 1


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.onnx.data", "tokenizer.json", "goldens.json"]
)
def test_a_tampered_file_is_named(tiny: TinyBundle, name: str) -> None:
    with (tiny.folder / name).open("ab") as file:
        file.write(b" ")
    assert f"{name} does not match manifest.json" in refusal(tiny)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "goldens.json", "manifest.json"])
def test_a_missing_file_is_named(tiny: TinyBundle, name: str) -> None:
    (tiny.folder / name).unlink()
    assert f"{name} is missing from the model folder" in refusal(tiny)


def test_an_unlisted_file(tiny: TinyBundle) -> None:
    files = json.loads((tiny.folder / "manifest.json").read_text())["files"]
    del files["tokenizer.json"]
    tiny.edit_manifest(files=files)
    assert "does not list tokenizer.json" in refusal(tiny)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname"])
def test_a_file_outside_the_folder_is_not_even_read(tiny: TinyBundle, name: str) -> None:
    files = json.loads((tiny.folder / "manifest.json").read_text())["files"]
    tiny.edit_manifest(files={**files, name: {"sha256": "0" * 64}})
    assert "outside the model folder" in refusal(tiny)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 4}, "a format that this server does not know"),
        ({"task": "regression"}, "has a task that this server does not know: 'regression'"),
        ({"labels": []}, "no labels"),
        ({"labels": ["a", "a"]}, "duplicate ones"),
        ({"labels": None}, "wrong type"),
        ({"text": {}}, "lacks the key 'steps'"),
        ({"model": "model.onnx"}, "wrong type"),
        ({"tolerance": "small"}, "wrong type"),
        ({"files": []}, "files is not a JSON object"),
        ({"task": "multi-label", "threshold": None}, "wrong type"),
    ],
)
def test_a_manifest_that_cannot_be_served(
    tiny: TinyBundle, changes: dict[str, Any], reason: str
) -> None:
    tiny.edit_manifest(**changes)
    assert reason in refusal(tiny)


def test_a_step_that_a_newer_exporter_wrote(tiny: TinyBundle) -> None:
    tiny.edit_text(steps=["drop-trailing-nul", "fold-dashes"])
    assert "text.steps that this server does not know: 'fold-dashes'" in refusal(tiny)


def test_a_manifest_that_is_not_json(tiny: TinyBundle) -> None:
    (tiny.folder / "manifest.json").write_text("{")
    assert "manifest.json is damaged" in refusal(tiny)


def test_a_graph_that_differs_from_the_manifest(tiny: TinyBundle) -> None:
    model = json.loads((tiny.folder / "manifest.json").read_text())["model"]
    tiny.edit_manifest(model={**model, "inputs": ["input_ids"]})
    assert "the inputs of the graph are" in refusal(tiny)


def test_a_file_that_is_not_a_graph(tiny: TinyBundle) -> None:
    (tiny.folder / "model.onnx").write_bytes(b"not a graph")
    tiny.write_goldens([tiny.golden("the")])
    assert "model.onnx cannot be loaded" in refusal(tiny)


def test_a_file_that_is_not_a_tokenizer(tiny: TinyBundle) -> None:
    (tiny.folder / "tokenizer.json").write_text("{}")
    tiny.write_goldens([tiny.golden("the")])
    assert "tokenizer.json cannot be loaded" in refusal(tiny)


def test_a_model_that_does_not_fit(tiny: TinyBundle) -> None:
    with pytest.raises(ModelError, match="needs about 0 MB of memory, but only 0 MB are available"):
        load(tiny.folder, Hardware(cores=1, memory=100), 1)


def test_the_error_about_a_golden_does_not_quote_the_whole_text(tiny: TinyBundle) -> None:
    wrong = {**tiny.golden("a secret story that nobody may read"), "probabilities": {}}
    wrong["probabilities"] = {**tiny.expected("no"), "positive": 0.9}
    tiny.write_goldens([tiny.golden("the"), wrong, tiny.golden("and")])
    reason = refusal(tiny)
    assert "1 of 3 goldens are not reproduced; the first, 'a secret story tha...'" in reason
    assert "nobody" not in reason


def test_goldens_of_other_labels(tiny: TinyBundle) -> None:
    tiny.write_goldens([{"text": "the", "probabilities": {"positive": 1.0}}])
    assert "is off by inf" in refusal(tiny)


@pytest.mark.parametrize(
    ("goldens", "reason"),
    [
        ([], "holds no goldens"),
        ([{"text": "the"}], "goldens.json is damaged (KeyError)"),
        ([{"text": "the", "probabilities": [1]}], "goldens.json is damaged (AttributeError)"),
        ([{"text": "the", "probabilities": {"a": "b"}}], "goldens.json is damaged (ValueError)"),
    ],
)
def test_goldens_that_cannot_be_read(
    tiny: TinyBundle, goldens: list[dict[str, Any]], reason: str
) -> None:
    tiny.write_goldens(goldens)
    assert reason in refusal(tiny)

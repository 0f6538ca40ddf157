"""Folders of ``save_pretrained`` through the real command, proven by transformers' own pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from fastai_deploy.parity.goldens import PROBES
from tests.conftest import Fdeploy
from tests.pretrained.folders import LABELS, LENGTH, save, tokenizer_of

WEIGHTS = "model.safetensors"


def bundle(fdeploy: Fdeploy) -> Path:
    """The exported bundle."""
    [path] = fdeploy.folder.glob(".fdeploy/*/bundle")
    return path


def held(path: Path) -> Any:
    return json.loads(path.read_bytes())


def pipeline(folder: Path, text: str, limit: int) -> dict[str, float]:
    """What the library answers, in this process."""
    classifier: Any = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    [rows] = classifier([text], top_k=None, truncation=True, max_length=limit)
    return {row["label"]: row["score"] for row in rows}


def test_a_folder_becomes_an_api(fdeploy: Fdeploy, model: Path) -> None:
    found = fdeploy.ok("inspect", "my-model").stdout
    assert "DistilBertForSequenceClassification" in found
    assert "format folder" in found
    assert "fastai" not in found
    outcome = fdeploy.ok("up", "my-model")
    assert "asking transformers' own pipeline, in a process of its own: 24 texts" in outcome.stderr
    assert "26 of the model's own answers reproduced in torch" in outcome.stderr
    text = "A quiet film, and a good one."
    answer = fdeploy.ok("invoke", text, "--json").json
    for label, score in pipeline(model, text, 128).items():
        assert answer["probabilities"][label] == pytest.approx(score, abs=1e-5)

    goldens = held(bundle(fdeploy) / "goldens.json")["goldens"]
    assert {golden["source"] for golden in goldens} == {"learner"}
    assert {golden["text"] for golden in goldens} > {*PROBES, ""}
    manifest = held(bundle(fdeploy) / "manifest.json")
    assert manifest["provenance"]["learner"]["file"] == "my-model"
    assert manifest["provenance"]["learner"]["fastai"] == ""
    assert manifest["text"]["max_length"] == 128
    assert manifest["residues"] == []

    # The bundle is itself a folder that transformers reads.
    for label, score in pipeline(bundle(fdeploy), text, 128).items():
        assert answer["probabilities"][label] == pytest.approx(score, abs=1e-5)

    assert "unchanged" in fdeploy.ok("export").stderr
    (model / "README.md").write_text("no part of the model", encoding="utf-8")
    (model / WEIGHTS).touch()
    assert "unchanged" in fdeploy.ok("export", "my-model").stderr
    config = held(model / "config.json")
    config["id2label"]["0"] = "bad"
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert fdeploy("package", "--json").error["code"] == "record-stale"


def test_several_labels_in_shards(fdeploy: Fdeploy) -> None:
    folder = save("roberta", fdeploy.folder / "tags", problem_type="multi_label_classification")
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    whole.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    fdeploy.ok("export", "tags")
    manifest = held(bundle(fdeploy) / "manifest.json")
    assert (manifest["task"], manifest["threshold"]) == ("multi-label", 0.5)
    golden = held(bundle(fdeploy) / "goldens.json")["goldens"][0]
    expected = pipeline(folder, golden["text"], 128)
    assert golden["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert sum(golden["probabilities"].values()) != pytest.approx(1, abs=1e-3)


def test_a_pickled_model_is_read_and_not_loaded(fdeploy: Fdeploy, model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    torch.save({name: each.half() for name, each in weights.items()}, model / "pytorch_model.bin")
    # A module that torch.load would import, if anything called it.
    fdeploy.ok("export", "my-model")
    manifest = held(bundle(fdeploy) / "manifest.json")
    assert "half precision; the bundle computes in float32" in manifest["residues"][0]
    stored = load_file(bundle(fdeploy) / WEIGHTS)
    assert stored.keys() == weights.keys()
    assert {each.dtype for each in stored.values()} == {torch.float16}


def test_goldens_of_the_user(fdeploy: Fdeploy, model: Path) -> None:
    """Texts without an answer get the pipeline's; an answer that is there has to be right."""
    text = "The soup was cold."
    right = pipeline(model, text, 128)
    golden = fdeploy.folder / "golden.jsonl"
    rows: list[dict[str, Any]] = [
        {"text": text, "probabilities": right},
        {"text": "The soup was warm.", "label": LABELS[0]},
    ]
    golden.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    outcome = fdeploy.ok("export", "my-model", "--golden", "golden.jsonl")
    assert "asking transformers' own pipeline, in a process of its own: 1 text" in outcome.stderr
    assert "proven   by 2 of the model's own answers" in outcome.stdout
    rows[0]["probabilities"] = dict(zip(LABELS, (1.0, 0.0, 0.0), strict=True))
    golden.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    error = fdeploy("export", "my-model", "--golden", "golden.jsonl", "--json").error
    assert error["code"] == "parity"
    assert "leave them out" in error["hint"]


@pytest.mark.parametrize("kind", ["vocab.txt", "merges.txt"])
def test_a_slow_tokenizer(fdeploy: Fdeploy, kind: str) -> None:
    """Files of a tokenizer without tokenizer.json, as transformers before 4 wrote them."""
    name = "distilbert" if kind == "vocab.txt" else "roberta"
    folder = save(name, fdeploy.folder / "old")
    vocabulary = tokenizer_of("wordpiece" if name == "distilbert" else "bpe").get_vocab()
    model = held(folder / "tokenizer.json")["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    if kind == "vocab.txt":
        words = sorted(vocabulary, key=lambda word: int(vocabulary[word]))
        (folder / kind).write_text("\n".join(words) + "\n", encoding="utf-8")
    else:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
        merges = "\n".join(" ".join(pair) for pair in model["merges"])
        (folder / kind).write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    fdeploy.ok("export", "old")
    served = held(bundle(fdeploy) / "tokenizer.json")["model"]["vocab"]
    assert served == vocabulary


@pytest.mark.parametrize(
    ("kind", "more", "limit"),
    [
        ("bert", {}, 32),
        ("llama", {}, LENGTH),
        ("deberta_v2", {"position_biased_input": False, "relative_attention": True}, LENGTH),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0,
                                       "rope_theta": 10_000.0}}, 32),
    ],
)  # fmt: skip
def test_positions_end_a_text_only_if_the_model_has_a_table_of_them(
    fdeploy: Fdeploy, kind: str, more: dict[str, Any], limit: int
) -> None:
    """The tokenizer cuts at 128 tokens, and the configuration says 32 positions."""
    folder = save(kind, fdeploy.folder / "my-model", max_position_embeddings=32, **more)
    record = fdeploy.ok("export", "my-model", "--json").json
    assert held(Path(record["path"]) / "manifest.json")["text"]["max_length"] == limit
    goldens = held(Path(record["path"]) / "goldens.json")["goldens"]
    text = max((golden["text"] for golden in goldens), key=len)
    [golden] = [each for each in goldens if each["text"] == text]
    for label, score in pipeline(folder, text, limit).items():
        assert golden["probabilities"][label] == pytest.approx(score, abs=1e-5)


def test_chunks_of_the_feed_forward_layer_change_no_answer(fdeploy: Fdeploy) -> None:
    save("bert", fdeploy.folder / "my-model", chunk_size_feed_forward=1)
    outcome = fdeploy.ok("export", "my-model")
    assert "26 of the model's own answers reproduced in torch" in outcome.stderr


def test_labels_without_names(fdeploy: Fdeploy) -> None:
    folder = save("distilbert", fdeploy.folder / "plain", id2label=None, label2id=None)
    assert "id2label" not in held(folder / "config.json")
    outcome = fdeploy.ok("inspect", "plain")
    assert "labels     2: LABEL_0, LABEL_1" in outcome.stdout


def test_a_snapshot_in_the_cache_of_the_hub(fdeploy: Fdeploy, model: Path) -> None:
    """There, every file is a link to a blob beside the snapshots."""
    cache = fdeploy.folder / "models--someone--reviews"
    snapshot = cache / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for file in model.iterdir():
        shutil.move(file, cache / "blobs" / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert "verdict    convertible" in fdeploy.ok("inspect", str(snapshot)).stdout
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to("../../../../secret.json")
    (fdeploy.folder.parent / "secret.json").write_text("{}", encoding="utf-8")
    assert fdeploy("inspect", str(snapshot), "--json").error["code"] == "dangerous-learner"


def test_init_finds_a_folder(fdeploy: Fdeploy, model: Path) -> None:
    about = "DistilBertForSequenceClassification, 3 labels, Hugging Face folder"
    assert f"found    {model.name}/: {about}" in fdeploy.ok("init", "--yes").stdout
    assert "verdict    convertible" in fdeploy.ok("inspect").stdout

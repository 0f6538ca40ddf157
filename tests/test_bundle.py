from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.bundle import (
    LearnerSpec,
    Manifest,
    ModelSpec,
    Provenance,
    TextSpec,
    building,
    read_bundle,
    seal,
)
from fastai_deploy.errors import FileDenied, FileError, FileMissing
from fastai_deploy.runtime.bundle import Form
from fastai_deploy.runtime.parity import REDUCED, Rules

MANIFEST = Manifest(
    name="reviews",
    task="single-label",
    labels=("neg", "pos"),
    threshold=None,
    text=TextSpec("transformers", ("drop-trailing-nul",), 512, "mask", 1),
    model=ModelSpec(
        (Form("bf16", "model.onnx", proven=False), Form("fp32", "model.onnx")), ("input_ids",),
        "logits", "RobertaForSequenceClassification", 9,
    ),
    tolerance=1e-4,
    residues=("a blank text",),
    provenance=Provenance(LearnerSpec("a.pkl", "0" * 64, 3, "1"), {"torch": "2"}),
)  # fmt: skip


def build(destination: Path, content: bytes = b"graph") -> Manifest:
    with building(destination) as folder:
        (folder / "model.onnx").write_bytes(content)
        (folder / "goldens.json").write_bytes(b"{}")
        return seal(folder, MANIFEST)


def test_a_bundle_is_read_as_it_was_written(tmp_path: Path) -> None:
    sealed = build(tmp_path / "bundle")
    manifest, version = read_bundle(tmp_path / "bundle")
    assert manifest == sealed
    assert manifest.files["model.onnx"].bytes == 5
    data = (tmp_path / "bundle" / "manifest.json").read_bytes()
    assert version == hashlib.sha256(data).hexdigest()
    assert sorted(os.listdir(tmp_path)) == ["bundle"]


def test_a_form_that_passed_the_gate_must_answer_as_it_did_then(tmp_path: Path) -> None:
    build(tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    document = json.loads(path.read_bytes())
    document["model"]["forms"][0].update(proven=True, difference=0.03)
    path.write_text(json.dumps(document), encoding="utf-8")
    manifest, _ = read_bundle(tmp_path / "bundle")
    assert manifest.rules("bf16") == Rules(most=0.06)
    assert manifest.rules("fp32") == Rules.exact(1e-4)
    assert manifest.rules("fp16") == MANIFEST.rules("bf16") == REDUCED


def test_a_manifest_of_format_2_has_one_form_and_one_tolerance(tmp_path: Path) -> None:
    build(tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    document = json.loads(path.read_bytes())
    del document["gate"], document["model"]["forms"]
    document["model"].update(file="model.onnx", precision="int8")
    path.write_text(json.dumps({**document, "format": 2, "tolerance": 0.04}), encoding="utf-8")
    manifest, _ = read_bundle(tmp_path / "bundle")
    assert manifest.model.forms == (Form("int8", "model.onnx"),)
    assert manifest.rules("int8") == Rules(most=0.04, margin=0.08)
    assert manifest.rules("fp32") == Rules(most=0.04, margin=0.0)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    for name in ("manifest.json", "model.onnx", "goldens.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "a" / "manifest.json").read_text()


def test_an_old_bundle_is_replaced_whole(tmp_path: Path) -> None:
    destination = tmp_path / "deep" / "bundle"
    build(destination)
    (destination / "__pycache__").mkdir()
    build(destination, b"another graph")
    assert sorted(os.listdir(destination)) == ["goldens.json", "manifest.json", "model.onnx"]
    assert (destination / "model.onnx").read_bytes() == b"another graph"
    assert os.listdir(destination.parent) == ["bundle"]


def test_a_folder_that_holds_more_than_a_bundle_is_not_replaced(tmp_path: Path) -> None:
    destination = tmp_path / "results"
    destination.mkdir()
    (destination / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="is not a bundle, so it is not replaced"):
        build(destination)
    (destination / "notes.txt").unlink()
    build(destination)
    (destination / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"contains more than a bundle, .*notes\.txt") as caught:
        build(destination)
    assert "name a new folder" in caught.value.hint
    assert (destination / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["results"]


def test_a_link_in_the_place_of_a_bundle_is_replaced(tmp_path: Path) -> None:
    build(tmp_path / "other")
    (tmp_path / "bundle").symlink_to(tmp_path / "other")
    build(tmp_path / "bundle", b"another graph")
    assert not (tmp_path / "bundle").is_symlink()
    assert (tmp_path / "other" / "model.onnx").read_bytes() == b"graph"


def test_a_failure_leaves_the_old_bundle_and_nothing_else(tmp_path: Path) -> None:
    destination = tmp_path / "bundle"
    build(destination)

    def fail() -> None:
        with building(destination) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == ["bundle"]
    assert (destination / "model.onnx").read_bytes() == b"graph"


def test_remains_of_a_killed_writer_are_repaired(tmp_path: Path) -> None:
    destination = tmp_path / "bundle"
    build(destination)
    # The writer was ended between its two renames, and another one while it was filling.
    destination.rename(tmp_path / ".bundle.old")
    (tmp_path / ".bundle.partial").mkdir()
    (tmp_path / ".bundle.partial" / "half").write_bytes(b"")
    with pytest.raises(RuntimeError), building(destination):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["bundle"]
    assert read_bundle(destination)[0].name == "reviews"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileDenied):
        build(tmp_path / "bundle")
    tmp_path.chmod(0o700)


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError):
        build(tmp_path / "file" / "bundle")


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    build(tmp_path / "bundle")
    (tmp_path / "bundle" / "model.onnx").write_bytes(b"grapf")
    with pytest.raises(FileError, match="SHA-256 differs"):
        read_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / "model.onnx").unlink()
    with pytest.raises(FileMissing):
        read_bundle(tmp_path / "bundle")


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_bundle(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"{")
    with pytest.raises(FileError, match="not JSON"):
        read_bundle(tmp_path)


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return change


def _drop(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another format": (_set("format", to=4), "format: this fdeploy reads formats 1, 2, 3"),
    "no name": (_drop("name"), "name: missing"),
    "no text": (_set("text", to=3), "text: expected an object"),
    "no length": (_drop("text", "max_length"), "text.max_length: missing"),
    "a wrong length": (_set("text", "max_length", to="5"), "text.max_length: expected a non-neg"),
    "a flag for a number": (_set("text", "max_length", to=True), "expected a non-negative integer"),
    "a negative number": (_set("text", "pad_token_id", to=-1), "expected a non-negative integer"),
    "another task": (_set("task", to="regression"), "task: expected one of: single-label, "),
    "another padding": (_set("text", "padding", to="left"), "expected one of: mask, equal-length"),
    "labels that are no texts": (_set("labels", to=[1]), "labels: expected a list of strings"),
    "no labels": (_set("labels", to=[]), "at least one label"),
    "a label twice": (_set("labels", to=["a", "a"]), "no duplicates"),
    "a threshold too many": (_set("threshold", to=0.5), "threshold"),
    "a threshold too few": (_set("task", to="multi-label"), "threshold"),
    "no tolerance": (_set("tolerance", to=0), "tolerance: it must be between"),
    "a wrong tolerance": (_set("tolerance", to="x"), "tolerance: expected a number"),
    "no ids": (_set("model", "inputs", to=["mask"]), "input_ids is missing"),
    "no forms": (_set("model", "forms", to=[]), "model.forms: there must be at least one"),
    "an unknown form": (
        _set("model", "forms", to=[{"precision": "int4", "file": "model.onnx", "proven": True}]),
        r"model.forms\[0\].precision: expected one of: int8, int8-weights, bf16, fp32",
    ),
    "a form without its graph": (
        _set("model", "forms", to=[{"precision": "fp32", "file": "x.onnx", "proven": True}]),
        "x.onnx is missing",
    ),
    "a gate that is no number": (_set("gate", "mean", to="small"), "gate.mean: expected a number"),
    "no graph": (_drop("files", "model.onnx"), "model.onnx is missing"),
    "a file elsewhere": (_set("files", "../x", to={"sha256": "", "bytes": 1}), "valid file name"),
    "a file without hash": (_set("files", "x", to={}), "files.x.sha256: missing"),
    "a list": (lambda document: document.clear(), "format"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest_is_named_by_key(tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    build(tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(FileError, match=message) as caught:
        read_bundle(tmp_path / "bundle")
    assert "fdeploy export" in caught.value.hint


def test_a_manifest_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(FileError, match="expected an object"):
        read_bundle(tmp_path)

"""Bundles and artifacts of format 1, as fdeploy wrote them until 2026-11, still work.

``bundles/format-1`` is what that fdeploy made of ``learners/v2/tiny/albert.pkl``, and
``bundles/format-1.tar.gz`` what it packed. Both go, with this file, when format 1 is read no more.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastai_deploy.bundle import read_bundle
from fastai_deploy.packaging.artifact import read_contents, unpack, write_artifact
from fastai_deploy.runtime.bundle import Form
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from fastai_deploy.runtime.parity import Rules
from tests.runtime.server_process import serving

BUNDLE = Path(__file__).parent / "bundles" / "format-1"
ARTIFACT = BUNDLE.with_name("format-1.tar.gz")
TWO_CORES = Hardware(cores=2, memory=None)


def test_the_bundle_is_read_as_it_is() -> None:
    manifest, version = read_bundle(BUNDLE)
    assert manifest.format == 1
    assert manifest.model.forms == (Form("fp32", "model.onnx"),)
    assert manifest.rules("fp32") == Rules.exact(manifest.tolerance)
    assert version.startswith("6cf0f49d58e5")


def test_it_is_served_by_two_sessions() -> None:
    loaded = load(BUNDLE, TWO_CORES, 2, most_runs=2)
    assert (loaded.goldens, loaded.runs) == (28, 2)
    assert loaded.deviation < 1e-5


def test_it_is_packed_as_it_is(tmp_path: Path) -> None:
    write_artifact(BUNDLE, tmp_path / "a.tar.gz", name="reviews", notify=lambda _done, _total: None)
    unpack(tmp_path / "a.tar.gz", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "manifest.json").read_bytes())["format"] == 1
    assert load(tmp_path / "model", TWO_CORES, 1).deviation < 1e-5


def test_the_artifact_serves_with_the_code_in_it(tmp_path: Path) -> None:
    assert read_contents(ARTIFACT).wheels == ()
    unpack(ARTIFACT, tmp_path / "model")
    (golden, *_) = json.loads((BUNDLE / "goldens.json").read_bytes())["goldens"]
    with serving(
        tmp_path / "model",
        tmp_path / "announced",
        module="fdeploy_runtime.server",
        environ={"PYTHONPATH": str(tmp_path / "model" / "code")},
        cwd=tmp_path,
    ) as server:
        answer = server.post({"text": golden["text"]}).json
    assert answer["probabilities"] == pytest.approx(golden["probabilities"], abs=1e-5)

"""What a Lambda function cannot hold, refused by the first real command that can know it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Fdeploy
from tests.flow.conftest import Exports
from tests.flow.learners import CONVERTIBLE

# Nobody answers there: what is refused has asked AWS nothing.
ENVIRON = {
    "FDEPLOY_ENDPOINT_KIND": "lambda",
    "FDEPLOY_PROJECT_REGION": "eu-central-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}
INSTEAD = "fdeploy config set endpoint.kind real-time"


@pytest.fixture
def folder(exports: Exports, tmp_path: Path) -> Path:
    exports.bring(CONVERTIBLE[2], tmp_path)
    return tmp_path


def edit(path: Path, change: Any) -> None:
    values = json.loads(path.read_bytes())
    change(values)
    path.write_text(json.dumps(values))


def grow(folder: Path) -> None:
    """Let the manifest say that the model's weights have 1.4 GB."""
    stage = folder / ".fdeploy" / "dev"
    manifest = stage / "bundle" / "manifest.json"

    def larger(values: Any) -> None:
        values["files"][values["model"]["forms"][-1]["file"]]["bytes"] = 1_400_000_000
        values["model"]["forms"] = values["model"]["forms"][-1:]

    edit(manifest, larger)
    version = hashlib.sha256(manifest.read_bytes()).hexdigest()
    edit(stage / "export.json", lambda record: record.update(version=version))


@pytest.mark.parametrize("command", ["export", "package", "doctor"])
def test_a_model_that_is_too_large_is_refused(folder: Path, command: str) -> None:
    grow(folder)
    arguments = ("learner.pkl", "--golden", "golden.jsonl") if command == "export" else ()
    refused = Fdeploy(folder, ENVIRON)(command, *arguments, "--json")
    assert (refused.status, refused.error["code"]) == (3, "settings"), refused.stderr
    assert "the model has 1,335 MB, and a function reads at most 954 MB" in refused.error["message"]
    assert INSTEAD in refused.error["hint"]
    assert not (folder / ".fdeploy/dev/model.tar.gz").exists()


def test_an_export_that_is_refused_is_not_lost(folder: Path) -> None:
    """The bundle is there for another kind of endpoint."""
    grow(folder)
    arguments = ("export", "learner.pkl", "--golden", "golden.jsonl")
    assert Fdeploy(folder, ENVIRON)(*arguments).status == 3
    done = Fdeploy(folder, {**ENVIRON, "FDEPLOY_ENDPOINT_KIND": "real-time"}).ok(*arguments)
    assert "unchanged" in done.stderr


def test_a_learner_of_its_own_runtime_is_refused_before_it_is_packed(folder: Path) -> None:
    """As the last export, without --runtime, packed it."""
    record = folder / ".fdeploy/dev/export.json"
    edit(record, lambda values: values.update(runtime="learner", python="3.12"))
    refused = Fdeploy(folder, ENVIRON)("export", "--json")
    assert (refused.status, refused.error["code"]) == (3, "settings"), refused.stderr
    assert "torch and fastai do not fit into the 250 MB" in refused.error["message"]
    assert INSTEAD in refused.error["hint"]

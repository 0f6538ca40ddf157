"""The real commands on a model that does not fit into its endpoint's memory."""

from __future__ import annotations

import json

import pytest

from fastai_deploy.workspace import Workspace
from tests.aws.stage import Open, Stage
from tests.aws_double.process import REGION
from tests.packaged import Model

GIB = 1 << 30


def weigh(stage: Stage, size: int) -> None:
    """Set the model's size in the manifest, in bytes."""
    path = Workspace(stage.folder, "dev").bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    (form,) = manifest["model"]["forms"]
    manifest["files"][form["file"]]["bytes"] = size
    path.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture(scope="module")
def stage(opened: Open, model: Model) -> Stage:
    stored = opened(model, "")
    stored.double.behave(stored.account, quota={"ml.m5.large": 2})
    stored.run.ok("upload", "--region", REGION)
    return stored


def test_what_cannot_fit_is_refused_before_anything_is_begun(stage: Stage) -> None:
    weigh(stage, 9 * GIB)
    for command in ("plan", "deploy"):
        error = stage.run(command, "--json").error
        assert error["code"] == "settings"
        assert "its file has 9,216 MB), and ml.m5.large has 8,192 MB" in error["message"]
        assert error["hint"] == "choose --instance ml.m5.2xlarge"
    checked = stage.run("doctor", "--json")
    assert checked.status == 13
    assert [c["name"] for c in checked.json["checks"] if c["outcome"] == "failed"] == ["memory"]
    assert not any(line.startswith("stack") for line in stage.everything())


def test_what_a_gpu_computes_is_what_is_weighed(stage: Stage) -> None:
    weigh(stage, 125 << 20)
    path = Workspace(stage.folder, "dev").bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["model"]["gpu"] = "graph"
    manifest["files"]["graph"] = {"sha256": "", "bytes": 20 * GIB}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    checked = stage.run("doctor", "--json", "--instance", "ml.g5.xlarge").json
    (memory,) = [check for check in checked["checks"] if check["name"] == "memory"]
    assert memory["outcome"] == "failed"
    assert "its file has 20,480 MB" in memory["message"]
    del manifest["model"]["gpu"], manifest["files"]["graph"]
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_what_may_not_fit_is_a_warning(stage: Stage) -> None:
    weigh(stage, 4 * GIB)
    planned = stage.run("plan")
    assert planned.status == 15
    assert "memory: the model needs about 9,632 MB" in planned.stderr
    assert "--instance ml.m5.xlarge" in planned.stderr


def test_a_serverless_endpoint_has_what_the_settings_say(stage: Stage) -> None:
    weigh(stage, 450 << 20)
    stage.folder.joinpath("fdeploy.toml").write_text(
        '[endpoint]\nkind = "serverless"\n[endpoint.serverless]\nmemory = 1024\n'
    )
    checked = stage.run("doctor", "--json").json
    (memory,) = [check for check in checked["checks"] if check["name"] == "memory"]
    assert memory["outcome"] == "warned"
    assert "a serverless endpoint of 1,024 MB has 1,024 MB" in memory["message"]
    assert memory["hint"] == "choose memory = 2048 in [endpoint.serverless]"

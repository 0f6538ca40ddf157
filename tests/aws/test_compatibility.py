"""The real doctor on an artifact that does not fit the image, and on a learner's Python."""

from __future__ import annotations

import json
from typing import Any

from fastai_deploy.packaging.artifact import write_artifact
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.workspace import Workspace
from tests.aws.stage import Open, Stage
from tests.aws_double.process import REGION
from tests.packaged import Model

RAY = Container("ray-serve image", "3.13", "manylinux_2_34_x86_64")


def artifact(stage: Stage, *flags: str) -> dict[str, Any]:
    checked = stage.run("doctor", "--region", REGION, "--json", *flags).json
    (check,) = [check for check in checked["checks"] if check["name"] == "artifact"]
    return dict(check)


def repack(stage: Stage) -> None:
    workspace = Workspace(stage.folder, "dev")
    write_artifact(
        workspace.bundle,
        workspace.artifact,
        name="demo",
        notify=lambda _done, _total: None,
        container=RAY,
    )


def test_an_artifact_of_another_image_is_pointed_out(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    assert "has no wheels" in artifact(stage)["message"]
    repack(stage)
    assert artifact(stage)["outcome"] == "passed"
    moved = artifact(stage, "--instance", "ml.p2.xlarge")
    assert moved["outcome"] == "warned"
    assert "it is packed for Python 3.13" in moved["message"]
    assert "the torchserve image has Python 3.8 on manylinux_2_31_x86_64" in moved["message"]
    assert moved["hint"] == "run fdeploy package --instance ml.p2.xlarge --region eu-central-1"
    Workspace(stage.folder, "dev").artifact.write_bytes(b"cut off")
    assert artifact(stage)["outcome"] == "failed"


def test_a_learner_as_it_is_decides_the_image(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    bundle = Workspace(stage.folder, "dev").bundle
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["runtime"] = {
        "kind": "learner", "python": "3.11", "fastai": "2", "definitions": None, "names": [],
        "activation": None,
    }  # fmt: skip
    manifest["model"]["forms"][0]["precision"] = "learner"
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (bundle / "requirements.txt").write_text("fastai==2.8.12\n", encoding="utf-8")
    repack(stage)
    # The artifact was packed by hand for another Python; the image follows the learner's.
    told = artifact(stage)["message"]
    assert "it is packed for Python 3.13" in told
    assert "the torchserve image has Python 3.11 on manylinux_2_35_x86_64" in told
    shown = stage.run.ok("doctor", "--region", REGION).stdout
    assert "pytorch-inference:2.5.1-cpu-py311 exists" in shown
    refused = stage.run("doctor", "--instance", "ml.p2.xlarge", "--region", REGION, "--json")
    assert refused.error["code"] == "settings"
    assert "the learner needs Python 3.11" in refused.error["message"]

"""The real command against the double: a real learner becomes an API and is torn down again."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fastai_deploy.packaging.artifact import unpack
from tests.aws_double.account import everything
from tests.aws_double.process import Double
from tests.conftest import Fdeploy
from tests.flow.learners import CONVERTIBLE, bring

ACCOUNT = "112233445566"


def test_from_a_learner_to_an_api_on_aws(double: Double, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    learner, golden = bring(CONVERTIBLE[0], folder)
    fdeploy = Fdeploy(folder, double.environment(ACCOUNT))
    text = "the movie was brilliant"

    api = fdeploy.ok("up", learner, "--golden", golden, "--instance", "ml.m5.large", "--json").json
    assert api["target"] == "aws"
    assert api["url"].startswith("https://")
    answer = fdeploy.ok("invoke", text, "--json").json
    assert fdeploy.ok("invoke", text, "--api", "--json").json == answer
    again = fdeploy.ok("deploy", "--instance", "ml.m5.large", "--json")
    assert "project-dev-endpoint is up to date" in again.stderr

    # As in the article: the last image that supports the GPU, with a warning.
    old = fdeploy.ok("deploy", "--instance", "ml.p2.xlarge", "--json").stderr
    assert "pytorch-inference:1.12.1-gpu-py38" in old
    assert re.search(r"AWS has deprecated P2.*ml\.g\w+\.", old)
    # Packed again for the GPU; there is none here, so the CPU answers.
    assert "packing the float32 graph for the GPU" in old
    unpack(folder / ".fdeploy/dev/model.tar.gz", tmp_path / "packed")
    packed = json.loads((tmp_path / "packed/manifest.json").read_bytes())
    assert packed["model"]["device"] == "gpu"
    assert fdeploy.ok("invoke", text, "--json").json["label"] == answer["label"]
    for kind in ("serverless", "async"):
        fdeploy.environ["FDEPLOY_ENDPOINT_KIND"] = kind
        # A serverless endpoint drops the instance of the deploy before.
        name = fdeploy.ok("deploy", "--json").json["name"]
        assert name == f"project-dev-{kind}"
        found = fdeploy.ok("invoke", text, "--json").json
        # Serverless has another image, so the artifact is packed again: another version.
        assert {**found, "model": answer["model"]} == answer

    proof = fdeploy.ok("teardown", "--artifacts", "--json").json
    assert proof["left"] == []
    assert everything(double.session(ACCOUNT)) == []

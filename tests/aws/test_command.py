"""The real command against the double: a real learner becomes an API and is torn down again."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from fastai_deploy.packaging.artifact import unpack
from tests.aws_double.account import everything
from tests.aws_double.process import Double
from tests.conftest import Fdeploy
from tests.flow.learners import CONVERTIBLE, bring

ACCOUNT = "112233445566"
BATCH_ACCOUNT = "112233445577"


def test_a_table_without_an_endpoint(double: Double, tmp_path: Path) -> None:
    """``batch --transform`` needs an export, and leaves what AWS keeps: the log group of jobs."""
    folder = tmp_path / "project"
    folder.mkdir()
    learner, golden = bring(CONVERTIBLE[0], folder)
    fdeploy = Fdeploy(folder, double.environment(BATCH_ACCOUNT))
    texts = [f"the movie was brilliant, said {number} of us" for number in range(250)]
    rows = "".join(f'{number},"{text}"\n' for number, text in enumerate(texts))
    (folder / "in.csv").write_text(f"id,text\n{rows}")
    fdeploy.ok("export", learner, "--golden", golden)
    refused = fdeploy("batch", "in.csv", "out.csv", "--transform", "--json")
    assert (refused.status, refused.error["code"]) == (2, "usage")
    assert "--region" in refused.error["hint"]

    there = ("--instance", "ml.m5.large", "--json")
    done = fdeploy.ok("batch", "in.csv", "out.csv", "--transform", "--instances", "2", *there)
    found = done.json
    assert (found["rows"], found["failed"], found["by"]) == (250, 0, "a batch transform")
    fdeploy.ok("batch", "in.csv", "here.csv", "--json")
    with (
        (folder / "out.csv").open(newline="") as one,
        (folder / "here.csv").open(newline="") as two,
    ):
        for remote, local in zip(csv.DictReader(one), csv.DictReader(two), strict=True):
            assert (remote["id"], remote["label"]) == (local["id"], local["label"])

    assert fdeploy.ok("teardown", "--artifacts", "--json").json["left"] == []
    left = everything(double.session(BATCH_ACCOUNT))
    assert left == ["log group /aws/sagemaker/TransformJobs"]


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

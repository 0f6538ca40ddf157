"""The real command against the double: from a real learner to an API, and back to nothing."""

from __future__ import annotations

from pathlib import Path

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
    assert "project-dev-endpoint is as it should be" in again.stderr

    proof = fdeploy.ok("teardown", "--artifacts", "--json").json
    assert proof["left"] == []
    assert everything(double.session(ACCOUNT)) == []


def test_nobody_is_signed_in(double: Double, tmp_path: Path) -> None:
    environ = double.environment(ACCOUNT)
    nobody = {**environ, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    outcome = Fdeploy(tmp_path, nobody)("teardown", "--target", "aws", "--json")
    assert outcome.status == 14
    assert outcome.error["code"] == "aws-credentials"
    assert "aws sso login" in outcome.error["hint"]

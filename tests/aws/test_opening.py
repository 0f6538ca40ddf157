"""The user's own environment is enough, whether it names everything or too little."""

from __future__ import annotations

from typing import Any

import pytest

from tests.aws.stage import Open, Stage
from tests.aws_double.process import REGION
from tests.conftest import Fdeploy
from tests.packaged import Model


def test_the_users_environment_is_enough(opened: Open, model: Model) -> None:
    """The region and the credentials are only in the environment."""
    stage = opened(model, "")
    for command in ("upload", "deploy", "create-api"):
        stage.run.ok(command, "--target", "aws")
    api = stage.run.ok("status", "--json").json["url"]
    assert REGION in api
    answer = stage.run.ok("invoke", "a great film", "--api", "--json").json
    assert answer["model"]["version"] == model.artifact.version
    assert stage.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert stage.everything() == []


@pytest.fixture(scope="module")
def nobody(opened: Open, model: Model) -> Stage:
    return opened(model, "")


def error(stage: Stage, *arguments: str, **environ: str) -> dict[str, Any]:
    return Fdeploy(stage.folder, {**stage.environ, **environ})(
        "upload", "--target", "aws", *arguments, "--json"
    ).error


def test_no_region_is_named(nobody: Stage) -> None:
    refused = error(nobody, AWS_REGION="", AWS_DEFAULT_REGION="")
    assert refused["code"] == "aws-unreachable"
    assert "no AWS region is set" in refused["message"]
    assert "--region" in refused["hint"]


def test_no_credentials_are_there(nobody: Stage) -> None:
    refused = error(nobody, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert refused["code"] == "aws-credentials"
    assert "aws sso login" in refused["hint"]


def test_a_profile_that_there_is_not(nobody: Stage) -> None:
    refused = error(nobody, FDEPLOY_PROJECT_PROFILE="no-such-profile")
    assert refused["code"] == "aws-credentials"
    assert "no-such-profile" in refused["message"]

"""The user's own environment is enough, whether it names everything or too little."""

from __future__ import annotations

from typing import Any

import pytest

from fastai_deploy.errors import AwsCredentials
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


_KEYS = "[profile keys]\naws_access_key_id = 770000000001\naws_secret_access_key = key\n"


def error(stage: Stage, *arguments: str, **environ: str) -> dict[str, Any]:
    return Fdeploy(stage.folder, {**stage.environ, **environ})(
        "upload", "--target", "aws", *arguments, "--json"
    ).error


def with_profile(nobody: Stage, lines: str) -> dict[str, str]:
    """The variables with which the profile ``ci``, of these lines, brings the credentials."""
    config = nobody.folder / "aws-config"
    config.write_text(f"[profile ci]\n{lines}\n")
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    return {**nothing, "AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "ci"}


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


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"])
def test_a_secret_with_a_line_break_is_refused_and_not_told(nobody: Stage, name: str) -> None:
    pasted = {name: "what-nobody\nmay-read"}
    refused = error(nobody, **pasted)
    assert refused["code"] == "aws-credentials"
    assert "line break" in refused["message"]
    shown = Fdeploy(nobody.folder, {**nobody.environ, **pasted})(
        "status", "--target", "aws", "--verbose"
    )
    assert "line break" in shown.stderr
    assert "may-read" not in shown.stdout + shown.stderr + str(refused)


@pytest.mark.parametrize(
    "line",
    [
        "credential_process = /no/such/program",
        "credential_process = echo no JSON",
        "role_arn = arn:aws:iam::111122223333:role/ci\nweb_identity_token_file = /no/such/token",
    ],
)
def test_credentials_that_cannot_be_fetched(nobody: Stage, line: str) -> None:
    refused = error(nobody, **with_profile(nobody, line))
    assert refused["code"] == "aws-credentials"
    assert "aws sso login" in refused["hint"]


def test_an_mfa_code_needs_a_terminal(nobody: Stage) -> None:
    role = "role_arn = arn:aws:iam::111122223333:role/ci\nsource_profile = keys"
    lines = f"{role}\nmfa_serial = arn:aws:iam::111122223333:mfa/me\n{_KEYS}"
    run = Fdeploy(nobody.folder, {**nobody.environ, **with_profile(nobody, lines)})
    refused = run("status", "--target", "aws")
    assert refused.status == AwsCredentials.exit_code
    assert "no terminal" in refused.stderr


def test_an_endpoint_that_is_no_url_is_named(nobody: Stage) -> None:
    refused = error(nobody, AWS_ENDPOINT_URL="no url")
    assert refused["code"] == "aws-unreachable"
    assert "AWS_ENDPOINT_URL" in refused["hint"]

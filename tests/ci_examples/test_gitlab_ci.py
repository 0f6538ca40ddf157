"""The GitLab CI example: its file is valid, and every command in it exists."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastai_deploy.settings import load_settings
from tests.ci_examples.commands import check_commands, commands_in
from tests.ci_examples.roles import AUDIENCE, EXAMPLES, GITLAB, template

FOLDER = EXAMPLES / GITLAB.folder
FILE = FOLDER / "gitlab-ci.yml"
PIPELINE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
ON_AWS = {"prod": "$AWS_ROLE", "preview": "$AWS_PREVIEW_ROLE", "cleanup": "$AWS_PREVIEW_ROLE"}
OWN = "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID"


def job(name: str) -> dict[str, Any]:
    """A job with what it extends, as GitLab merges them: mappings by key, all else whole."""
    own = PIPELINE[name]
    if "extends" not in own:
        return dict(own)
    merged = job(own["extends"])
    for key, value in own.items():
        is_mapping = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if is_mapping else value
    return merged


COMMANDS = commands_in(line for name in ON_AWS for line in job(name)["script"])


def test_every_command_exists() -> None:
    check_commands(COMMANDS)


def test_the_commands_are_those_of_the_text() -> None:
    assert {words[0] for words in COMMANDS} == {"export", "package", "plan", "up", "teardown"}


@pytest.mark.parametrize("name", ON_AWS)
def test_a_job_signs_in_without_a_stored_key(name: str) -> None:
    merged = job(name)
    assert merged["id_tokens"]["AWS_ID_TOKEN"] == {"aud": AUDIENCE}
    assert merged["variables"]["AWS_ROLE_ARN"] == ON_AWS[name]
    token, install = merged["before_script"]
    assert "umask 077" in token
    assert "--require-hashes --only-binary :all:" in install
    assert not merged["interruptible"]


def test_the_comment_cannot_sign_in_and_runs_nothing_of_the_repository() -> None:
    comment = job("comment")
    assert "id_tokens" not in comment
    assert comment["variables"]["GIT_STRATEGY"] == "none"


def test_merge_requests_of_forks_get_no_credentials() -> None:
    for name in ("preview", "comment", "cleanup"):
        (rule,) = job(name)["rules"]
        assert OWN in rule["if"]


def test_the_variables_are_the_outputs_of_the_template() -> None:
    named = set(re.findall(r"\$(AWS_[A-Z_]+)", FILE.read_text(encoding="utf-8")))
    outputs = template(GITLAB)["Outputs"].values()
    own = {"AWS_ID_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE"}
    assert named - own == {"AWS_REGION", *(each["Description"].split()[-1] for each in outputs)}


@pytest.mark.parametrize("name", ON_AWS)
def test_the_stages_are_declared(name: str, tmp_path: Path) -> None:
    """Declare each stage as the job's script does."""
    shutil.copy(FOLDER / "fdeploy.toml", tmp_path)
    environ = {
        key: value.replace("$CI_MERGE_REQUEST_IID", "12345")
        for key, value in job(name)["variables"].items()
        if key in ("FDEPLOY_STAGE", "FDEPLOY_PROJECT_NAME")
    }
    for line in job(name)["script"]:
        if line.startswith("printf"):
            declared = shlex.split(line)[1].encode().decode("unicode_escape")
            with (tmp_path / "fdeploy.toml").open("a") as file:
                file.write(declared % environ["FDEPLOY_STAGE"])
    settings = load_settings(
        folder=tmp_path, environ={**environ, "FDEPLOY_PROJECT_REGION": "eu-central-1"}
    )
    assert settings.target == "aws"
    assert settings.project_name == ("my-project" if name == "prod" else "my-project-pr")
    assert settings.sections.project.ttl == ("2d" if name == "preview" else None)

"""The GitHub Actions example: its files are valid, and every command in them exists."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from fastai_deploy.cli import commands  # noqa: F401 - registers its commands
from fastai_deploy.cli.commands import app
from fastai_deploy.settings import load_settings
from tests.aws_templates.linting import findings
from tests.github_actions.role_template import FILE, template, text

FOLDER = FILE.parent
WORKFLOW: dict[Any, Any] = yaml.safe_load((FOLDER / "deploy.yml").read_text(encoding="utf-8"))
ACTION: dict[str, Any] = yaml.safe_load((FOLDER / "action.yml").read_text(encoding="utf-8"))
JOBS: dict[str, Any] = WORKFLOW["jobs"]


def test_the_role_has_the_permissions_of_the_policies() -> None:
    command = "python -m tests.github_actions.role_template"
    assert FILE.read_text(encoding="utf-8") == text(), command
    assert yaml.safe_load(text()) == template()


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
def test_the_role_passes_cfn_lint(region: str) -> None:
    assert findings(template(), region) == []


def test_nobody_else_can_assume_the_role() -> None:
    role = template()["Resources"]["Role"]["Properties"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    conditions = statement["Condition"]
    assert set(conditions) == {"StringEquals"}  # no pattern that another repository could meet
    subjects = conditions["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert [subject["Fn::Sub"] for subject in subjects] == [
        "repo:${Repository}:ref:refs/heads/main",
        "repo:${Repository}:pull_request",
    ]


def runs(steps: list[dict[str, Any]]) -> Iterator[str]:
    """Every line that a shell runs."""
    for step in steps:
        yield from step.get("run", "").splitlines()


LINES = [line for job in JOBS.values() for line in runs(job["steps"])]
COMMANDS = [
    shlex.split(re.split(r"\s*(?:\||>>)", line)[0])[1:]
    for line in LINES
    if line.startswith("fdeploy ")
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_exists(words: list[str]) -> None:
    known: Any = typer.main.get_command(app)
    command = known.commands[words[0]]
    with command.make_context(words[0], words[1:]):
        pass


def test_the_commands_are_those_of_the_text() -> None:
    assert {words[0] for words in COMMANDS} == {
        *("export", "package", "plan", "up", "status", "teardown"),
    }


def test_each_event_has_its_job() -> None:
    events = WORKFLOW[True]  # what YAML 1.1 makes of "on"
    assert events["push"] == {"branches": ["main"]}
    assert "closed" in events["pull_request"]["types"]
    assert WORKFLOW["permissions"] == {"contents": "read", "id-token": "write"}
    assert not WORKFLOW["concurrency"]["cancel-in-progress"]
    for name in ("preview", "cleanup"):
        assert "head.repo.full_name == github.repository" in JOBS[name]["if"]


def test_the_jobs_give_the_action_what_it_needs() -> None:
    for job in JOBS.values():
        (used,) = [step for step in job["steps"] if step.get("uses", "").startswith("./")]
        assert used["uses"] == "./.github/actions/fdeploy"
        assert set(used["with"]) == set(ACTION["inputs"])


@pytest.mark.parametrize("job", ["prod", "preview", "cleanup"])
def test_the_stages_are_declared(job: str, tmp_path: Path) -> None:
    """Declare each stage as the job's shell step does."""
    shutil.copy(FOLDER / "fdeploy.toml", tmp_path)
    stage = JOBS[job]["env"]["FDEPLOY_STAGE"].replace("${{ github.event.number }}", "12345")
    for line in runs(JOBS[job]["steps"]):
        if line.startswith("printf"):
            declared = shlex.split(line)[1].encode().decode("unicode_escape") % stage
            with (tmp_path / "fdeploy.toml").open("a") as file:
                file.write(declared)
    settings = load_settings(
        folder=tmp_path,
        environ={"FDEPLOY_STAGE": stage, "FDEPLOY_PROJECT_REGION": "eu-central-1"},
    )
    assert (settings.stage, settings.target) == (stage, "aws")
    assert settings.sections.project.protect is (job == "prod")
    assert settings.sections.project.ttl == ("2d" if job == "preview" else None)

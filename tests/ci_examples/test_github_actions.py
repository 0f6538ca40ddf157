"""The GitHub Actions example: its files are valid, and every command in them exists."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastai_deploy.settings import load_settings
from tests.ci_examples.commands import check_commands, commands_in
from tests.ci_examples.roles import EXAMPLES, GITHUB, template

FOLDER = EXAMPLES / GITHUB.folder
WORKFLOW: dict[Any, Any] = yaml.safe_load((FOLDER / "deploy.yml").read_text(encoding="utf-8"))
ACTION: dict[str, Any] = yaml.safe_load((FOLDER / "action.yml").read_text(encoding="utf-8"))
JOBS: dict[str, Any] = WORKFLOW["jobs"]
ON_AWS = {"prod": "AWS_ROLE", "preview": "AWS_PREVIEW_ROLE", "cleanup": "AWS_PREVIEW_ROLE"}


def runs(steps: list[dict[str, Any]]) -> Iterator[str]:
    """Every line that a shell runs."""
    for step in steps:
        yield from step.get("run", "").splitlines()


COMMANDS = commands_in(line for job in JOBS.values() for line in runs(job["steps"]))


def test_every_command_exists() -> None:
    check_commands(COMMANDS)


def test_the_commands_are_those_of_the_text() -> None:
    assert {words[0] for words in COMMANDS} == {
        *("export", "package", "plan", "up", "status", "teardown"),
    }


def test_each_event_has_its_job() -> None:
    events = WORKFLOW[True]  # what YAML 1.1 makes of "on"
    assert events["push"] == {"branches": ["main"]}
    assert "closed" in events["pull_request"]["types"]
    assert "pull_request_target" not in events
    assert not WORKFLOW["concurrency"]["cancel-in-progress"]
    for name in ("preview", "cleanup"):
        assert "head.repo.full_name == github.repository" in JOBS[name]["if"]


def test_a_job_has_no_more_permissions_than_it_needs() -> None:
    assert WORKFLOW["permissions"] == {}
    for name in ON_AWS:
        assert JOBS[name]["permissions"] == {"contents": "read", "id-token": "write"}
    # What writes to the pull request runs none of its code, and cannot sign in.
    assert JOBS["comment"]["permissions"] == {"pull-requests": "write"}
    assert all("uses" not in step for step in JOBS["comment"]["steps"])


@pytest.mark.parametrize("job", ON_AWS)
def test_the_jobs_give_the_action_what_it_needs(job: str) -> None:
    (used,) = [step for step in JOBS[job]["steps"] if step.get("uses", "").startswith("./")]
    assert used["uses"] == "./.github/actions/fdeploy"
    assert set(used["with"]) == set(ACTION["inputs"])
    assert used["with"]["role"] == f"${{{{ vars.{ON_AWS[job]} }}}}"


def test_the_variables_are_the_outputs_of_the_template() -> None:
    named = set(re.findall(r"vars\.(\w+)", (FOLDER / "deploy.yml").read_text(encoding="utf-8")))
    outputs = template(GITHUB)["Outputs"].values()
    assert named == {"AWS_REGION", *(each["Description"].split()[-1] for each in outputs)}


def test_actions_are_pinned_by_commit() -> None:
    for file in ("deploy.yml", "action.yml"):
        uses = re.findall(r"uses: (.+)", (FOLDER / file).read_text(encoding="utf-8"))
        for each in uses:
            if not each.startswith("./"):
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)


def test_fdeploy_is_installed_from_a_lock() -> None:
    (install,) = [line for line in runs(ACTION["runs"]["steps"]) if "pip install" in line]
    assert "--require-hashes --only-binary :all:" in install


@pytest.mark.parametrize("job", ON_AWS)
def test_the_stages_are_declared(job: str, tmp_path: Path) -> None:
    """Declare each stage as the job's shell step does."""
    shutil.copy(FOLDER / "fdeploy.toml", tmp_path)
    environ = {
        name: value.replace("${{ github.event.number }}", "12345")
        for name, value in JOBS[job]["env"].items()
        if name in ("FDEPLOY_STAGE", "FDEPLOY_PROJECT_NAME")
    }
    stage = environ["FDEPLOY_STAGE"]
    for line in runs(JOBS[job]["steps"]):
        if line.startswith("printf"):
            declared = shlex.split(line)[1].encode().decode("unicode_escape") % stage
            with (tmp_path / "fdeploy.toml").open("a") as file:
                file.write(declared)
    settings = load_settings(
        folder=tmp_path, environ={**environ, "FDEPLOY_PROJECT_REGION": "eu-central-1"}
    )
    assert (settings.stage, settings.target) == (stage, "aws")
    assert settings.project_name == ("my-project" if job == "prod" else "my-project-pr")
    assert settings.sections.project.protect is (job == "prod")
    assert settings.sections.project.ttl == ("2d" if job == "preview" else None)

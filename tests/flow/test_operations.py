"""The operations commands on this machine: plan, status, logs, rollback, doctor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Fdeploy, result_of
from tests.flow.conftest import Exports
from tests.flow.learners import CONVERTIBLE
from tests.flow.learners import bring as bring_learner
from tests.packaged import Model, bring, write_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder, "first"), write_model(folder, "second", layers=3)


def deploy(fdeploy: Fdeploy, model: Model) -> str:
    bring(model, fdeploy.folder)
    fdeploy.ok("upload")
    return str(fdeploy.ok("deploy", "--json").json["version"])


def test_from_a_plan_to_a_rollback(fdeploy: Fdeploy, models: tuple[Model, Model]) -> None:
    bring(models[0], fdeploy.folder)
    planned = fdeploy("plan", "--json")
    assert planned.status == 15
    assert [(change["action"], change["name"]) for change in planned.json["changes"]] == [
        ("add", "model server"),
        ("add", "gateway"),
    ]
    first = deploy(fdeploy, models[0])
    api = fdeploy.ok("create-api", "--json").json
    fdeploy.ok("invoke", "--api", "a great film")
    unchanged = fdeploy.ok("plan").stdout
    assert "no changes: there is nothing to deploy" in unchanged
    assert "free of charge" in unchanged

    status = fdeploy.ok("status", "--json").json
    assert [part["name"] for part in status["parts"]] == ["model server", "gateway"]
    assert (status["version"], status["url"]) == (first, api["url"])
    # The text above; the checks of create-api are not counted.
    assert (status["last_hour"]["invocations"], status["last_hour"]["errors"]) == (1, 0)
    assert status["last_hour"]["p95_ms"] > 0
    assert f"version     {first}" in fdeploy.ok("status").stdout

    second = deploy(fdeploy, models[1])
    assert fdeploy.ok("rollback", "--json").json["version"] == first
    listed = fdeploy.ok("versions", "--json").json["versions"]
    assert [(each["version"], each["live"]) for each in listed] == [(first, True), (second, False)]
    assert fdeploy.ok("rollback", "--to", second[:6], "--json").json["version"] == second
    assert fdeploy("rollback", "--to", "zz", "--json").error["code"] == "usage"


def test_logs_are_read_and_followed(fdeploy: Fdeploy, models: tuple[Model, Model]) -> None:
    assert fdeploy.ok("logs").stdout == ""
    deploy(fdeploy, models[0])
    (ready,) = [
        result_of(line)
        for line in fdeploy.ok("logs", "--json").stdout.splitlines()
        if '\\"ready\\"' in line
    ]
    assert ready["stream"] == "endpoint.log"
    following = subprocess.Popen(
        [sys.executable, "-m", "fastai_deploy", "logs", "--follow"],
        cwd=fdeploy.folder,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with following:
        assert following.stdout is not None
        while "ready" not in following.stdout.readline():
            pass
        deploy(fdeploy, models[1])  # another server, with a new log
        while "ready" not in following.stdout.readline():
            pass
        following.send_signal(signal.SIGINT)
        _, errors = following.communicate(timeout=30)
    assert (following.returncode, errors) == (0, "")


def test_a_doctor_looks_at_this_machine(fdeploy: Fdeploy, models: tuple[Model, Model]) -> None:
    bring(models[0], fdeploy.folder)
    assert "a deploy should work" in fdeploy.ok("doctor").stdout
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (fdeploy.folder / "fdeploy.toml").write_text(f"[api]\nport = {taken.getsockname()[1]}\n")
        checked = fdeploy("doctor", "--json")
    assert checked.status == 13
    assert [c["name"] for c in checked.json["checks"] if c["outcome"] == "failed"] == ["port"]


def test_before_anything_is_there(fdeploy: Fdeploy) -> None:
    asked = fdeploy("plan", "--json")
    assert asked.error["code"] == "usage"
    assert asked.error["hint"].startswith("run fdeploy plan --json learner.pkl, or set learner")
    assert fdeploy("rollback", "--json").error["code"] == "usage"
    assert fdeploy("status", "--json").error["code"] == "no-project"
    (fdeploy.folder / "fdeploy.toml").touch()
    assert "nothing is deployed" in fdeploy.ok("status").stdout
    assert "no version has been deployed yet" in fdeploy.ok("versions").stdout
    assert "nothing is packaged yet" in fdeploy.ok("doctor").stdout


def test_a_plan_covers_all_of_up(fdeploy: Fdeploy, exports: Exports) -> None:
    """It converts what up would convert, and shows what callers would notice."""
    exports.bring(CONVERTIBLE[1], fdeploy.folder)
    fdeploy.ok("up")
    before = fdeploy.ok("plan", "--json").json
    assert (before["changed"], before["model"]) == (False, None)
    live = fdeploy.ok("versions", "--json").json["versions"][0]["version"]
    bring_learner(CONVERTIBLE[3], fdeploy.folder)
    planned = fdeploy("plan", "learner.pkl", "--golden", "golden.jsonl", "--json")
    assert planned.status == 15
    model = planned.json["model"]
    assert model["live"] == live != model["version"]
    assert model["before"]["task"] != model["after"]["task"]
    assert model["before"]["labels"] != model["after"]["labels"]
    warned = [event for event in map(json.loads, planned.stderr.splitlines())
              if event["event"] == "warned"]  # fmt: skip
    assert "callers may depend" in warned[-1]["message"]
    shown = fdeploy("plan").stdout
    assert f"version     {live} -> {model['version']}" in shown
    assert "labels      CHANGED: +" in shown
    assert fdeploy.ok("invoke", "a text", "--json").json["model"]["version"] == live
    assert fdeploy.ok("up", "--json").json["url"]
    assert fdeploy.ok("invoke", "a text", "--json").json["model"]["version"] == model["version"]


@pytest.mark.parametrize("command", [("template",), ("doctor", "--policy")])
def test_this_machine_has_no_stacks_and_needs_no_permissions(
    fdeploy: Fdeploy, models: tuple[Model, Model], command: tuple[str, ...], tmp_path: Path
) -> None:
    bring(models[0], fdeploy.folder)
    error = fdeploy(*command, "--json").error
    assert error["code"] == "usage"
    assert "--target aws" in error["hint"]
    assert not (tmp_path / "project" / ".fdeploy" / "dev" / "local").exists()

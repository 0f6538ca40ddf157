"""Faults while servers run: killed processes, lost files, interrupted commands."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Fdeploy
from tests.flow.conftest import Exports
from tests.flow.learners import CONVERTIBLE
from tests.flow.test_flow import servers


@pytest.fixture
def exported(fdeploy: Fdeploy, exports: Exports) -> Fdeploy:
    exports.bring(CONVERTIBLE[0], fdeploy.folder)
    return fdeploy


def kill(pids: set[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_teardown_after_the_servers_were_killed(exported: Fdeploy) -> None:
    exported.ok("up")
    kill(servers(exported))
    assert exported("invoke", "a text").status == 10
    proof = exported.ok("teardown", "--json").json
    assert proof["left"] == []
    assert not (exported.folder / ".fdeploy/dev/local").exists()


def test_up_after_the_servers_were_killed(exported: Fdeploy) -> None:
    exported.ok("up")
    kill(servers(exported))
    exported.ok("up")
    exported.ok("invoke", "a text", "--api")


def test_teardown_finds_unrecorded_servers(exported: Fdeploy) -> None:
    exported.ok("up")
    for path in (exported.folder / ".fdeploy/dev/local").glob("*.json"):
        path.unlink()
    for path in (exported.folder / ".fdeploy/dev").glob("*.json"):
        path.unlink()
    assert len(servers(exported)) == 2
    proof = exported.ok("teardown", "--json").json
    assert any("model server" in thing for thing in proof["deleted"])
    assert servers(exported) == set()


def test_a_stopped_server_is_ended_all_the_same(exported: Fdeploy) -> None:
    exported.ok("up")
    for pid in servers(exported):
        os.kill(pid, signal.SIGSTOP)
    assert exported.ok("teardown", "--json").json["left"] == []
    assert servers(exported) == set()


@pytest.mark.parametrize("moment", ["unpacking", "starting the model server"])
def test_an_interrupted_deploy_leaves_nothing_and_can_go_on(exported: Fdeploy, moment: str) -> None:
    exported.ok("package")
    exported.ok("upload")
    process = subprocess.Popen(
        [sys.executable, "-m", "fastai_deploy", "deploy"],
        cwd=exported.folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr as stderr:
        for line in stderr:
            if moment in line:
                process.send_signal(signal.SIGINT)
                break
        rest = stderr.read()
    assert process.wait() == 130
    assert "run the same command again" in rest
    assert servers(exported) == set()
    exported.ok("deploy")
    exported.ok("invoke", "a text")


def test_a_failed_deploy_leaves_the_old_version_serving(
    exported: Fdeploy, exports: Exports
) -> None:
    exported.ok("up")
    version = exported.ok("invoke", "a text", "--json").json["model"]["version"]
    exported.ok("package")
    stored = next((exported.folder / ".fdeploy/dev/local/store").glob("*/model.tar.gz"))
    exports.bring(CONVERTIBLE[1], exported.folder)
    exported.ok("package")
    exported.ok("upload")
    fresh = next(
        path
        for path in (exported.folder / ".fdeploy/dev/local/store").glob("*/model.tar.gz")
        if path != stored
    )
    with fresh.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"x" * 50)
    outcome = exported("deploy", "--json")
    assert outcome.status == 4
    assert "hash differs" in outcome.error["message"]
    assert exported.ok("invoke", "a text", "--json").json["model"]["version"] == version
    assert len(servers(exported)) == 2


def test_a_server_that_is_not_ready_in_time(exported: Fdeploy) -> None:
    exported.ok("package")
    exported.ok("upload")
    impatient = Fdeploy(exported.folder, {"FDEPLOY_ENDPOINT_STARTUP_TIMEOUT": "0.001"})
    outcome = impatient("deploy", "--json")
    assert outcome.status == 9
    assert "was not ready within 0.001 s" in outcome.error["message"]
    assert servers(exported) == set()


def test_a_server_that_dies_at_start_shows_its_last_words(exported: Fdeploy) -> None:
    forge_goldens(exported.folder / ".fdeploy/dev")
    exported.ok("package")
    exported.ok("upload")
    outcome = exported("deploy", "--json")
    assert outcome.status == 9
    assert outcome.error["code"] == "server-died"
    assert "golden" in outcome.error["message"]
    assert servers(exported) == set()
    assert exported("invoke", "a text", "--json").error["hint"] == "run fdeploy deploy"


def forge_goldens(stage: Path) -> None:
    """Make a valid bundle whose model does not reproduce its goldens."""
    path = stage / "bundle/goldens.json"
    document = json.loads(path.read_bytes())
    first = document["goldens"][0]["probabilities"]
    document["goldens"][0]["probabilities"] = dict(
        zip(first, reversed(first.values()), strict=True)
    )
    path.write_text(json.dumps(document), encoding="utf-8")
    manifest_path = stage / "bundle/manifest.json"
    manifest = json.loads(manifest_path.read_bytes())
    data = path.read_bytes()
    manifest["files"]["goldens.json"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    manifest_path.write_text(json.dumps(manifest), encoding="utf-8")
    record = json.loads((stage / "export.json").read_bytes())
    record["version"] = hashlib.sha256(manifest_path.read_bytes()).hexdigest()
    (stage / "export.json").write_text(json.dumps(record), encoding="utf-8")


def test_two_at_once(exported: Fdeploy) -> None:
    exported.ok("package")
    exported.ok("upload")
    first = subprocess.Popen(
        [sys.executable, "-m", "fastai_deploy", "deploy"],
        cwd=exported.folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert first.stderr is not None
    with first.stderr as stderr:
        assert stderr.readline() == "deploy:\n"
        first.send_signal(signal.SIGSTOP)  # else it might finish before the second starts
        try:
            second = exported("teardown", "--json")
        finally:
            first.send_signal(signal.SIGCONT)
        assert second.status == 8
        assert "fdeploy deploy (process" in second.error["message"]
        stderr.read()
    assert first.wait() == 0
    exported.ok("invoke", "a text")


def test_a_key_that_was_lost(exported: Fdeploy) -> None:
    api = exported.ok("up", "--json").json
    Path(api["key_file"]).unlink()
    outcome = exported("invoke", "a text", "--api", "--json")
    assert outcome.status == 4
    assert outcome.error["hint"] == "run fdeploy create-api"
    exported.ok("create-api")
    exported.ok("invoke", "a text", "--api")

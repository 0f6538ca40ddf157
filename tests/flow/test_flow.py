"""The main job through the real command: real learners, real processes, real HTTP."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.conftest import Fdeploy
from tests.flow.conftest import Exports
from tests.flow.learners import CONVERTIBLE, ULMFIT, answers, bring

TOLERANCE = 1e-4
FRESH = pytest.mark.fresh_interpreter


def call(url: str, key: str, request: object) -> tuple[int, object]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        headers = {"content-type": "application/json", "x-api-key": key}
        connection.request("POST", parts.path, json.dumps(request), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "name", [*CONVERTIBLE, *(pytest.param(each, marks=FRESH) for each in ULMFIT)]
)
def test_a_learner_becomes_an_api_that_answers_as_it_does(fdeploy: Fdeploy, name: str) -> None:
    learner, golden = bring(name, fdeploy.folder)
    api = fdeploy.ok("up", learner, "--golden", golden, "--json").json
    key = Path(api["key_file"]).read_text(encoding="utf-8")
    for expected in answers(name):
        status, answer = call(api["url"], key, {"text": expected.text})
        assert status == 200, answer
        assert isinstance(answer, dict)
        assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=TOLERANCE)
        if "label" in answer:
            assert answer["label"] == max(
                expected.probabilities, key=lambda label: expected.probabilities[label]
            )
        else:
            above = {label for label, p in expected.probabilities.items() if p > 0.5}
            assert set(answer["labels"]) == above


@FRESH
def test_stage_by_stage(fdeploy: Fdeploy) -> None:
    learner, golden = bring(CONVERTIBLE[0], fdeploy.folder)
    bundle = fdeploy.ok("export", learner, "--golden", golden, "--json").json
    assert bundle["labels"] == ["0", "1", "2", "3", "4"]
    assert bundle["max_difference"] <= TOLERANCE
    artifact = fdeploy.ok("package", "--json").json
    assert Path(artifact["path"]).stat().st_size == artifact["bytes"]
    stored = fdeploy.ok("upload", "--json").json
    assert stored["sha256"] == artifact["sha256"]
    endpoint = fdeploy.ok("deploy", "--json").json
    assert endpoint["version"] == artifact["sha256"][:12]
    answer = fdeploy.ok("invoke", "the movie was brilliant", "--top-k", "2", "--json").json
    assert len(answer["probabilities"]) == 2
    assert answer["model"] == {
        "name": "learner",
        "version": endpoint["version"],
        "precision": "fp32",
    }
    api = fdeploy.ok("create-api", "--json").json
    assert api["url"].startswith("http://127.0.0.1:")
    through = fdeploy.ok("invoke", "the movie was brilliant", "--api", "--json").json
    assert through["label"] == answer["label"]
    shown = fdeploy.ok("invoke", "-", stdin="the movie was brilliant").stdout
    assert shown.startswith(f"{answer['label']}\n")

    assert len(servers(fdeploy)) > 1
    proof = fdeploy.ok("teardown", "--json").json
    assert proof["left"] == []
    assert len(proof["deleted"]) == len(proof["found"]) > 5
    assert not (fdeploy.folder / ".fdeploy/dev/local").exists()
    # Do not call their ports: another server on this machine may have taken one.
    assert servers(fdeploy) == set()
    assert fdeploy.ok("teardown", "--json").json["found"] == []


def test_what_has_not_changed_is_not_done_again(fdeploy: Fdeploy, exports: Exports) -> None:
    exports.bring(CONVERTIBLE[0], fdeploy.folder)
    first = fdeploy.ok("up", "learner.pkl", "--golden", "golden.jsonl", "--json")
    pids = servers(fdeploy)
    second = fdeploy.ok("up", "--golden", "golden.jsonl", "--json")
    assert second.json == first.json
    assert servers(fdeploy) == pids
    assert second.stderr.count("unchanged") == 2
    assert len(list((fdeploy.folder / ".fdeploy/dev/local/store").iterdir())) == 1


def test_the_same_learner_gives_the_same_artifact_anywhere(
    fdeploy: Fdeploy, exports: Exports
) -> None:
    exports.bring(CONVERTIBLE[0], fdeploy.folder)
    other = Fdeploy(fdeploy.folder / "elsewhere")
    other.folder.mkdir()
    learner, golden = bring(CONVERTIBLE[0], other.folder)
    other.ok("export", learner, "--golden", golden)
    hashes = {each.ok("package", "--json").json["sha256"] for each in (fdeploy, other)}
    assert len(hashes) == 1


def test_another_learner_takes_the_place_of_the_first(fdeploy: Fdeploy, exports: Exports) -> None:
    exports.bring(CONVERTIBLE[0], fdeploy.folder)
    first = fdeploy.ok("up", "learner.pkl", "--golden", "golden.jsonl", "--json").json
    before = servers(fdeploy)
    exports.bring(CONVERTIBLE[1], fdeploy.folder)
    second = fdeploy.ok("up", "learner.pkl", "--golden", "golden.jsonl", "--json").json
    # Callers keep their URL and key. Both servers are new, the gateway because its OpenAPI document
    # names the labels.
    assert (second["url"], second["key_file"]) == (first["url"], first["key_file"])
    assert len(servers(fdeploy)) == 2
    assert not servers(fdeploy) & before
    labels = fdeploy.ok("invoke", "a text", "--api", "--json").json["probabilities"]
    assert set(labels) == {"negative", "neutral", "positive"}


def test_a_model_that_answers_otherwise_is_not_exported(fdeploy: Fdeploy) -> None:
    bring(CONVERTIBLE[1], fdeploy.folder)
    wrong = {"text": "the movie was brilliant from start to finish", "probabilities": [1, 0, 0]}
    (fdeploy.folder / "wrong.jsonl").write_text(json.dumps(wrong), encoding="utf-8")
    outcome = fdeploy("export", "learner.pkl", "--golden", "wrong.jsonl", "--json")
    assert outcome.status == 6
    assert "the movie was brilliant" in outcome.error["message"]
    assert not (fdeploy.folder / ".fdeploy/dev/export.json").exists()


def test_two_stages_stand_side_by_side(fdeploy: Fdeploy, exports: Exports) -> None:
    exports.bring(CONVERTIBLE[0], fdeploy.folder)
    (fdeploy.folder / "fdeploy.toml").write_text(
        "[model]\nlearner='learner.pkl'\ngolden='golden.jsonl'\n[stages.prod.api]\nroute='/v1/sentiment'\n",
        encoding="utf-8",
    )
    dev = fdeploy.ok("up", "--json").json
    prod = fdeploy.ok("up", "--stage", "prod", "--json").json
    try:
        assert prod["url"].endswith("/v1/sentiment")
        assert Path(prod["key_file"]).read_text() != Path(dev["key_file"]).read_text()
        dev_key = Path(dev["key_file"]).read_text(encoding="utf-8")
        assert call(prod["url"], dev_key, {"text": "a"})[0] == 403
    finally:
        fdeploy.ok("teardown", "--stage", "prod")
    assert call(dev["url"], dev_key, {"text": "a"})[0] == 200


def servers(fdeploy: Fdeploy) -> set[int]:
    """The processes that serve a project, found without fdeploy."""
    home = str(fdeploy.folder / ".fdeploy")
    found = set()
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(home in part for part in command):
            found.add(process.pid)
    return found

"""``fdeploy diff``: two versions side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local.stage import Stage, stage_that_was_up
from tests.packaged import write_model


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The first model is live, the second was live before; a third is exported only."""
    with stage_that_was_up(tmp_path_factory.mktemp("diff")) as stage:
        write_model(stage.folder, "third", multi_label=True)
        stage.restore()
        stage.ok("up", str(stage.folder / "second"))
        stage.ok("up", str(stage.folder / "first"))
        stage.ok("export", str(stage.folder / "third"))
        yield stage


def changed(found: Any) -> dict[str, tuple[str, str]]:
    return {
        fact["what"]: (fact["before"], fact["after"]) for fact in found["facts"] if fact["changed"]
    }


def test_the_live_version_and_the_bundle(serving: Stage) -> None:
    live = serving.ok("status").result["version"]
    found = serving.ok("diff").result
    assert [found[side]["name"] for side in ("before", "after")] == ["live", "bundle"]
    assert found["before"]["version"] == live
    assert " UTC by " in found["before"]["deployed"]
    assert found["after"]["deployed"] == ""
    facts = changed(found)
    assert facts["task"] == ("single-label", "multi-label")
    assert facts["threshold"] == ("none", "0.5")
    assert facts["size"][1] == "not packed"
    assert "labels" not in facts
    (learner,) = [fact for fact in found["facts"] if fact["what"] == "learner"]
    assert learner["before"] == "learner.pkl, 000000000000, fastai 2"


def test_two_deployed_versions(serving: Stage) -> None:
    first, second = (each["version"] for each in serving.ok("versions").result["versions"])
    found = serving.ok("diff", second[:6], first[:6]).result
    assert [found[side]["version"] for side in ("before", "after")] == [second, first]
    facts = changed(found)
    assert {"graph"} <= set(facts) <= {"graph", "weights", "size"}
    assert serving.ok("diff", "live", first).result["facts"][0]["changed"] is False
    assert changed(serving.ok("diff", "live", "live").result) == {}


def test_labels_that_come_and_go(serving: Stage) -> None:
    manifest = serving.dev / "bundle" / "manifest.json"
    before = manifest.read_bytes()
    values = json.loads(before)
    values["labels"] = ["negative", "neutral", "great"]
    manifest.write_text(json.dumps(values))
    try:
        found = serving.ok("diff").result
    finally:
        manifest.write_bytes(before)
    assert (found["added"], found["removed"]) == (["great"], ["positive"])


def test_versions_that_are_not_there(serving: Stage, tmp_path: Path) -> None:
    assert "was never deployed" in serving("diff", "zzz").error["message"]
    other = tmp_path / "fdeploy.toml"
    other.touch()
    ran = Stage(tmp_path, tmp_path)("diff")
    assert ran.error["message"] == "nothing is deployed in this stage"
    assert Stage(tmp_path, tmp_path)("diff", "bundle").error["code"] == "record-missing"

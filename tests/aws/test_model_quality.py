"""evaluate, diff and monitor against the double: versions in the bucket, captured requests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.bundle import read_manifest
from fastai_deploy.records import Bundle, Source
from fastai_deploy.workspace import Workspace
from tests.aws.stage import Open, Stage
from tests.aws_double.process import REGION
from tests.packaged import Model, bring
from tests.runtime.bundles import GOLDEN_TEXTS, WORDS

TEXTS = [f"{WORDS[place]} {WORDS[-place]} zzz" for place in range(40)]


def exported(stage: Stage) -> None:
    """Record the bundle in the workspace as the one that export wrote."""
    workspace = Workspace(stage.folder, "dev")
    manifest, version = read_manifest(workspace.bundle)
    source = Source(str(stage.folder / "gone.pkl"), "0" * 64, 1, 0)
    workspace.save(
        Bundle(
            path=str(workspace.bundle),
            version=version,
            name=manifest.name,
            task=manifest.task,
            labels=manifest.labels,
            proven=0,
            max_difference=0.0,
            source=source,
            golden=None,
            made_from="",
        )
    )


@pytest.fixture(scope="module")
def live(opened: Open, model: Model, other_model: Model) -> Stage:
    """Two versions, of which the second is live, and captures every request."""
    stage = opened(model, "")
    (stage.folder / "fdeploy.toml").write_text("[endpoint]\ndata_capture = 100\n")
    stage.run.ok("upload", "--region", REGION)
    stage.run.ok("deploy")
    bring(other_model, stage.folder)
    stage.run.ok("upload")
    stage.run.ok("deploy")
    exported(stage)
    file = stage.folder / "texts.csv"
    file.write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    stage.run.ok("invoke", "texts.csv", "--output", "answers.jsonl")
    stage.run.ok("invoke", "a single request")
    return stage


def versions(stage: Stage) -> tuple[str, str]:
    """The first and the second version."""
    second, first = stage.run.ok("versions", "--json").json["versions"]
    assert second["live"]
    return first["version"], second["version"]


def monitored(stage: Stage, *options: str) -> Any:
    return stage.run.ok("monitor", *options, "--json").json


def test_what_was_captured_stands_beside_the_goldens(live: Stage) -> None:
    found = monitored(live)
    _, second = versions(live)
    assert found["texts"] == len(TEXTS) + 1
    assert found["versions"] == {second: len(TEXTS) + 1}
    assert found["goldens"] == len(GOLDEN_TEXTS)
    assert "of fdeploy's own checks are left out" in " ".join(found["notes"])
    assert "goldens are few" in " ".join(found["notes"])
    lines = (live.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    counts = Counter(json.loads(line)["label"] for line in lines)
    shares = {each["label"]: each["captured"] for each in found["labels"]}
    for label, share in shares.items():  # one more text, the single request, has some label
        assert round(share * found["texts"]) - counts[label] in (0, 1)
    assert sum(shares.values()) == pytest.approx(1)
    figures = {each["figure"]: each for each in found["drift"]}
    assert set(figures) == {"labels", "confidence", "text length", "unknown tokens"}
    # "zzz" is not a word of the vocabulary, but made of its letters.
    assert figures["unknown tokens"]["captured"] == 0
    assert figures["unknown tokens"]["goldens"] > 0
    assert all(each["psi"] >= 0 for each in found["drift"])


def test_a_drift_above_the_limit_ends_with_16_unless_it_is_by_chance(live: Stage) -> None:
    strict = live.run("monitor", "--max-drift", "0", "--json")
    far = [each for each in strict.json["drift"] if each["psi"] > each["by_chance"]]
    assert bool(far) == (strict.status == 16)
    assert strict.json["failed"] == ("drift-too-large" if far else None)
    assert live.run.ok("monitor", "--max-drift", "100").stdout.startswith("captured   41 texts")


def test_only_the_newest_texts_are_read(live: Stage) -> None:
    found = monitored(live, "--most", "1")
    assert found["texts"] == 1
    assert "only the newest 1 texts were read" in found["notes"]


def test_nothing_captured(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    exported(stage)
    refused = stage.run("monitor", "--region", REGION, "--json")
    assert (refused.status, refused.error["code"]) == (2, "usage")
    assert "data_capture" in refused.error["hint"]
    local = stage.run("monitor", "--target", "local", "--json")
    assert "the local target captures nothing" in local.error["message"]


def test_versions_are_read_from_the_bucket(live: Stage, tmp_path: Path) -> None:
    first, second = versions(live)
    found = live.run.ok("diff", first, "live", "--json").json
    assert (found["before"]["version"], found["after"]["version"]) == (first, second)
    assert "graph" in [fact["what"] for fact in found["facts"] if fact["changed"]]
    rows = ({"text": text, "label": "positive"} for text in TEXTS)
    file = tmp_path / "labelled.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    evaluated = live.run("evaluate", str(file), "--against", first[:8], "--json").json
    endpoint, against = evaluated["columns"]
    assert (endpoint["name"], endpoint["version"]) == ("endpoint", second)
    assert (against["name"], against["what"]) == (first, "ONNX Runtime, fp32")
    assert against["paired"]["texts"] == len(TEXTS)

"""Learners whose file does not prove their answers: rejected, proven, or marked unproven."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import LEARNERS, Fdeploy
from tests.flow.learners import CONVERTIBLE, bring, goldens

LEGACY, _, ZIP, TAGS, IN_FILE, PLAIN = CONVERTIBLE
COMMAND = "fdeploy export learner.pkl"
# A learner as in a notebook: `learn.predict` of the rebuilt model, with fastai's return values. It
# answers as the original does, provided that the original's own code does what the model assumes.
STUB = """
import sys
from pathlib import Path
import torch
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.rebuild.rebuilt import rebuild_learner

with open_archive(Path("learner.pkl")) as (source, archive):
    rebuilt = rebuild_learner(examine(archive, source.size), [])
NAMES = rebuilt.anatomy.labels.names


class Category:
    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


class MultiCategory:
    def __init__(self, names):
        self.obj = names


class Learn:
    def predict(self, text):
        found = torch.tensor(rebuilt.answer([text])[0])
        if rebuilt.anatomy.task == "multi-label":
            chosen = [name for name, p in zip(NAMES, found) if p > 0.5]
            return MultiCategory(chosen), found > 0.5, found
        best = int(found.argmax())
        return Category(NAMES[best]), torch.tensor(best), found


learn = Learn()
exec(compile(Path("cell.py").read_text(encoding="utf-8"), "cell.py", "exec"))
"""


def run_cell(folder: Path, cell: str) -> list[dict[str, Any]]:
    """Run the printed cell in a process with a ``learn``, and read the file that it wrote."""
    (folder / "cell.py").write_text(cell, encoding="utf-8")
    subprocess.run([sys.executable, "-c", STUB], cwd=folder, check=True, timeout=240)
    lines = (folder / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_refusal_says_what_is_unproven_and_how_to_go_on(fdeploy: Fdeploy) -> None:
    bring(PLAIN, fdeploy.folder)
    for command in ("export", "up"):
        outcome = fdeploy(command, "learner.pkl", "--json")
        assert outcome.status == 5
        error = outcome.error
        assert error["code"] == "unproven-learner"
        assert [each["subject"] for each in error["unproven"]] == [
            "the encodes() of __main__.TransformersTokenizer",
            "the forward() of __main__.HFClassifier",
        ]
        assert all("not in the file" in each["reason"] for each in error["unproven"])
        assert f"{COMMAND} --golden golden.jsonl" in error["hint"]
        assert f"{COMMAND} --unproven" in error["hint"]
        assert len(error["cell"].splitlines()) <= 9
        assert error["cell"] in error["hint"]
    shown = fdeploy("export", "learner.pkl").stderr
    assert max(map(len, shown.partition("error:")[2].splitlines())) <= 80
    assert "  - the encodes() of __main__.TransformersTokenizer" in shown
    assert not (fdeploy.folder / ".fdeploy/dev/bundle").exists()


@pytest.mark.parametrize("name", [ZIP, TAGS, PLAIN])
def test_the_printed_cell_writes_the_goldens_that_prove_it(fdeploy: Fdeploy, name: str) -> None:
    bring(name, fdeploy.folder)
    (fdeploy.folder / "golden.jsonl").unlink()
    cell = fdeploy("export", "learner.pkl", "--json").error["cell"]
    rows = run_cell(fdeploy.folder, cell)
    assert max(len(row["text"].split()) for row in rows) > 512
    assert any("[SEP]" in row["text"] or "</s>" in row["text"] for row in rows)
    # What code that cleans texts would change.
    assert any("&amp;" in row["text"] and "GOOD" in row["text"] for row in rows)
    # transformers 2.1 answers an empty text at random, so it is left out.
    assert ("" in [row["text"] for row in rows]) is (name != TAGS)
    assert all("predicted" in row for row in rows)
    record = fdeploy.ok("export", "learner.pkl", "--golden", "golden.jsonl", "--json").json
    assert (record["proven"], record["unproven"]) == (len(rows), [])
    manifest = json.loads(Path(record["path"], "manifest.json").read_bytes())
    assert "unproven" not in manifest


def test_answers_under_another_label_are_reported(fdeploy: Fdeploy) -> None:
    """The learner says ``negative`` where its probabilities say ``positive``: own decodes()."""
    bring(ZIP, fdeploy.folder)
    first = goldens(ZIP)[0]
    best = max(first.probabilities, key=lambda label: first.probabilities[label])
    other = next(label for label in first.probabilities if label != best)
    row = {"text": first.text, "probabilities": first.probabilities, "predicted": other}
    (fdeploy.folder / "golden.jsonl").write_text(json.dumps(row), encoding="utf-8")
    error = fdeploy("export", "learner.pkl", "--golden", "golden.jsonl", "--json").error
    assert error["code"] == "parity"
    assert f"with {other}, but its probabilities give {best}" in error["message"]


def short(folder: Path, name: str) -> None:
    """Write goldens that the learner reads in full."""
    rows = [
        json.dumps({"text": each.text, "probabilities": each.probabilities})
        for each in goldens(name)
        if each.text.strip() and len(each.text) < 400
    ]
    (folder / "short.jsonl").write_text("\n".join(rows), encoding="utf-8")


def test_how_texts_are_cut_stays_unproven_without_a_long_text(fdeploy: Fdeploy) -> None:
    bring(ZIP, fdeploy.folder)
    short(fdeploy.folder, ZIP)
    error = fdeploy("export", "learner.pkl", "--golden", "short.jsonl", "--json").error
    assert error["code"] == "unproven-learner"
    (left,) = error["unproven"]
    assert "__main__.TransformersBaseTokenizer" in left["subject"]
    assert "no golden text is longer than 512 tokens" in left["reason"]
    assert "long = " in error["cell"]
    record = fdeploy.ok(
        "export", "learner.pkl", "--golden", "short.jsonl", "--unproven", "--json"
    ).json
    assert record["proven"] > 10
    (told,) = record["unproven"]
    assert "how it cuts such texts" in told


def test_code_that_is_in_the_file_needs_no_long_text(fdeploy: Fdeploy) -> None:
    bring(IN_FILE, fdeploy.folder)
    short(fdeploy.folder, IN_FILE)
    record = fdeploy.ok("export", "learner.pkl", "--golden", "short.jsonl", "--json").json
    assert record["unproven"] == []


def test_a_learner_that_fails_on_long_texts_is_proven_to(fdeploy: Fdeploy) -> None:
    bring(ZIP, fdeploy.folder)
    short(fdeploy.folder, ZIP)
    with (fdeploy.folder / "short.jsonl").open("a", encoding="utf-8") as file:
        failed = {"text": "so long " * 600, "error": "IndexError('index out of range in self')"}
        print("\n" + json.dumps(failed), file=file)
    record = fdeploy.ok("export", "learner.pkl", "--golden", "short.jsonl", "--json").json
    assert record["unproven"] == []
    manifest = json.loads(Path(record["path"], "manifest.json").read_bytes())
    assert (
        "a text that is too long: learn.predict fails; the bundle answers" in (manifest["residues"])
    )


def test_a_learner_that_fails_on_every_text_is_reported(fdeploy: Fdeploy) -> None:
    bring(ZIP, fdeploy.folder)
    row = json.dumps({"text": "a film", "error": "KeyError('title')"})
    (fdeploy.folder / "golden.jsonl").write_text(row, encoding="utf-8")
    error = fdeploy("export", "learner.pkl", "--golden", "golden.jsonl", "--json").error
    assert error["code"] == "golden"
    assert "the learner fails on every text, such as 'a film' (KeyError" in error["message"]


def test_goldens_that_disagree_are_not_blamed(fdeploy: Fdeploy) -> None:
    bring(PLAIN, fdeploy.folder)
    rows = [{"text": each.text, "probabilities": [0.2, 0.3, 0.5]} for each in goldens(PLAIN)]
    lines = "\n".join(map(json.dumps, rows))
    (fdeploy.folder / "golden.jsonl").write_text(lines, encoding="utf-8")
    error = fdeploy("export", "learner.pkl", "--golden", "golden.jsonl", "--json").error
    assert error["code"] == "parity"
    assert "the forward() of __main__.HFClassifier: its code is not in" in error["message"]
    assert "the encodes() of __main__.TransformersTokenizer" in error["message"]
    assert "--definitions model_def.py" in error["hint"]
    assert "--runtime learner" in error["hint"]
    assert "take" not in error["hint"]


def test_goldens_of_another_model_are_called_that(fdeploy: Fdeploy) -> None:
    """All code is in the file, so the learner cannot be the cause."""
    bring(IN_FILE, fdeploy.folder)
    row = {"text": "a fine film", "probabilities": [0.2, 0.3, 0.5]}
    (fdeploy.folder / "golden.jsonl").write_text(json.dumps(row), encoding="utf-8")
    error = fdeploy("export", "learner.pkl", "--golden", "golden.jsonl", "--json").error
    assert "its file does not show" not in error["message"]
    assert "another model" in error["hint"]
    assert "other library versions" in error["hint"]


def get(url: str, path: str) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_an_unproven_model_says_so_wherever_it_shows(fdeploy: Fdeploy) -> None:
    bring(PLAIN, fdeploy.folder)
    (fdeploy.folder / "fdeploy.toml").write_text(
        "[model]\nlearner = 'learner.pkl'\nunproven = true\n", encoding="utf-8"
    )
    found = fdeploy.ok("inspect", "--json").json
    assert [each["part"] for each in found["unproven"]] == ["text", "model"]
    assert found["verdict"]["kind"] == "with-goldens"
    assert "unproven   the forward() of __main__.HFClassifier: " in fdeploy.ok("inspect").stdout

    exported = fdeploy.ok("export")
    assert "warning: some answers are not proven to match the learner's" in exported.stderr
    assert "unproven the forward() of __main__.HFClassifier: " in exported.stdout
    api = fdeploy.ok("up", "--json").json
    manifest = json.loads((fdeploy.folder / ".fdeploy/dev/bundle/manifest.json").read_bytes())
    assert len(manifest["unproven"]) == 2
    for through in ([], ["--api"]):
        answer = fdeploy.ok("invoke", "a fine film", "--json", *through).json
        assert answer["model"]["unproven"] is True
    assert "some answers are not proven" in fdeploy.ok("invoke", "a fine film").stdout
    assert fdeploy.ok("status", "--json").json["unproven"] is True
    assert "unproven    some answers are not proven" in fdeploy.ok("status").stdout
    assert "Unproven: this model was converted" in get(api["url"], "/")
    assert "not proven" in fdeploy.ok("openapi", "--json").json["info"]["description"]

    bring(IN_FILE, fdeploy.folder)
    fdeploy.ok("up")
    answer = fdeploy.ok("invoke", "a fine film", "--json").json
    assert set(answer["model"]) == {"name", "precision", "version"}
    assert fdeploy.ok("status", "--json").json["unproven"] is False
    fdeploy.ok("rollback")
    assert fdeploy.ok("status", "--json").json["unproven"] is True


LOSSES = LEARNERS / "v2" / "losses"


def bring_loss(name: str, folder: Path) -> None:
    shutil.copyfile(LOSSES / f"{name}.pkl", folder / "learner.pkl")
    if (LOSSES / f"{name}.golden.jsonl").exists():
        shutil.copyfile(LOSSES / f"{name}.golden.jsonl", folder / "golden.jsonl")


@pytest.mark.parametrize("name", ["focal_raw", "own_focal_raw"])
def test_raw_scores_are_taken_as_scores(fdeploy: Fdeploy, name: str) -> None:
    """Neither fastai's own FocalLoss nor a user's class of that name has an activation."""
    bring_loss(name, fdeploy.folder)
    outcome = fdeploy.ok("export", "learner.pkl", "--golden", "golden.jsonl", "--json")
    assert "the goldens hold raw scores; softmax turns them into probabilities" in outcome.stderr
    assert outcome.json["proven"] == 6
    assert outcome.json["max_difference"] < 1e-5
    shown = fdeploy.ok("inspect", "learner.pkl").stdout
    assert "on raw scores: learn.predict returns those" in shown


def test_an_own_loss_of_a_known_name_is_unknown(fdeploy: Fdeploy) -> None:
    bring_loss("own_focal_activation", fdeploy.folder)
    error = fdeploy("export", "learner.pkl", "--json").error
    assert error["code"] == "unproven-learner"
    (unknown,) = error["unproven"]
    assert unknown["subject"] == "the activation() of the loss __main__.FocalLoss"
    assert unknown["code"] == "return F.softmax(p * 4, -1)"
    assert unknown["code"] in error["message"]
    error = fdeploy("export", "learner.pkl", "--golden", "golden.jsonl", "--json").error
    assert error["code"] == "parity"
    assert "the loss __main__.FocalLoss" in error["message"]


def test_the_unknown_loss_comes_before_the_number_of_outputs(fdeploy: Fdeploy) -> None:
    bring_loss("ordinal", fdeploy.folder)
    error = fdeploy("export", "learner.pkl", "--json").error
    assert "how its loss turns scores into probabilities is unknown (Coral)" in error["message"]
    assert "--runtime learner" in error["hint"]


def test_half_precision_gets_the_slack_of_the_tolerance(fdeploy: Fdeploy) -> None:
    bring_loss("bfloat16", fdeploy.folder)
    error = fdeploy("export", "learner.pkl", "--golden", "golden.jsonl", "--json").error
    assert "sum to 0.9985" in error["message"]
    assert "tolerance = 0.02" in error["hint"]
    (fdeploy.folder / "fdeploy.toml").write_text("[model]\ntolerance = 0.02\n", encoding="utf-8")
    record = fdeploy.ok("export", "learner.pkl", "--golden", "golden.jsonl", "--json").json
    assert record["proven"] == 6

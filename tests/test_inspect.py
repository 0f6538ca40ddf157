from __future__ import annotations

import pickle
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.cli.results import Inspected
from fastai_deploy.cli.show import show
from tests.conftest import Fdeploy
from tests.flow.learners import CONVERTIBLE, LEARNERS


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_a_convertible_learner(fdeploy: Fdeploy, name: str) -> None:
    path = str(LEARNERS / f"{name}.pkl")
    found = fdeploy.ok("inspect", path, "--json").json
    # Of all these only one has all of its code in the file.
    kind = "convertible" if name == "v2/v2_hfwrapper_f2812_t523" else "with-goldens"
    assert found["verdict"]["kind"] == kind
    assert bool(found["unproven"]) == (kind == "with-goldens")
    assert found["imports"]["dangerous"] == []
    assert found["model"]["architecture"].endswith("ForSequenceClassification")
    assert found["model"]["outputs"] == len(found["labels"])
    assert sum(m["parameters"] for m in found["model"]["modules"] if m["path"] == "") > 10_000
    shown = fdeploy.ok("inspect", path).stdout
    assert f"verdict    {kind}\n" in shown


def test_a_refused_learner_says_why(fdeploy: Fdeploy) -> None:
    path = str(LEARNERS / "v1/roberta_customhead_fastai1052_t211.pkl")
    verdict = fdeploy.ok("inspect", path, "--json").json["verdict"]
    assert verdict["kind"] == "with-definitions"
    assert verdict["reason"]
    assert f"fdeploy export {Path(path).name} --definitions model_def.py" in verdict["hint"]


def test_the_users_own_class_is_shown(fdeploy: Fdeploy) -> None:
    path = str(LEARNERS / "v1/roberta_fastai1052_t211.pkl")
    assert "def forward(self, input_ids" in fdeploy.ok("inspect", path).stdout


def test_inspecting_needs_no_heavy_library(fdeploy: Fdeploy) -> None:
    blocked = fdeploy.folder / "blocked"
    for module in ("torch", "numpy", "transformers", "onnxruntime", "fastai"):
        (blocked / module).mkdir(parents=True)
        (blocked / module / "__init__.py").write_text("raise ImportError", encoding="utf-8")
    command = Fdeploy(fdeploy.folder, {"PYTHONPATH": str(blocked)})
    command.ok("inspect", str(LEARNERS / f"{CONVERTIBLE[0]}.pkl"))


def test_a_file_cannot_paint_on_the_terminal(fdeploy: Fdeploy) -> None:
    found: dict[str, Any] = fdeploy.ok(
        "inspect", str(LEARNERS / f"{CONVERTIBLE[0]}.pkl"), "--json"
    ).json
    found["labels"] = ["\x1b[2J\x1b]0;owned\x07", "two\nlines", "\u202egnp.exe"]
    shown = StringIO()
    show(Inspected(found), shown, command="inspect", as_json=False)
    for line in shown.getvalue().removesuffix("\n").split("\n"):
        assert line.isprintable()
    assert "\\x1b[2J" in shown.getvalue()


def test_files_that_are_not_learners(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "x.pkl").write_bytes(pickle.dumps([1, 2]))
    assert fdeploy("inspect", "x.pkl", "--json").error["code"] == "not-a-learner"

"""Forms with fewer bits through the real command."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Fdeploy
from tests.flow.learners import CONVERTIBLE, bring

pytest.importorskip("openvino", reason="OpenVINO is used on x86 and Linux only")


def test_a_form_is_demanded_proven_and_served(fdeploy: Fdeploy) -> None:
    learner, golden = bring(CONVERTIBLE[0], fdeploy.folder)
    fdeploy.ok("up", learner, "--golden", golden, "--quantize", "int8-weights")
    folder = fdeploy.folder / ".fdeploy" / "dev"
    manifest = json.loads((folder / "bundle" / "manifest.json").read_bytes())
    forms = {form["precision"]: form["file"] for form in manifest["model"]["forms"]}
    assert forms == {"int8-weights": "model.int8-weights.onnx", "fp32": "model.onnx"}
    tried = json.loads((folder / "bundle-parity.json").read_bytes())["forms"]
    assert [form["precision"] for form in tried] == ["fp32", "int8-weights"]
    assert "<h2>Forms</h2>" in (folder / "bundle-parity.html").read_text(encoding="utf-8")
    # Which of the two is faster depends on the processor.
    answer = fdeploy.ok("invoke", "the movie was brilliant", "--json").json
    assert answer["model"]["precision"] in forms


def test_a_form_that_does_not_pass_names_the_rules_that_it_breaks(fdeploy: Fdeploy) -> None:
    learner, golden = bring(CONVERTIBLE[0], fdeploy.folder)
    (fdeploy.folder / "fdeploy.toml").write_text(
        "[model.gate]\nmean = 1e-9\np99 = 1e-9\n", encoding="utf-8"
    )
    refused = fdeploy("export", learner, "--golden", golden, "--quantize", "int8")
    assert refused.status == 6
    assert "the int8 model does not pass the gate: the mean |Δprobability| is" in refused.stderr
    assert "limit 1e-09" in refused.stderr
    assert "[model.gate] sets the limits" in refused.stderr
    (fdeploy.folder / "fdeploy.toml").write_text(
        '[model.gate]\nmean = 1e-9\nrules = ["labels"]\n', encoding="utf-8"
    )
    fdeploy.ok("export", learner, "--golden", golden, "--quantize", "int8")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("margin = 2", "less than 1"),
        ('rules = ["speed"]', "labels"),
        ("p95 = 0.1", "p99"),
    ],
)
def test_gates_that_cannot_be(fdeploy: Fdeploy, line: str, reason: str) -> None:
    (fdeploy.folder / "fdeploy.toml").write_text(f"[model.gate]\n{line}\n", encoding="utf-8")
    refused = fdeploy("config")
    assert refused.status == 3
    assert reason in refused.stderr

"""The parity report: data and page, written whether or not the gate passes."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.errors import ParityError
from fastai_deploy.parity.goldens import Case
from fastai_deploy.parity.report import Comparison, comparing, page, report_files

SCRIPT = "<script>alert('é')</script>"


def filled() -> Comparison:
    found = Comparison()
    cases = [
        Case("same", (0.9, 0.1), ("good",), 1),
        Case("off", (0.6, 0.4), ("good",), 2),
        Case(SCRIPT, (0.51, 0.49), ("good",), 3),
        Case("unknown to the learner", None, ("bad",), 4),
    ]
    found.begin(("good", "bad"), None, 1e-4, cases)
    found.add("torch", [(0.9, 0.1), (0.6, 0.4), (0.51, 0.49), (0.2, 0.8)])
    found.add("onnx", [(0.9, 0.1), (0.59, 0.41), (0.49, 0.51), (0.2, 0.8)])
    return found


def test_the_summary_has_every_form_and_the_worst_first() -> None:
    summary = filled().summary()
    assert [row["text"] for row in summary["rows"][:2]] == [SCRIPT, "off"]
    assert summary["changed"] == 1
    assert summary["learner_answers"] == 3
    assert summary["max_difference"]["torch"] == 0
    assert summary["max_difference"]["onnx"] == pytest.approx(0.02)
    worst = summary["rows"][0]
    assert worst["changed"]
    assert {form: each["labels"] for form, each in worst["answers"].items()} == {
        "learner": ["good"], "torch": ["good"], "onnx": ["bad"],
    }  # fmt: skip
    assert set(summary["rows"][-1]["answers"]) <= {"learner", "torch", "onnx"}


def test_accuracy_before_and_after() -> None:
    accuracy = filled().summary()["accuracy"]
    assert accuracy["learner"] == {"texts": 3, "accuracy": 1.0}
    assert accuracy["torch"] == {"texts": 4, "accuracy": 1.0}
    assert accuracy["onnx"] == {"texts": 4, "accuracy": 0.75}


def test_several_labels() -> None:
    found = Comparison()
    found.begin(("a", "b"), 0.5, 1e-4, [Case("x", (0.7, 0.6), ("a", "b"), 1)])
    found.add("onnx", [(0.7, 0.4)])
    summary = found.summary()
    assert summary["rows"][0]["answers"]["onnx"]["labels"] == ["a"]
    assert summary["changed"] == 1
    assert summary["accuracy"]["onnx"]["accuracy"] == 0


def test_non_finite_numbers_are_shown_as_valid_json() -> None:
    found = Comparison()
    found.begin(("a", "b"), None, 1e-4, [Case("x", (0.7, 0.3), None, 1)])
    found.add("onnx", [(math.nan, math.nan)])
    summary: dict[str, Any] = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["rows"][0]["difference"] is None
    assert summary["rows"][0]["changed"]
    assert "—" in page(summary)


class Seen(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_runs_nothing() -> None:
    seen = Seen()
    seen.feed(page(filled().summary()))
    assert not {"script", "link", "img", "iframe"} & set(seen.tags)
    assert not {"src", "href", "onload", "onclick"} & set(seen.attributes)
    assert SCRIPT in seen.text
    assert seen.tags.count("rect") == 4
    assert seen.tags.count("tr") == 5
    assert "accuracy 0.750 on 4 labelled texts" in seen.text


def test_a_passed_gate_leaves_a_report(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    with comparing(bundle) as found:
        found.begin(("a",), None, 1e-4, [Case("x", None, None, 1)])
        found.add("torch", [(1.0,)])
    data, shown = report_files(bundle)
    assert json.loads(data.read_bytes())["texts"] == 1
    assert shown.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_failed_gate_says_where_the_report_is(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    with pytest.raises(ParityError) as caught, comparing(bundle) as found:
        found.begin(("a", "b"), None, 1e-4, [Case("x", (1.0, 0.0), None, 1)])
        found.add("torch", [(0.0, 1.0)])
        raise ParityError("off", hint="look")
    assert caught.value.hint == f"look; {report_files(bundle)[1]} shows all texts"
    assert json.loads(report_files(bundle)[0].read_bytes())["changed"] == 1

"""What is written from the document of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from benchmarks.comparison.chart import chart
from benchmarks.comparison.figures import Figure, ratio
from benchmarks.comparison.headline import complete, headline, replaced
from benchmarks.comparison.matrix import CLOSED, cells
from benchmarks.comparison.models import REVIEWS, ROBERTA
from benchmarks.comparison.report import report

ROOT = Path(__file__).parents[2]
RATES = {
    "fdeploy-image": 60.0,
    "fdeploy-ray": 30.0,
    "fdeploy-local": 90.0,
    "article": 3.0,
    "openvino": 45.0,
}


def document() -> dict[str, Any]:
    """A run of two rounds and two learners; the second round is a third faster."""
    visits = [
        visit(number, learner, key, rate * (4 / 3 if number == 2 else 1))
        for number in (1, 2)
        for learner in (REVIEWS, ROBERTA)
        for key, rate in RATES.items()
    ]
    facts = {
        "learner_bytes": 91e6,
        "goldens": 200,
        "heldout": 1300,
        "labels": ["negative", "positive"],
        "learner_accuracy": 0.874,
        "exports": {
            "default": {"bundle": {}, "parity": {}, "bytes": {"local": 45e6}},
            "int8": {"refused": json.dumps({"error": {"message": "labels <changed>"}})},
        },
    }
    return {
        "about": {
            "date": "2026-11-29T08:00+00:00",
            "processor": "a processor",
            "cores": 2,
            "memory_gb": 24.0,
            "minutes": 18.0,
            "load_before": [0.1, 0.1, 0.1],
            "load_after": [2.0, 1.0, 1.0],
            "quick": False,
            "seconds": 1.2,
            "unusable": {"huggingface": "it needs Java"},
            "libraries": {"onnxruntime": "1.32"},
        },
        "learners": {REVIEWS: facts, ROBERTA: {**facts, "learner_accuracy": None}},
        "visits": visits,
        "skipped": [],
    }


def visit(number: int, learner: str, key: str, rate: float) -> dict[str, Any]:
    """What one server gave."""
    cell = {
        "rate": rate,
        "p50": 10.0,
        "p95": 20.0,
        "peak": rate,
        "statuses": {"200": 50, "503": 80},
        "seconds": 1.8,
        "retry_after": 80,
        "unanswered": 3,
        "client_cores": 0.1,
    }
    accuracy = 0.875 if learner == REVIEWS else None
    answers = {"texts": 1300, "accuracy": accuracy, "changed": 1}
    answers |= {"mean": 0.001, "p99": 0.008, "worst": 0.012}
    model = {"name": "m", "version": "1", "form": "bf16"} if "fdeploy" in key else {}
    return {
        "round": number,
        "learner": learner,
        "competitor": key,
        "start_s": 1.5,
        "memory": {"whole": 300.0, "largest": 200.0},
        "cells": {each.name: cell for each in cells(learner, number)},
        **({"answers": answers, "model": model} if number == 1 else {}),
    }


def test_ratios_are_taken_within_each_round() -> None:
    found = ratio(document(), REVIEWS, "fdeploy-image", "article", "12/8")
    assert found == Figure((20.0, 20.0))


def test_a_round_without_the_other_gives_no_ratio() -> None:
    run = document()
    run["visits"] = [
        each for each in run["visits"] if (each["round"], each["competitor"]) != (2, "article")
    ]
    assert ratio(run, REVIEWS, "fdeploy-image", "article", "12/8") == Figure((20.0,))
    assert ratio(run, REVIEWS, "fdeploy-image", "litserve", "12/8") is None


def test_the_page_has_every_figure_and_says_what_was_not_measured() -> None:
    text = report(document(), "chart.svg", None)
    assert "Not measured: HF toolkit, because it needs Java." in text
    assert '`quantize = "int8"` was refused by the gate: labels <changed>' in text
    assert "70.0 (60.0 to 80.0)" in text
    assert "| fdeploy (its own image) | bf16 | 1,300 | 0.8750 | 1 |" in text
    assert "**not trained**" in text
    columns = {len(line.split(" | ")) for line in text.splitlines() if "tokens, 1 client" in line}
    assert columns == {len(CLOSED) + 1}


def test_a_failed_server_is_named() -> None:
    run = document()
    run["visits"][0] = {**run["visits"][0], "cells": {}, "failed": "it did not start"}
    assert f"Failed in round 1: fdeploy (its own image), {REVIEWS}." in report(run, "", None)


def test_the_headline_says_what_was_measured() -> None:
    found = " ".join(headline(document()).split())
    assert "| `learn.predict` in AWS's toolkit | 20.0 | 20.0 |" in found
    assert "| the fastest of all other servers | 1.33 (OpenVINO) | 1.33 (OpenVINO) |" in found
    assert "adapter, answers 0.50 and 0.50 times as many as the container" in found
    assert "its accuracy is 0.8740, and that of the form which fdeploy serves 0.8750" in found
    assert "random weights" in found


def test_only_a_complete_run_is_quoted() -> None:
    run = document()
    assert complete(run)
    assert not complete({**run, "about": {**run["about"], "quick": True}})
    run["visits"] = [each for each in run["visits"] if each["competitor"] != "fdeploy-image"]
    assert not complete(run)


def test_a_run_without_the_untrained_model_says_nothing_about_it() -> None:
    run = document()
    run["visits"] = [each for each in run["visits"] if each["learner"] != ROBERTA]
    assert complete(run)
    assert "random weights" not in headline(run)


def test_the_headline_is_replaced_in_place() -> None:
    begin, end = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- end of speed -->")
    new = replaced(f"{begin}<!-- end of speed -->{end}", document())
    assert new.count(headline(document())) == 1
    assert new.startswith(begin.partition("<!-- speed")[0])
    assert new.endswith(end)
    assert replaced(new, document()) == new


def test_the_chart_is_valid() -> None:
    drawn = ET.fromstring(chart(document()))  # noqa: S314  # its own
    bars = drawn.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 3 * len(RATES)

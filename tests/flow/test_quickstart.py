"""The `make demo` example, and the accuracy of its learner on texts it has not seen."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Fdeploy, result_of

pytestmark = pytest.mark.fresh_interpreter
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "quickstart"
SHIPPED = ("learner.pkl", "fdeploy.toml", "texts.jsonl", "heldout.csv")


def test_the_example_answers_sensibly(fdeploy: Fdeploy) -> None:
    for name in SHIPPED:
        shutil.copy(EXAMPLE / name, fdeploy.folder)
    fdeploy.ok("up")
    shown = fdeploy.ok("invoke", "the plot is thin but I loved it", "--json").json
    assert shown["label"] == "positive"
    through = fdeploy.ok("invoke", "--api", "My order arrived late and broken.", "--json").json
    assert through["label"] == "negative"

    with (EXAMPLE / "heldout.csv").open(encoding="utf-8", newline="") as file:
        expected = [row["label"] for row in csv.DictReader(file)]
    lines = fdeploy.ok("invoke", "heldout.csv", "--json").stdout.splitlines()
    given = [result_of(line)["label"] for line in lines]
    assert len(given) == len(expected)
    right = sum(a == b for a, b in zip(given, expected, strict=True))
    assert right / len(expected) > 0.8, f"{right} of {len(expected)}"


def test_its_texts_are_those_whose_answers_are_kept() -> None:
    texts = (EXAMPLE / "texts.txt").read_text(encoding="utf-8").splitlines()
    kept = (EXAMPLE / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in kept] == texts

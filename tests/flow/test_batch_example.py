"""The commands of examples/batch, run as its README has them."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.conftest import Fdeploy

pytestmark = pytest.mark.fresh_interpreter
EXAMPLES = Path(__file__).parents[2] / "examples"
SHIPPED = ("quickstart/learner.pkl", "quickstart/texts.jsonl")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_commands_of_the_example(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "batch", tmp_path / "batch"))
    for name in SHIPPED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / name, tmp_path / name)
    page = (folder / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    shown = re.search(r"```\n(output .*?)```", page, re.DOTALL)
    assert block
    assert shown
    fdeploy = Fdeploy(folder)
    said = [fdeploy.ok(*shlex.split(line)[1:]).stdout for line in block[1].splitlines()]
    assert said[1].startswith(shown[1])

    given, answers = rows(folder / "reviews.csv"), rows(folder / "answers.csv")
    assert [{name: row[name] for name in given[0]} for row in answers] == given
    by_id = {row["id"]: row["label"] for row in answers}
    right = {"101": "positive", "102": "negative", "103": "neutral", "106": "negative"}
    assert {number: by_id[number] for number in right} == right

    lines = (folder / "again.jsonl").read_text(encoding="utf-8").splitlines()
    again = [json.loads(line) for line in lines]
    assert [row["predicted_label"] for row in again] == [row["label"] for row in answers[:3]]

    table = parquet.read_table(folder / "answers.parquet")
    assert table.column("label").to_pylist() == [row["label"] for row in answers]
    assert json.loads(table.column("probabilities").to_pylist()[0]).keys() == {answers[0]["label"]}

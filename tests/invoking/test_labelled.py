"""Labelled files: what is a truth, what is missing, and what was decided."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fastai_deploy.batch_invoke.labelled import Labelled, LabelledColumns, read_labelled
from fastai_deploy.errors import GoldenError, UsageError
from fastai_deploy.parity.goldens import Labels

SINGLE = Labels(("0", "1", "good; bad"))
SEVERAL = Labels(("fast", "cheap", "good"), several=True)


@dataclass
class Reading:
    folder: Path
    said: list[str] = field(default_factory=list)

    def __call__(
        self, name: str, content: str, labels: Labels, columns: LabelledColumns | None = None
    ) -> Labelled:
        path = self.folder / name
        path.write_bytes(content.encode())
        chosen = columns or LabelledColumns()
        return read_labelled(path, chosen, labels, io.BytesIO(), self.said.append)


@pytest.fixture
def read(tmp_path: Path) -> Reading:
    return Reading(tmp_path)


def test_a_table_with_numbers_that_pandas_wrote(read: Reading) -> None:
    found = read("a.csv", 'text,label\nbad,0.0\n"so, so",\ngood,1.0\n', SINGLE)
    assert [(case.line, case.text, case.expected) for case in found.cases] == [
        (1, "bad", ("0",)),
        (3, "good", ("1",)),
    ]
    assert (found.unlabelled, found.empty) == (1, 0)


def test_columns_by_name_and_by_number(read: Reading) -> None:
    named = LabelledColumns("review", "stars")
    expected = [("fine", ("1",))]
    for name, content, columns in (
        ("a.csv", "stars;review\n1;fine\n", named),
        ("a.tsv", "review\tstars\nfine\t1\n", named),
        ("a.csv", "fine,1\n", LabelledColumns(header=False)),
        ("a.csv", "1,fine\n", LabelledColumns("2", "1", header=False)),
        ("a.csv", "sep=;\r\nstars;review\r\n1;fine\r\n", named),
        ("a.jsonl", '{"review": "fine", "stars": 1}\n', named),
        ("a.json", '[{"review": "fine", "stars": 1.0}]', named),
    ):
        found = read(name, content, SINGLE, columns)
        assert [(case.text, case.expected) for case in found.cases] == expected, content
    assert read.said == ['a.csv, line 1: "sep=;" sets the separator and is not a text']


def test_several_labels(read: Reading) -> None:
    expected = [("fast", "good"), (), ("cheap",)]
    table = read("a.csv", "text,label\na,fast; good\nb,\nc,cheap\n", SEVERAL)
    assert [case.expected for case in table.cases] == expected
    rows = [("a", ["fast", "good"]), ("b", []), ("c", "cheap"), ("d", None)]
    lines = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    found = read("a.jsonl", lines, SEVERAL)
    assert [case.expected for case in found.cases] == expected
    assert found.unlabelled == 1  # null is not known; an empty list is no label


def test_a_label_may_contain_a_semicolon(read: Reading) -> None:
    (case,) = read("a.csv", "text,label\na,good; bad\n", SINGLE).cases
    assert case.expected == ("good; bad",)


def test_several_labels_may_contain_semicolons(read: Reading) -> None:
    labels = Labels(("good; bad", "fast", "[1]"), several=True)
    cells = ("[1]", '["good; bad", "fast"]', "[]", "good; bad", "[1]; fast")
    table = "\n".join(json.dumps({"text": "a", "label": cell}) for cell in cells)
    expected = [("[1]",), ("good; bad", "fast"), (), ("good; bad",), ("[1]", "fast")]
    assert [case.expected for case in read("a.jsonl", table, labels).cases] == expected
    with pytest.raises(GoldenError, match="no label 'good'") as refused:
        read("a.csv", "text,label\na,good; bad; fast\n", labels)
    assert 'as a list in JSON, such as ["a", "b"]' in refused.value.hint


def test_the_labels_that_batch_wrote_can_be_judged(read: Reading) -> None:
    (case,) = read("a.csv", 'text,label\na,"[""fast"", ""good""]"\n', SEVERAL).cases
    assert case.expected == ("fast", "good")


def test_a_blank_label_of_the_model_is_a_label(read: Reading) -> None:
    labels = Labels(("", " ", "good"))
    found = read("a.csv", 'text,label\na,\nb," "\nc,good\nd,"   "\n', labels)
    assert [case.expected for case in found.cases] == [("",), (" ",), ("good",)]
    assert found.unlabelled == 1


def test_the_learners_own_answers_are_read_as_in_a_golden_file(read: Reading) -> None:
    labels = Labels(("no", "yes"), raw=True)
    lines = (
        '{"text": "a", "label": "yes", "scores": [-2, 2]}\n'
        '{"text": "b", "label": "no"}\n'
        '{"text": "c", "label": "no", "scores": {"no": 1, "yes": 1}}\n'
    )
    found = read("a.jsonl", lines, labels)
    assert [case.line for case in found.cases] == [1, 2, 3]
    first, second, third = (case.probabilities for case in found.cases)
    assert first == pytest.approx((0.018, 0.982), abs=1e-3)
    assert (second, third) == (None, (0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label\na,0\nb,2\n", "a.csv, row 2: the learner has no label '2'"),
        ("a.json", '[{"text": "a", "label": "x"}]', "a.json, item 1: the learner has no label 'x'"),
        ("a.jsonl", '\n{"text": "a", "label": {}}', "a.jsonl, line 2: the learner has no label"),
        ("a.jsonl", '{"text": "a", "label": "0", "probabilities": [1]}', "3 probabilities"),
    ],
)
def test_errors_name_the_place(read: Reading, name: str, content: str, said: str) -> None:
    with pytest.raises(GoldenError) as refused:
        read(name, content, SINGLE)
    assert said in refused.value.message


def test_a_missing_label_column_names_its_option(read: Reading) -> None:
    with pytest.raises(UsageError) as refused:
        read("a.csv", "text,stars\na,1\n", SINGLE)
    assert "--label-column" in refused.value.hint
    with pytest.raises(UsageError) as refused:
        read("a.csv", "review,label\na,1\n", SINGLE)
    assert "--column NAME" in refused.value.hint
    with pytest.raises(UsageError, match="not a table"):
        read("a.jsonl", "{}", SINGLE, LabelledColumns(header=False))

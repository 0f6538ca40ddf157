from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastai_deploy.errors import FileMissing, GoldenError
from fastai_deploy.parity.goldens import MOST, Case, Golden, Labels, read_cases, render

ONE = Labels(("neg", "pos"))
SEVERAL = Labels(("a", "b", "c;d"), several=True)


def cases(folder: Path, name: str, content: str | bytes, labels: Labels = ONE) -> tuple[Case, ...]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_cases(path, labels)


def test_texts(tmp_path: Path) -> None:
    found = cases(tmp_path, "a.txt", "\ufefffirst text\r\n\n  second \n")
    assert [(each.text, each.line) for each in found] == [("first text", 1), ("  second ", 3)]
    assert found[0].probabilities is None
    assert found[0].expected is None


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        {"text": "a"},
        {"text": "b", "probabilities": {"pos": 0.9, "neg": 0.1}, "label": "pos"},
        {"text": "", "probabilities": [0.25, 0.75]},
    ]
    found = cases(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert found[0] == Case("a", None, None, 1)
    assert found[1] == Case("b", (0.1, 0.9), ("pos",), 2)
    assert found[2] == Case("", (0.25, 0.75), None, 3)


def test_json_lines_of_several_labels(tmp_path: Path) -> None:
    lines = ['{"text": "a", "label": ["a", "c;d"], "probabilities": [1, 0.9, 0]}',
             '{"text": "b", "label": []}']  # fmt: skip
    found = cases(tmp_path, "a.jsonl", "\n".join(lines), SEVERAL)
    assert found[0].expected == ("a", "c;d")
    assert found[1].expected == ()


def test_csv(tmp_path: Path) -> None:
    found = cases(tmp_path, "a.CSV", 'id,text,label\n1,"two\nlines, one ""text""",pos\n2,b,\n\n')
    assert found[0].text == 'two\nlines, one "text"'
    assert [each.expected for each in found] == [("pos",), None]
    assert [each.line for each in found] == [3, 4]
    several = cases(tmp_path, "b.csv", "text,label\nx,a; b\ny,c;d\n", SEVERAL)
    assert [each.expected for each in several] == [("a", "b"), ("c;d",)]


def test_labels_that_are_numbers(tmp_path: Path) -> None:
    assert cases(tmp_path, "a.jsonl", '{"text": "a", "label": 1}', Labels(("0", "1")))[
        0
    ].expected == ("1",)


WRONG: dict[str, tuple[str, str | bytes, Labels, str]] = {
    "suffix": ("a.xlsx", "x", ONE, "unknown suffix"),
    "empty": ("a.txt", "\n \n", ONE, "contains no text"),
    "empty csv": ("a.csv", "", ONE, "contains no text"),
    "too many": ("a.txt", "x\n" * (MOST + 1), ONE, "the limit is 10,000"),
    "not UTF-8": ("a.txt", b"good\nb\xe9d\n", ONE, "line 2: not valid UTF-8"),
    "not JSON": ("a.jsonl", '{"text": "a"}\n{', ONE, "line 2: invalid JSON"),
    "deep JSON": ("a.jsonl", "[" * 100_000, ONE, "line 1: invalid JSON"),
    "no object": ("a.jsonl", "[]", ONE, 'no "text"'),
    "no text": ("a.jsonl", '{"label": "pos"}', ONE, 'no "text"'),
    "a number": ("a.jsonl", '{"text": 3}', ONE, 'no "text"'),
    "a surrogate": ("a.jsonl", '{"text": "\\ud800"}', ONE, "surrogate"),
    "an unknown label": ("a.jsonl", '{"text": "a", "label": "maybe"}', ONE, "no label 'maybe'"),
    "a label of another kind": ("a.jsonl", '{"text": "a", "label": {}}', ONE, "no label"),
    "two labels": ("a.jsonl", '{"text": "a", "label": ["pos", "neg"]}', ONE, "is single-label"),
    "too few": ("a.jsonl", '{"text": "a", "probabilities": [1]}', ONE, "must be 2"),
    "text for probabilities": ("a.jsonl", '{"text": "a", "probabilities": "x"}', ONE, "must be 2"),
    "other labels": ("a.jsonl", '{"text": "a", "probabilities": {"x": 1, "pos": 0}}', ONE,
                     "exactly the learner's labels"),
    "above 1": ("a.jsonl", '{"text": "a", "probabilities": [1.2, 0]}', ONE, "from 0 to 1"),
    "a text that no request holds": (
        "a.txt", "good\n" + "good " * 300_000, ONE, "line 2: the text has 1,500,000 bytes",
    ),
    "a JSON text that no request holds": (
        "a.jsonl", '{"text": "' + "x" * 1_048_577 + '"}', ONE, "line 1: the text has 1,048,577",
    ),
    "a key twice": ("a.jsonl", '{"text": "a", "text": "b"}', ONE, "duplicate key 'text'"),
    "probabilities and scores": (
        "a.jsonl", '{"text": "a", "scores": [-1, 1], "probabilities": [0.1, 0.9]}', ONE,
        'line 1: it has both "probabilities" and "scores"',
    ),
    "answers under another key": (
        "a.jsonl", '{"text": "a", "label": "pos", "probs": [0.1, 0.9]}', ONE,
        "line 1: the numbers in 'probs' look like the learner's answer, but are not read",
    ),
    "answers by label under another key": (
        "a.jsonl", '{"text": "a", "output": {"neg": 0.1, "pos": 0.9}}', ONE, "'output' look like",
    ),
    "a predicted label alone": (
        "a.jsonl", '{"text": "a", "predicted": "pos"}', ONE, "'?predicted\"? is only compared with",
    ),
    "answers in csv": (
        "a.csv", "text,probabilities\nx,0.9\n", ONE, "line 1: the column probabilities looks like",
    ),
    "answers in csv by label": (
        "a.csv", "text,pos,neg\nx,0.9,0.1\n", ONE, "the column neg looks like the learner's answer",
    ),
    "a column twice": ("a.csv", "text,label,text\nx,pos,y\n", ONE, "2 columns are named text"),
    "NaN": ("a.jsonl", '{"text": "a", "probabilities": [NaN, 0]}', ONE, "NaN is not valid"),
    "a flag": ("a.jsonl", '{"text": "a", "probabilities": [true, 0]}', ONE, "from 0 to 1"),
    "no sum of 1": ("a.jsonl", '{"text": "a", "probabilities": [0.5, 0.6]}', ONE, "sum to 1.1"),
    "no column": ("a.csv", "body,label\nx,pos\n", ONE, "line 1: there is no column text"),
    "a short row": ("a.csv", "text,label\nx\n", ONE, "line 2: 1 fields"),
    "an open quote": ("a.csv", 'text\n"x\n', ONE, "invalid CSV"),
    "an unknown label in csv": ("a.csv", "text,label\nx,pos\ny,no\n", ONE, "line 3: .*no label"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    file, content, labels, message = WRONG[name]
    with pytest.raises(GoldenError, match=message) as caught:
        cases(tmp_path, file, content, labels)
    assert file in caught.value.message
    assert caught.value.hint


def test_other_keys_are_left_alone(tmp_path: Path) -> None:
    line = '{"text": "a", "id": 3, "one_hot": [0, 1], "vector": [0.1, 0.2, 0.3]}'
    assert cases(tmp_path, "a.jsonl", line) == (Case("a", None, None, 1),)


def test_a_label_that_is_blank(tmp_path: Path) -> None:
    found = cases(tmp_path, "a.csv", "text,label\nx,\ny,pos\n", Labels(("", "pos")))
    assert [each.expected for each in found] == [("",), ("pos",)]


def test_labels_in_an_error_can_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(GoldenError) as caught:
        cases(tmp_path, "a.csv", "text,label\nx,pos\n", Labels(("", "a, b", "new\nline", "neg")))
    assert caught.value.hint == r"its labels are: '', 'a, b', 'new\nline', neg"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_cases(tmp_path / "none.txt", ONE)


def test_goldens_are_written_in_one_way() -> None:
    goldens = [Golden("é", (0.25, 0.75), "learner", ("pos",)), Golden("b", (1.0, 0.0), "rebuilt")]
    document = json.loads(render(goldens, ONE))
    assert document == {
        "goldens": [
            {"text": "é", "probabilities": {"neg": 0.25, "pos": 0.75}, "source": "learner",
             "expected": "pos"},
            {"text": "b", "probabilities": {"neg": 1.0, "pos": 0.0}, "source": "rebuilt"},
        ]
    }  # fmt: skip
    assert render(goldens, ONE) == render(goldens, ONE)
    several = [Golden("x", (0.9, 0.1, 0.6), "learner", ("a", "c;d"))]
    assert json.loads(render(several, SEVERAL))["goldens"][0]["expected"] == ["a", "c;d"]

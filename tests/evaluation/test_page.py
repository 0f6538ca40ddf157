"""The report page and the terminal: everything is shown, and texts stay texts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from fastai_deploy.evaluation.local_answers import Column
from fastai_deploy.evaluation.metrics import Answer
from fastai_deploy.evaluation.page import page
from fastai_deploy.evaluation.result import Evaluation, Limits, Source, evaluated
from fastai_deploy.parity.goldens import Case

HOSTILE = "<script>alert(1)</script> &amp; \" ' ` |"


def case(text: str, truth: tuple[str, ...], line: int = 1) -> Case:
    return Case(text, None, truth, line)


def made(
    names: tuple[str, ...], *, several: bool = False, texts: int = 40, other: bool = True
) -> Evaluation:
    """Answers in turn, every seventh of them wrong, and every tenth missing."""
    cases, answers, before = [], [], []
    for place in range(texts):
        truth = names[place % len(names)]
        given = names[(place + 1) % len(names)] if place % 7 == 0 else truth
        missing = place % 10 == 9
        cases.append(case(f"text {place} {HOSTILE}", (truth,), place + 1))
        answers.append(
            Answer((), error="model_error: failed")
            if missing
            else Answer((given,), {name: 0.7 if name == given else 0.1 for name in names})
        )
        before.append(Answer((truth,), {truth: 0.9}) if place % 2 else None)
    columns = [Column("served", "ONNX Runtime, int8", "0123456789ab", tuple(answers))]
    if other:
        columns.insert(0, Column("learner", "its own answers", "", tuple(before)))
    return evaluated(
        cases,
        columns,
        "served",
        names=names,
        several=several,
        source=Source(f"{HOSTILE}.csv"),
        on="the bundle, asked on this machine",
        model=HOSTILE,
        limits=Limits(min_accuracy=0.99),
    )


class Tags(HTMLParser):
    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("labels", [1, 2, 30])
def test_the_page_loads_nothing_and_runs_nothing(*, several: bool, labels: int) -> None:
    names = tuple(f"{HOSTILE} {place}" for place in range(labels))
    content = page(made(names, several=several))
    tags = Tags(content)
    assert "script" not in tags.tags
    assert not {"src", "href", "onclick", "onload"} & {name for name, _ in tags.attributes}
    assert "default-src 'none'" in content
    assert not re.search(r"https?://", content)
    assert HOSTILE not in content
    assert "Evaluation of &lt;script&gt;" in content
    assert "less than --min-accuracy 0.99" in content


def test_a_matrix_of_many_labels_is_a_list_of_confused_pairs() -> None:
    few = page(made(("a", "b", "c")))
    assert "<table class=matrix>" in few
    assert "no answer" in few
    many = page(made(tuple(f"label {place}" for place in range(30))))
    assert "<table class=matrix>" not in many
    assert "<th>truth<th>answer<th class=r>texts" in many
    assert "<table class=matrix>" not in page(made(("a", "b"), several=True))


def test_changed_and_wrong_answers_are_listed_on_the_page_and_in_the_terminal() -> None:
    found = made(("a", "b"))
    shown = "\n".join(found.lines())
    assert "learner -> served: " in shown
    assert re.search(r"row \d+: b -> a, truth b", shown)
    assert "texts got no answer from served; they count as wrong" in shown
    assert found.wrong[0].answers["served"].score == 0.7
    assert not any(row.right for row in found.wrong)
    content = page(found)
    for row in (*found.changed, *found.wrong):
        assert f"<td class='n r'>{row.row}<td class=t>text {row.row - 1} " in content


def test_lines_fit_into_a_terminal() -> None:
    assert max(map(len, made(("negative", "neutral", "positive"), other=False).lines())) <= 80


def test_only_texts_of_both_columns_are_paired() -> None:
    found = made(("a", "b"))
    learner, served = found.columns
    assert learner.figures.texts == 20
    assert served.figures.texts == 40
    assert learner.paired is not None
    assert learner.paired.texts == 20
    assert served.paired is None

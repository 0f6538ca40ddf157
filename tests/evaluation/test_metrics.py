"""The figures against those of scikit-learn and SciPy (make_reference.py), and their properties."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastai_deploy.evaluation.intervals import bootstrap, delta, mcnemar, wilson, wilson_f1
from fastai_deploy.evaluation.metrics import Answer, Figure, figures, paired

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("reference.json").read_bytes())
NAMES = ("a", "b", "c")


def value(figure: Figure | None) -> float:
    assert figure is not None
    assert figure.value is not None
    return figure.value


def check_labels(found: Any, expected: dict[str, list[float]]) -> None:
    for label in found.labels:
        precision, recall, f1, support = expected.get(label.label, (None, None, None, 0))
        assert label.support == support
        # scikit-learn says 0 where there is no figure.
        assert label.precision.value == pytest.approx(precision if label.answered else None)
        assert label.recall.value == pytest.approx(recall if support else None)
        assert label.f1.value == pytest.approx(f1 if support or label.answered else None)


@pytest.mark.parametrize("case", REFERENCE["single"], ids=lambda case: f"{len(case['truths'])}")
def test_single_label_figures_are_scikit_learns(case: dict[str, Any]) -> None:
    answers = [
        Answer((label,), {label: score})
        for label, score in zip(case["answers"], case["scores"], strict=True)
    ]
    truths = [(truth,) for truth in case["truths"]]
    found = figures(truths, answers, tuple(case["names"]), several=False)
    assert value(found.accuracy) == pytest.approx(case["accuracy"])
    assert found.accuracy.interval is not None
    low, high = case["accuracy_interval"]
    assert found.accuracy.interval.low == pytest.approx(low, abs=1e-12)
    assert found.accuracy.interval.high == pytest.approx(high, abs=1e-12)
    assert value(found.macro_f1) == pytest.approx(case["macro"])
    assert value(found.weighted_f1) == pytest.approx(case["weighted"])
    assert found.micro_f1 is None
    check_labels(found, case["labels"])
    assert [list(row[:-1]) for row in found.confusion] == case["confusion"]
    assert all(row[-1] == 0 for row in found.confusion)
    assert found.calibration is not None
    assert value(found.calibration.error) == pytest.approx(case["calibration_error"])


@pytest.mark.parametrize("case", REFERENCE["several"], ids=lambda case: f"{len(case['truths'])}")
def test_multi_label_figures_are_scikit_learns(case: dict[str, Any]) -> None:
    answers = [Answer(tuple(labels)) for labels in case["answers"]]
    truths = [tuple(labels) for labels in case["truths"]]
    found = figures(truths, answers, tuple(case["names"]), several=True)
    assert value(found.accuracy) == pytest.approx(case["accuracy"])
    assert value(found.macro_f1) == pytest.approx(case["macro"])
    assert value(found.weighted_f1) == pytest.approx(case["weighted"])
    assert value(found.micro_f1) == pytest.approx(case["micro"])
    check_labels(found, case["labels"])
    assert found.confusion == ()
    assert found.calibration is None  # no probabilities


@pytest.mark.parametrize("case", REFERENCE["mcnemar"], ids=str)
def test_mcnemar_is_scipys_binomial_test(case: dict[str, Any]) -> None:
    assert mcnemar(case["lost"], case["gained"]) == pytest.approx(case["p"])


@pytest.mark.parametrize("case", REFERENCE["wilson"], ids=str)
def test_wilson_is_scipys(case: dict[str, Any]) -> None:
    found = wilson(case["right"], case["count"])
    assert found is not None
    assert [found.low, found.high] == pytest.approx(case["interval"], abs=1e-12)


def test_mcnemar_of_many_texts_is_approximated_closely() -> None:
    assert mcnemar(2_601, 2_400) == pytest.approx(mcnemar(2_600, 2_399), rel=0.02)
    assert mcnemar(60_000, 40_000) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("average", "several"), [("macro_f1", False), ("weighted_f1", False), ("micro_f1", True)]
)
def test_the_delta_method_gives_the_interval_that_the_jackknife_gives(
    average: str, *, several: bool
) -> None:
    """For 200 random answers, many of them wrong (Efron and Tibshirani, chapter 11)."""
    draw = random.Random(7)  # noqa: S311 - statistics, not secrets
    rows = []
    for _ in range(200):
        truth = draw.choices(NAMES, weights=(6, 3, 1), k=2 if several else 1)
        answer = [*truth[:-1], draw.choice((truth[-1], *NAMES, "a"))]
        rows.append((tuple(set(truth)), Answer(tuple(set(answer)))))

    def made(some: list[tuple[tuple[str, ...], Answer]]) -> Figure:
        found = figures([t for t, _ in some], [a for _, a in some], NAMES, several=several)
        figure: Figure = getattr(found, average)
        return figure

    count = len(rows)
    without = [value(made(rows[:place] + rows[place + 1 :])) for place in range(count)]
    mean = sum(without) / count
    spread = math.sqrt((count - 1) / count * sum((each - mean) ** 2 for each in without))
    figure = made(rows)
    assert figure.interval is not None
    assert figure.interval.high - value(figure) == pytest.approx(1.96 * spread, rel=0.03)
    assert value(figure) - figure.interval.low == pytest.approx(1.96 * spread, rel=0.03)


def test_what_cannot_be_said_is_none() -> None:
    found = figures([("a",)], [Answer(("a",))], NAMES, several=False)
    assert found.accuracy.value == 1
    assert found.accuracy.interval is not None
    assert found.accuracy.interval.low < 0.5  # one text says little
    assert found.macro_f1 == Figure(1.0, None)
    unseen = found.labels[1]
    assert (unseen.precision, unseen.recall, unseen.f1) == (Figure(None),) * 3
    assert found.calibration is None
    assert wilson(0, 0) is None
    assert wilson_f1(0, 0) is None
    assert delta(1.0, [0.0] * 100) is None
    assert delta(0.5, [1.0, -1.0]) is None
    assert bootstrap([[(0, 0.1)]], 0.1) is None
    none = figures([()], [Answer(())], NAMES, several=True)
    assert (none.accuracy.value, none.micro_f1) == (1.0, Figure(None))
    with pytest.raises(ValueError, match="at least one"):
        figures([], [], NAMES, several=False)


def test_no_answer_is_wrong() -> None:
    answers = [Answer((), error="model_error: failed"), Answer(("a",), {"a": 0.9})]
    found = figures([("a",), ("a",)], answers, NAMES, several=False)
    assert (found.unanswered, found.accuracy.value) == (1, 0.5)
    assert found.confusion[0] == (1, 0, 0, 1)
    assert value(found.labels[0].recall) == 0.5
    empty = figures([()], [Answer((), error="failed")], NAMES, several=True)
    assert empty.accuracy.value == 0  # although the text has no label either


def test_a_label_of_another_version_is_wrong_and_counted_as_no_answer() -> None:
    found = figures([("a",)], [Answer(("z",), {"z": 0.8})], ("a", "b"), several=False)
    assert found.confusion == ((0, 0, 1), (0, 0, 0))
    assert found.accuracy.value == 0


labels = st.sampled_from(NAMES)
probability = st.floats(0, 1)
answer = st.builds(lambda label, score: Answer((label,), {label: score}), labels, probability)
rows = st.lists(st.tuples(labels, answer), min_size=1, max_size=60)


@given(rows)
@settings(deadline=None, max_examples=60)
def test_figures_are_shares_in_their_intervals(rows: list[tuple[str, Answer]]) -> None:
    truths, answers = [(truth,) for truth, _ in rows], [given for _, given in rows]
    found = figures(truths, answers, NAMES, several=False)
    every = [found.accuracy, found.macro_f1, found.weighted_f1]
    every += [f for label in found.labels for f in (label.precision, label.recall, label.f1)]
    assert found.calibration is not None
    every += [found.calibration.error, *(each.right for each in found.calibration.bins)]
    for figure in every:
        if figure.value is None:
            continue
        assert -1e-12 <= figure.value <= 1 + 1e-12
        if figure.interval is not None:
            assert 0 <= figure.interval.low <= figure.value + 1e-12
            assert figure.value - 1e-12 <= figure.interval.high <= 1
    assert sum(map(sum, found.confusion)) == len(rows)
    assert sum(each.count for each in found.calibration.bins) == len(rows)
    assert found == figures(
        truths, answers, NAMES, several=False
    )  # the same texts, the same figures


@given(rows)
@settings(deadline=None, max_examples=40)
def test_the_order_of_the_texts_does_not_matter(rows: list[tuple[str, Answer]]) -> None:
    def made(some: list[tuple[str, Answer]]) -> Any:
        return figures([(t,) for t, _ in some], [a for _, a in some], NAMES, several=False)

    one, other = made(rows), made(rows[::-1])
    assert (one.accuracy, one.confusion) == (other.accuracy, other.confusion)
    assert one.macro_f1.value == pytest.approx(other.macro_f1.value)


@given(st.lists(st.tuples(labels, labels, labels), min_size=1, max_size=60))
def test_pairs_explain_the_difference_of_accuracy(rows: list[tuple[str, str, str]]) -> None:
    truths = [(truth,) for truth, _, _ in rows]
    before = [Answer((each,)) for _, each, _ in rows]
    after = [Answer((each,)) for _, _, each in rows]
    found = paired(truths, before, after)
    first, second = (
        value(figures(truths, each, NAMES, several=False).accuracy) for each in (before, after)
    )
    assert math.isclose(second - first, (found.gained - found.lost) / len(rows), abs_tol=1e-12)
    assert found.lost + found.gained <= found.changed <= len(rows)
    assert 0 < found.p_value <= 1
    back = paired(truths, after, before)
    assert (back.lost, back.gained, back.p_value) == (found.gained, found.lost, found.p_value)

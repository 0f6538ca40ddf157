from __future__ import annotations

import math

import pytest

from fastai_deploy.errors import ParityError
from fastai_deploy.parity.compare import answer, check, compare


def test_equal_answers() -> None:
    report = compare(["a", "b"], [(0.2, 0.8), (0.9, 0.1)], [(0.2, 0.8), (0.9, 0.1)], threshold=None)
    assert (report.max_difference, report.changed) == (0.0, 0)
    check(report, 1e-9)


def test_the_largest_difference_counts() -> None:
    report = compare(["a", "b"], [(0.2, 0.8), (0.9, 0.1)], [(0.21, 0.79), (0.95, 0.05)],
                     threshold=None)  # fmt: skip
    assert report.max_difference == pytest.approx(0.05)
    assert [row.text for row in report.worst] == ["b", "a"]
    check(report, 0.051)
    with pytest.raises(ParityError, match=r"1 of 2 texts.*'b' \(off by 0.05\)"):
        check(report, 0.02)


def test_a_changed_label_fails_whatever_the_tolerance() -> None:
    report = compare(["a"], [(0.501, 0.499)], [(0.499, 0.501)], threshold=None)
    assert report.changed == 1
    with pytest.raises(ParityError, match="another answer"):
        check(report, 0.1)


def test_several_labels_are_compared_as_a_set() -> None:
    expected, found = [(0.6, 0.4, 0.9)], [(0.9, 0.1, 0.55)]
    assert compare(["a"], expected, found, threshold=0.5).changed == 0
    assert compare(["a"], expected, [(0.6, 0.51, 0.9)], threshold=0.5).changed == 1
    assert compare(["a"], expected, [(0.4, 0.4, 0.9)], threshold=0.5).changed == 1


@pytest.mark.parametrize("found", [(math.nan, 0.5), (math.inf, 0.0), (1.0,), ()])
def test_a_missing_answer_differs_infinitely(found: tuple[float, ...]) -> None:
    report = compare(["a"], [(0.5, 0.5)], [found], threshold=None)
    assert report.max_difference == math.inf
    with pytest.raises(ParityError):
        check(report, 1.0)


def test_texts_are_shortened_and_only_the_worst_are_named() -> None:
    texts = [f"{n} " + "word " * 100 for n in range(9)]
    report = compare(texts, [(0.0,)] * 9, [(n / 10,) for n in range(9)], threshold=0.95)
    with pytest.raises(ParityError) as caught:
        check(report, 1e-3, subject="the ONNX model")
    message = caught.value.message
    assert message.startswith("the ONNX model answers 8 of 9 texts differently")
    assert [f"'{n} word" in message for n in (8, 7, 6, 5)] == [True, True, True, False]
    assert len(message) < 500
    assert "larger tolerance in [model]" in caught.value.hint


def test_nothing_to_compare_is_equal() -> None:
    check(compare([], [], [], threshold=None), 1e-9)


def test_different_numbers_of_answers_are_a_defect() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare(["a", "b"], [(1.0,), (1.0,)], [(1.0,)], threshold=None)


def test_answers() -> None:
    assert answer((0.1, 0.7, 0.2), None) == (1,)
    assert answer((0.5, 0.5), None) == (0,)
    assert answer((0.1, 0.7, 0.6), 0.5) == (1, 2)
    assert answer((), None) == ()

from __future__ import annotations

import math
from typing import Any

import pytest

from fastai_deploy.errors import InvocationError, NoAnswer, ParityError
from fastai_deploy.parity.compare import accuracy_change, check, less_accurate
from fastai_deploy.parity.gate import patient
from fastai_deploy.parity.goldens import CARRIED, Golden, carried
from fastai_deploy.runtime.parity import REDUCED, ParityReport, Rules, answer, compare


def test_equal_answers() -> None:
    report = compare(["a", "b"], [(0.2, 0.8), (0.9, 0.1)], [(0.2, 0.8), (0.9, 0.1)], threshold=None)
    assert (report.max_difference, report.changed) == (0.0, 0)
    check(report, Rules.exact(1e-9))


def test_the_largest_difference_counts() -> None:
    report = compare(["a", "b"], [(0.2, 0.8), (0.9, 0.1)], [(0.21, 0.79), (0.95, 0.05)],
                     threshold=None)  # fmt: skip
    assert report.max_difference == pytest.approx(0.05)
    assert [row.text for row in report.breaches(Rules.exact(0.001))] == ["b", "a"]
    check(report, Rules.exact(0.051))
    with pytest.raises(ParityError, match=r"1 of 2 texts.*'b' \(off by 0.05\)"):
        check(report, Rules.exact(0.02))


def test_a_changed_label_fails_whatever_the_tolerance() -> None:
    report = compare(["a"], [(0.501, 0.499)], [(0.499, 0.501)], threshold=None)
    assert report.changed == 1
    with pytest.raises(ParityError, match="another answer"):
        check(report, Rules.exact(0.1))


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
        check(report, Rules.exact(1.0))


def test_texts_are_shortened_and_only_the_worst_are_named() -> None:
    texts = [f"{n} " + "word " * 100 for n in range(9)]
    report = compare(texts, [(0.0,)] * 9, [(n / 10,) for n in range(9)], threshold=0.95)
    with pytest.raises(ParityError) as caught:
        check(report, Rules.exact(1e-3), subject="the ONNX model")
    message = caught.value.message
    assert message.startswith("the ONNX model answers 8 of 9 texts differently")
    assert [f"'{n} word" in message for n in (8, 7, 6, 5)] == [True, True, True, False]
    assert len(message) < 500
    assert "larger tolerance in [model]" in caught.value.hint


def test_nothing_to_compare_is_equal() -> None:
    check(compare([], [], [], threshold=None), Rules.exact(1e-9))
    check(compare([], [], [], threshold=None), REDUCED)


def test_different_numbers_of_answers_are_a_defect() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        compare(["a", "b"], [(1.0,), (1.0,)], [(1.0,)], threshold=None)


def test_answers() -> None:
    assert answer((0.1, 0.7, 0.2), None) == (1,)
    assert answer((0.5, 0.5), None) == (0,)
    assert answer((0.1, 0.7, 0.6), 0.5) == (1, 2)
    assert answer((), None) == ()


def pairs(*differences: float, at: float = 0.9) -> ParityReport:
    """Texts whose first of two probabilities is ``at``, and found that much less."""
    expected = [(at, 1 - at)] * len(differences)
    found = [(at - off, 1 - at + off) for off in differences]
    return compare(map(str, differences), expected, found, threshold=None)


def test_a_label_may_change_where_the_learner_can_hardly_decide() -> None:
    near, clear = pairs(0.02, at=0.51), pairs(0.04, at=0.53)
    assert (near.changed, clear.changed) == (1, 1)
    assert near.widest == pytest.approx(0.02)
    rules = Rules(margin=0.05)
    check(near, rules)
    with pytest.raises(
        ParityError, match=r"label changes on 1 text of 1 whose two best prob.*0\.05"
    ):
        check(clear, rules)
    check(clear, Rules(mean=0.05))


def test_near_ties_of_several_labels_are_near_the_threshold() -> None:
    report = compare(["a"], [(0.51, 0.9)], [(0.49, 0.9)], threshold=0.5)
    assert report.rows[0].margin == pytest.approx(0.02)
    check(report, Rules(margin=0.05))
    far = compare(["a"], [(0.51, 0.56)], [(0.49, 0.44)], threshold=0.5)
    assert list(far.broken(Rules(margin=0.05)))


def test_the_mean_and_the_99th_percentile_have_limits_of_their_own() -> None:
    check(pairs(*[0.001] * 99, 0.3), REDUCED)
    (broken,) = pairs(*[0.001] * 98, 0.3, 0.3).broken(REDUCED)
    assert broken == "the 99th percentile of |Δprobability| is 0.3 (limit 0.05)"
    (broken,) = pairs(*[0.011] * 100).broken(REDUCED)
    assert broken == "the mean |Δprobability| is 0.011 (limit 0.01)"


def test_of_few_texts_the_largest_difference_is_the_percentile() -> None:
    assert pairs(0.01, 0.2, 0.03).p99 == pytest.approx(0.2)


def test_a_lost_answer_breaks_every_rule() -> None:
    report = compare(["a"], [(0.5, 0.5)], [()], threshold=None)
    assert len(list(report.broken(REDUCED))) == 3


def test_accuracy_is_compared_on_the_same_texts() -> None:
    truths = [(0,)] * 300 + [None] * 50
    before = [(0.9, 0.1)] * 350
    after = [(0.4, 0.6)] * 3 + [(0.9, 0.1)] * 347
    change = accuracy_change(truths, before, after, None)
    assert (change.texts, change.lost, change.gained) == (300, 3, 0)
    assert change.drop == pytest.approx(1.0)
    assert change.interval == pytest.approx(1.126, abs=1e-3)  # 196 * sqrt(3 - 9 / 300) / 300
    (broken,) = less_accurate(change, 0.5)
    assert broken.startswith("accuracy drops by 1.0 points on 300 labelled texts (limit 0.5")
    assert not list(less_accurate(change, 1.0))
    assert not list(less_accurate(change, None))


def test_without_labels_there_is_no_accuracy() -> None:
    change = accuracy_change([None], [(1.0,)], [(1.0,)], None)
    assert (change.texts, change.drop) == (0, 0.0)


def test_an_artifact_carries_the_goldens_nearest_to_another_answer() -> None:
    goldens = [Golden(str(n), (0.5 + n / 2000, 0.5 - n / 2000), "rebuilt") for n in range(999)]
    chosen = carried(goldens[::-1], None)
    assert [golden.text for golden in chosen] == list(map(str, range(CARRIED)))


def busy(status: int, code: str, retry_after: float = 0.0) -> InvocationError:
    return InvocationError(
        f"answered {status}", hint="later", status=status, answer_code=code, retry_after=retry_after
    )


def test_a_busy_server_is_asked_again_after_the_time_that_it_names() -> None:
    answers: list[Any] = [busy(429, "throttled", 7), busy(503, "overloaded"), {"label": "a"}]
    waited: list[float] = []

    def invoke(_request: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, InvocationError):
            raise answer
        return answer

    assert patient(invoke, waited.append)({"text": "a"}) == {"label": "a"}
    assert waited == [7, 2]


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (busy(503, "not_ready"), 6),
        (busy(429, "throttled", 3_600), 6),
        (busy(429, "quota_exceeded"), 1),
    ],
)
def test_a_server_that_stays_busy_has_not_answered(error: InvocationError, attempts: int) -> None:
    asked: list[Any] = []
    waited: list[float] = []

    def invoke(request: Any) -> Any:
        asked.append(request)
        raise error

    with pytest.raises(NoAnswer, match=error.message):
        patient(invoke, waited.append)({"text": "a"})
    assert len(asked) == attempts
    assert max(waited, default=0) <= 30


def test_any_other_error_is_raised_at_once() -> None:
    def invoke(_request: Any) -> Any:
        raise busy(500, "model_error")

    with pytest.raises(InvocationError, match="500") as raised:
        patient(invoke, lambda _seconds: None)({})
    assert not isinstance(raised.value, NoAnswer)

from __future__ import annotations

from tests.learner.fuzz import corpus, fuzz, run


def test_every_input_of_the_corpus_is_read_or_refused() -> None:
    assert {run(data) for data in corpus()} >= {"convertible", "learner-runtime", "NotALearner"}


def test_mutated_learners_raise_nothing_but_learner_errors() -> None:
    # python -m tests.learner.fuzz runs any number
    outcomes = fuzz(1_500, seed=20_261_122, told=lambda _line: None)
    assert sum(outcomes.values()) == 1_500
    assert {"LearnerTruncated", "convertible", "NotALearner", "DangerousLearner"} <= outcomes.keys()

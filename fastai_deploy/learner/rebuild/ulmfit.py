"""A rebuilt ULMFiT learner: its AWD-LSTM in torch, with its own text rules and vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.awd_lstm import Ulmfit
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.rebuild.answers import Ids, Scores, probabilities, session_scores
from fastai_deploy.learner.rebuild.awd_lstm import (
    AwdLstmChecks,
    AwdLstmClassifier,
    BatchedAwdLstm,
    rebuild_awd_lstm,
)
from fastai_deploy.learner.rebuild.onnx_export import Graph, export_onnx, open_graph
from fastai_deploy.learner.text.spacy_rules import rules_of_language
from fastai_deploy.learner.text.words import UNKNOWN, WordRules
from fastai_deploy.parity.goldens import Case
from fastai_deploy.runtime.parity import compare
from fastai_deploy.runtime.word_tokenizer import WordTokenizer, describe

Answers = list[tuple[float, ...]]

# Tokens that are read of a text. An LSTM reads one token at a time, so the time must be bounded;
# the effect of tokens long before the last 1,440, which are pooled, has faded when those begin.
LONGEST = 4_096
WARM_UP = 2_048  # tokens read at least before the pooled ones
SHORT = 1_000  # characters of a text that decides something: no need to wait for long ones
SAME = 1e-6  # smaller differences of probabilities are float32 rounding


@dataclass(frozen=True, eq=False, repr=False)
class RebuiltUlmfit:
    """A convertible ULMFiT learner, rebuilt.

    ``max_length`` is in tokens; ``spacy`` is the version whose rules replace those that the file
    does not hold, or None if it holds them or needs none.
    """

    anatomy: Anatomy
    ulmfit: Ulmfit
    document: Mapping[str, Any]
    words: WordTokenizer
    classifier: AwdLstmClassifier
    max_length: int
    spacy: str | None

    @property
    def text(self) -> WordRules:
        """How a text becomes ids, and what is assumed about it."""
        return self.ulmfit.words

    def cuts(self, text: str) -> bool:
        """Whether a text has more tokens than the learner reads."""
        return self.words.encode(text, self.max_length).truncated

    def answer(self, texts: Iterable[str]) -> Answers:
        """Probabilities from the model in torch, which reads every token."""
        encoded = [self._ids(text) for text in texts]
        return probabilities(encoded, _scores(self.classifier), self.anatomy.loss.activation)

    def answer_onnx(self, graph: Graph, texts: Iterable[str]) -> Answers:
        """Probabilities from the exported graph."""
        encoded = [self._ids(text) for text in texts]
        scores = session_scores(open_graph(graph.path), graph.inputs)
        return probabilities(encoded, scores, self.anatomy.loss.activation)

    def export(self, path: Path) -> Graph:
        """Write the model as an ONNX graph. Raises UnsupportedLearner or FileError."""
        checks = AwdLstmChecks(self.classifier, longest=self.max_length)
        return export_onnx(BatchedAwdLstm(self.classifier), path, checks)

    def _ids(self, text: str) -> Ids:
        ids = list(self.words.encode(text, self.max_length).ids)
        if not ids:
            raise UnsupportedLearner(
                f"the learner fails on the golden text {text[:60]!r}, which has no words",
                hint="remove it from the golden file",
            )
        return ids


def rebuild_ulmfit(anatomy: Anatomy, cases: Sequence[Case]) -> RebuiltUlmfit:
    """Rebuild a convertible ULMFiT learner.

    ``cases`` with the learner's own answers decide what the file does not show.
    Raises UnsupportedLearner, LearnerTruncated or ExtraMissing.
    """
    ulmfit = anatomy.ulmfit
    if ulmfit is None:
        raise UnsupportedLearner("the learner is not an AWD-LSTM classifier", hint=RUNTIME)
    classifier = rebuild_awd_lstm(ulmfit.model, anatomy.weights)
    splitter = _splitter(ulmfit.words)
    forwards = _made(anatomy, ulmfit, splitter, classifier)
    if ulmfit.words.direction_known:
        return forwards
    turned = replace(ulmfit, words=replace(ulmfit.words, backwards=True))
    return _settle(forwards, _made(anatomy, turned, splitter, classifier), cases)


def _made(
    anatomy: Anatomy, ulmfit: Ulmfit, splitter: Mapping[str, Any], classifier: AwdLstmClassifier
) -> RebuiltUlmfit:
    words, model = ulmfit.words, ulmfit.model
    document = describe(
        words.before, splitter, words.after, words.ids,
        unknown=UNKNOWN, backwards=words.backwards, step=model.bptt,
    )  # fmt: skip
    try:
        ready = WordTokenizer(document)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, re.error) as error:
        raise UnsupportedLearner(f"its text rules cannot be used: {error}", hint=RUNTIME) from error
    return RebuiltUlmfit(
        anatomy=anatomy,
        ulmfit=ulmfit,
        document=document,
        words=ready,
        classifier=classifier,
        max_length=max(LONGEST, (model.max_len or 0) + WARM_UP),
        spacy=version("spacy") if words.splitter == "spaCy" and not words.splitting else None,
    )


def _settle(
    forwards: RebuiltUlmfit, backwards: RebuiltUlmfit, cases: Sequence[Case]
) -> RebuiltUlmfit:
    """The candidate that answers as the learner did; forwards if the goldens do not decide."""
    known = (case for case in cases if case.probabilities is not None)
    answered = [case for case in known if len(case.text) <= SHORT]
    texts = [case.text for case in answered]
    reports = [
        compare(
            texts,
            [case.probabilities or () for case in answered],
            each.answer(texts),
            threshold=forwards.anatomy.threshold,
        )
        for each in (forwards, backwards)
    ]
    ahead, behind = (sum(row.difference for row in report.rows) for report in reports)
    if abs(ahead - behind) <= SAME * len(texts):
        return forwards
    chosen = forwards if ahead < behind else backwards
    settled = replace(chosen.text, direction_known=True, assumptions=())
    return replace(chosen, ulmfit=replace(chosen.ulmfit, words=settled))


def _splitter(words: WordRules) -> dict[str, Any]:
    if words.splitter == "spaces":
        return {"kind": "separator", "separator": words.separator}
    rules = words.splitting or rules_of_language(words.language or "en", words.marks)
    return {"kind": "rules", "rules": rules}


def _scores(classifier: AwdLstmClassifier) -> Scores:
    def scores(ids: Ids) -> Any:
        with torch.no_grad():
            return classifier(torch.tensor([ids]))[0].double().numpy()

    return scores
